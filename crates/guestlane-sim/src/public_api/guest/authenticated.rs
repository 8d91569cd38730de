//! Authenticated guests: the provider's code is exchanged for a JWT, and the JWT opens a session
//! (docs/platform.md#authenticated-guests).

use guestlane_genesys::guest::frame::{Body as FrameBody, Empty};
use guestlane_runtime::Timestamp;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    frame,
    organization::{Organization, authenticated_guests::JWT_TTL},
    request::{bearer, parse},
    response::{self, Body, Refusal},
};

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
            return Err(Refusal::unauthorized(
                "bad.credentials",
                "The provider does not know the code.",
            ));
        }
        if !self.guests.authenticated.redeem(code) {
            return Err(Refusal::unauthorized(
                "bad.credentials",
                "The code was redeemed already.",
            ));
        }
        let subject = code.split('.').next().unwrap_or(code).to_owned();
        let refresh_token = self.new_id().simple().to_string();
        self.guests
            .authenticated
            .add_refresh_token(refresh_token.clone(), subject.clone(), now);
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
        let token = body["refreshToken"].as_str().unwrap_or_default();
        let subject = self
            .guests
            .authenticated
            .subject_of_refresh_token(token, now)
            .ok_or_else(|| {
                Refusal::unauthorized("bad.credentials", "The refresh token is not valid.")
            })?;
        let jwt = self.guest_jwt(subject, now);
        Ok(response::json(StatusCode::OK, &json!({"jwt": jwt})))
    }

    /// `DELETE …/revoke`: signs the guest out of all sessions.
    pub(crate) fn revoke(
        &mut self,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        let jwt = bearer(headers)?;
        let subject = self.guests.authenticated.subject_of_jwt(jwt, now);
        let subject = subject.ok_or_else(|| {
            Refusal::unauthorized("bad.credentials", "Invalid login credentials.")
        })?;
        self.guests.authenticated.revoke(&subject);
        for key in self.sessions_of(&subject) {
            self.guests
                .broadcast(&key, &frame::push(FrameBody::Logout(Empty {})), None);
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
        let jwt = self.new_jwt("guest", now + JWT_TTL);
        self.guests.authenticated.add_jwt(jwt.clone(), subject, now);
        jwt
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
