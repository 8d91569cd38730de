//! The history of a session. A JWT with a lifetime of one minute gives access to it and to nothing
//! else (docs/platform.md#guest-history).

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use guestlane_genesys::guest::frame::{Body as FrameBody, Jwt};
use guestlane_runtime::Timestamp;
use http::{HeaderMap, Response, StatusCode};
use serde_json::json;

use crate::{
    frame::{self, Reply},
    organization::{Organization, guests::HISTORY_READS_PER_MINUTE},
    request::{Page, bearer},
    response::{self, Body, Refusal},
};

/// The lifetime of a JWT from `getJwt`.
const HISTORY_TTL: Duration = Duration::from_secs(60);

impl Organization {
    /// `getJwt`
    pub(super) fn history_jwt(
        &mut self,
        key: &str,
        tracing_id: Option<String>,
        now: Timestamp,
    ) -> Reply {
        let jwt = self.new_jwt("history", now + HISTORY_TTL);
        self.guests
            .history_jwts
            .retain(|_, (_, until)| *until > now - HISTORY_TTL);
        self.guests
            .history_jwts
            .insert(jwt.clone(), (key.to_owned(), now + HISTORY_TTL));
        frame::response(
            FrameBody::Jwt(Jwt {
                jwt,
                exp: (now + HISTORY_TTL).unix_seconds(),
            }),
            tracing_id,
        )
        .into()
    }

    /// Creates a token in the form of a JWT. Its content is opaque to clients.
    pub(super) fn new_jwt(&mut self, purpose: &str, until: Timestamp) -> String {
        let encode = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let header = encode(json!({"alg": "HS256", "typ": "JWT"}));
        let claims =
            encode(json!({"jti": self.new_id(), "purpose": purpose, "exp": until.unix_seconds()}));
        format!(
            "{header}.{claims}.{}",
            BASE64_URL_SAFE_NO_PAD.encode(self.new_id().as_bytes())
        )
    }

    /// `GET /api/v2/webmessaging/messages`: newest first.
    pub(crate) fn history(
        &mut self,
        headers: &HeaderMap,
        query: Option<&str>,
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        let jwt = bearer(headers)?;
        let (key, until) = self.guests.history_jwts.get(jwt).ok_or_else(|| {
            Refusal::unauthorized("bad.credentials", "Invalid login credentials.")
        })?;
        if *until <= now {
            return Err(Refusal::unauthorized(
                "credentials.expired",
                "The JWT has expired.",
            ));
        }
        let session = self
            .guests
            .sessions
            .get_mut(key)
            .ok_or_else(Refusal::not_found)?;
        let (rate, room) = session
            .history_reads
            .take_of_minute(HISTORY_READS_PER_MINUTE, now);
        if !room {
            return Err(Refusal::too_many_requests(rate.reset));
        }
        let newest_first: Vec<_> = session.history.iter().rev().cloned().collect();
        Ok(response::json(
            StatusCode::OK,
            &Page::read(query)?.of(&newest_first),
        ))
    }
}
