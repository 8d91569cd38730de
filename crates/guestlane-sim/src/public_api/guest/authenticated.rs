//! Authenticated guests: the provider's code is exchanged for a JWT, and the JWT opens a session
//! (docs/platform.md#authenticated-guests).

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use guestlane_genesys::guest::frame::{Body as FrameBody, Empty};
use guestlane_runtime::Timestamp;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::frames;
use crate::{
    organization::{Organization, parse},
    public_api::oauth_server::{bearer, unauthorized},
    response::{self, Body, Refusal},
};

/// The lifetimes of a JWT from a code exchange and of a refresh token.
const JWT_LIFE: Duration = Duration::from_secs(15 * 60);
const REFRESH_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The authenticated guests by JWT and by refresh token, with their expiry.
#[derive(Debug, Default)]
pub(super) struct SignedIn {
    jwts: HashMap<String, (String, Timestamp)>,
    refresh_tokens: HashMap<String, (String, Timestamp)>,
    /// Codes that were redeemed.
    redeemed: HashSet<String>,
}

impl Organization {
    /// `POST …/oauthcodegrantjwtexchange`. No provider is involved. Any code is valid once unless
    /// it begins with `bad`, and the part before its first dot names the guest.
    pub(crate) fn exchange(
        &mut self,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        let body: Value = parse(body)?;
        self.own_deployment(&body)?;
        let code = body["oauth"]["code"]
            .as_str()
            .filter(|code| !code.is_empty());
        let code = code.ok_or_else(|| Refusal::bad_request("oauth.code is missing."))?;
        if body["oauth"]["redirectUri"]
            .as_str()
            .unwrap_or_default()
            .is_empty()
        {
            return Err(Refusal::bad_request("oauth.redirectUri is missing."));
        }
        if code.starts_with("bad") {
            return Err(unauthorized(
                "bad.credentials",
                "The provider does not know the code.",
            ));
        }
        if !self.guests.signed_in.redeemed.insert(code.to_owned()) {
            return Err(unauthorized(
                "bad.credentials",
                "The code was redeemed already.",
            ));
        }
        let subject = code.split('.').next().unwrap_or(code).to_owned();
        let refresh_token = self.new_id().simple().to_string();
        self.guests
            .signed_in
            .refresh_tokens
            .insert(refresh_token.clone(), (subject.clone(), now + REFRESH_LIFE));
        let jwt = self.guest_jwt(subject, now);
        Ok(response::json(
            StatusCode::OK,
            &json!({"jwt": jwt, "refreshToken": refresh_token}),
        ))
    }

    /// `POST …/refresh`
    pub(crate) fn refresh(
        &mut self,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        let body: Value = parse(body)?;
        if !body["deploymentId"].is_null() {
            self.own_deployment(&body)?;
        }
        let known = self
            .guests
            .signed_in
            .refresh_tokens
            .get(body["refreshToken"].as_str().unwrap_or_default());
        let (subject, _) = known
            .filter(|(_, until)| *until > now)
            .ok_or_else(|| unauthorized("bad.credentials", "The refresh token is not valid."))?;
        let subject = subject.clone();
        let jwt = self.guest_jwt(subject, now);
        Ok(response::json(StatusCode::OK, &json!({"jwt": jwt})))
    }

    /// `DELETE …/revoke`: signs the guest out of all sessions.
    pub(crate) fn revoke(
        &mut self,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        let subject = self.subject_of(bearer(headers)?, now);
        let subject =
            subject.ok_or_else(|| unauthorized("bad.credentials", "Invalid login credentials."))?;
        let signed_in = &mut self.guests.signed_in;
        signed_in.jwts.retain(|_, (known, _)| *known != subject);
        signed_in
            .refresh_tokens
            .retain(|_, (known, _)| *known != subject);
        for key in self.sessions_of(&subject) {
            self.guests
                .broadcast(&key, &frames::push(FrameBody::Logout(Empty {})), None);
            self.guests.detach_all(&key);
        }
        Ok(response::empty(StatusCode::NO_CONTENT))
    }

    fn own_deployment(&self, body: &Value) -> Result<(), Refusal> {
        let mine = body["deploymentId"].as_str() == Some(&self.options.deployment.id.to_string());
        let enabled = self.options.deployment.authentication;
        if mine && enabled {
            Ok(())
        } else {
            Err(Refusal::bad_request(
                "deploymentId is not a deployment with sign-in.",
            ))
        }
    }

    fn guest_jwt(&mut self, subject: String, now: Timestamp) -> String {
        let jwt = self.new_jwt("guest", now + JWT_LIFE);
        self.guests
            .signed_in
            .jwts
            .insert(jwt.clone(), (subject, now + JWT_LIFE));
        jwt
    }

    /// Returns the guest of this JWT while the JWT is valid.
    pub(super) fn subject_of(&self, jwt: &str, now: Timestamp) -> Option<String> {
        let known = self
            .guests
            .signed_in
            .jwts
            .get(jwt)
            .filter(|(_, until)| *until > now);
        known.map(|(subject, _)| subject.clone())
    }

    fn sessions_of(&self, subject: &str) -> Vec<String> {
        let theirs = self
            .guests
            .sessions
            .iter()
            .filter(|(_, session)| session.subject.as_deref() == Some(subject));
        theirs.map(|(key, _)| key.clone()).collect()
    }

    /// Ends the other sessions of a guest, because an authenticated guest has one session. Returns
    /// whether there were any.
    pub(super) fn end_other_sessions_of(
        &mut self,
        subject: &str,
        but: &str,
        now: Timestamp,
    ) -> bool {
        let others: Vec<String> = self
            .sessions_of(subject)
            .into_iter()
            .filter(|key| key != but)
            .collect();
        for key in &others {
            self.end_conversation_of(key, now);
            self.guests.close_all(key, None, Some("signedIn"));
            self.guests.sessions.remove(key);
        }
        !others.is_empty()
    }
}
