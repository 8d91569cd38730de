//! Authenticates requests by API key, checks scopes, and limits the request rate of each key.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use guestlane::error::ErrorCode;
use guestlane_core::{
    api_key::{Principal, Scope},
    request::Owner,
    session::SessionRecord,
};
use http::{HeaderMap, header, request::Parts};

use crate::{connections::Connection, problem::Problem, service::App};

/// Returns the principal of the request's API key, if the key is accepted. It runs before tracing
/// and logging, so that unauthenticated clients cannot choose what is traced or how much is logged.
pub(crate) fn identify(app: &App, headers: &HeaderMap) -> Option<Principal> {
    bearer(headers).and_then(|text| app.keys().authenticate(text, app.clock().now()))
}

/// Rejects a request without an accepted API key, or beyond the rate limit of its key.
pub(crate) async fn authenticate(State(app): State<App>, request: Request, next: Next) -> Response {
    let now = app.clock().now();
    if app.keys_are_stale() {
        let detail = "the API keys could not be read for 30 seconds; a revoked key might be \
            accepted";
        return Problem::new(
            ErrorCode::StoreFailed,
            detail,
            "retry when the store responds again",
        )
        .retry_after(1)
        .into_response();
    }
    let Some(caller) = request.extensions().get::<Principal>() else {
        return unauthorized().into_response();
    };
    if let Some(connection) = request.extensions().get::<Arc<Connection>>() {
        app.connections().authenticated(connection);
    }
    app.key_was_used(&caller.id, now);
    if let Err(seconds) = app.allowance().take(&caller.id, app.clock()) {
        let problem = Problem::new(
            ErrorCode::TooManyRequests,
            "this API key exceeds GUESTLANE_API_KEY_RATE_LIMIT",
            "retry after the seconds in Retry-After, with the same idempotency key",
        );
        return problem.retry_after(seconds).into_response();
    }
    next.run(request).await
}

/// The response to every request without an accepted API key. It is the same for a missing,
/// unknown, expired or revoked key, so that it does not reveal which keys exist.
pub(crate) fn unauthorized() -> Problem {
    Problem::new(
        ErrorCode::Unauthorized,
        "the request has no valid API key",
        "send `Authorization: Bearer gl_…`; create a key with `guestlane api-keys create`",
    )
}

/// Returns the token of `Authorization: Bearer …` (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, more) = (values.next()?.to_str().ok()?, values.next());
    let (scheme, key) = value.split_once(' ')?;
    (more.is_none() && scheme.eq_ignore_ascii_case("bearer")).then(|| key.trim())
}

/// Interval at which a streaming response checks that its API key is still accepted.
const LOOK_AT_KEY: Duration = Duration::from_secs(1);

/// The principal of a request whose API key was accepted.
pub(crate) struct Authenticated(Principal);

impl Authenticated {
    /// Checks that the API key has `scope`.
    ///
    /// # Errors
    /// `insufficient_scope` if it does not.
    pub(crate) fn require_scope(&self, scope: Scope) -> Result<(), Problem> {
        if self.0.scopes.allow(scope) {
            return Ok(());
        }
        let detail = format!("the API key lacks the scope {scope}");
        Err(Problem::new(
            ErrorCode::InsufficientScope,
            detail,
            format!("use a key that has it: `guestlane api-keys create --scope {scope}`"),
        ))
    }

    /// The owner of the key. Idempotency keys and sessions belong to an owner.
    pub(crate) fn owner(&self) -> &Owner {
        &self.0.owner
    }

    /// Whether the caller may read `session`. A key with `sessions:read` may read all sessions; a
    /// key with only `sessions:write` may read those that the keys of its owner created.
    pub(crate) fn may_see(&self, session: &SessionRecord) -> bool {
        self.0.scopes.allow(Scope::SessionsRead)
            || self.0.scopes.allow(Scope::SessionsWrite)
                && session.request.key.owner() == self.owner()
    }

    /// Whether the key is still accepted. Streaming responses check it again while they run.
    pub(crate) fn is_active(&self, app: &App) -> bool {
        !app.keys_are_stale() && app.keys().is_good(&self.0.id, app.clock().now())
    }

    /// Waits until the key is no longer accepted. A stream then ends even if it has nothing to
    /// send.
    pub(crate) async fn revoked(&self, app: &App) {
        while self.is_active(app) {
            app.clock().sleep(LOOK_AT_KEY).await;
        }
    }

    /// The names of the scopes that the key has.
    pub(crate) fn scopes(&self) -> Vec<&'static str> {
        self.0.scopes.iter().map(Scope::name).collect()
    }
}

impl<S: Sync> FromRequestParts<S> for Authenticated {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts
            .extensions
            .get::<Principal>()
            .cloned()
            .map(Self)
            .ok_or_else(unauthorized)
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn authorization_header_must_hold_one_bearer_token() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(read(&["Bearer gl_x"]).as_deref(), Some("gl_x"));
        assert_eq!(read(&["bearer  gl_x"]).as_deref(), Some("gl_x"));
        for bad in [
            &["gl_x"][..],
            &["Basic gl_x"],
            &[],
            &["Bearer gl_x", "Bearer gl_y"],
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
