//! The OAuth server: the client credentials grant, access tokens, and the rate limits of OAuth
//! clients.

use std::collections::HashMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use guestlane_runtime::Timestamp;
use http::{HeaderMap, Response, StatusCode, header};
use serde_json::json;

use crate::{
    organization::{Organization, has_type},
    rate_window::{RateHeaders, Window},
    response::{self, Body, Refusal},
    route::Route,
};

/// The access tokens and their rate-limit windows.
#[derive(Debug, Default)]
pub(crate) struct OAuthServer {
    tokens: HashMap<String, Token>,
    calls: HashMap<(String, Option<Route>), Window>,
    sign_ins: HashMap<String, Window>,
    pub(crate) issued: u64,
    pub(crate) throttled: u64,
}

#[derive(Debug)]
struct Token {
    client: usize,
    expires_at: Timestamp,
}

impl OAuthServer {
    /// Revokes every access token that was issued so far.
    pub(crate) fn revoke_tokens(&mut self) {
        self.tokens.clear();
    }
}

impl Organization {
    /// `POST /api/v2/oauth/token` of the surface `rest`: credentials in the form (requirement R1,
    /// docs/requirements.md).
    pub(crate) fn gateway_token(
        &mut self,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Response<Body> {
        let form = match form(headers, body) {
            Ok(form) => form,
            Err(refusal) => return *refusal,
        };
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        match self.known_client(field("client_id"), field("client_secret")) {
            Some(client) => self.issue(client, now),
            None => refuse(
                StatusCode::UNAUTHORIZED,
                "invalid_client",
                "authentication failed",
            ),
        }
    }

    /// `POST /oauth/token`: credentials in the header, the grant in the form; both are needed
    /// (docs/platform.md#sign-in).
    pub(crate) fn token(
        &mut self,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Response<Body> {
        if let Err(refusal) = form(headers, body) {
            return *refusal;
        }
        let client = basic(headers).and_then(|(id, secret)| self.known_client(&id, &secret));
        let Some(client) = client else {
            return refuse(
                self.options.bad_client_status,
                "invalid_client",
                "authentication failed",
            );
        };
        if let Some(rate) = self.options.token_quota {
            let id = self.options.clients[client].id.clone();
            let (rate, room) = self
                .sign_in
                .sign_ins
                .entry(id)
                .or_insert_with(|| Window::new(now))
                .take(rate, now);
            if !room {
                self.sign_in.throttled += 1;
                let text = format!("rate limit exceeded; try again in {} seconds", rate.reset);
                return refuse(StatusCode::BAD_REQUEST, "invalid_request", &text);
            }
        }
        self.issue(client, now)
    }

    fn known_client(&self, id: &str, secret: &str) -> Option<usize> {
        self.options
            .clients
            .iter()
            .position(|client| client.id == id && client.secret == secret)
    }

    fn issue(&mut self, client: usize, now: Timestamp) -> Response<Body> {
        self.sign_in.issued += 1;
        let token = format!("sim-{}", self.new_id().simple());
        self.sign_in.tokens.insert(
            token.clone(),
            Token {
                client,
                expires_at: now + self.options.token_life,
            },
        );
        let life = self.options.token_life.as_secs();
        response::json(
            StatusCode::OK,
            &json!({"access_token": token, "token_type": "bearer", "expires_in": life}),
        )
    }

    /// Returns the client that an access token was issued to.
    pub(crate) fn client(&self, headers: &HeaderMap, now: Timestamp) -> Result<usize, Refusal> {
        match self.sign_in.tokens.get(bearer(headers)?) {
            None => Err(unauthorized(
                "bad.credentials",
                "Invalid login credentials.",
            )),
            Some(token) if token.expires_at <= now => Err(unauthorized(
                "credentials.expired",
                "The access token has expired.",
            )),
            Some(token) => Ok(token.client),
        }
    }

    /// Counts a call against the client's rate limit, and against the endpoint's limit if it has
    /// one.
    ///
    /// # Errors
    ///
    /// Returns the 429 response if a limit is exceeded.
    pub(crate) fn count_call(
        &mut self,
        client: &str,
        route: Route,
        now: Timestamp,
    ) -> (RateHeaders, Result<(), Refusal>) {
        let endpoint = self
            .options
            .endpoint_rate_limits
            .iter()
            .find(|(known, _)| *known == route)
            .map(|(_, rate)| *rate);
        let mut told = RateHeaders::default();
        let limits = [(None, self.options.quota), (Some(route), endpoint)];
        for (of, rate) in limits
            .into_iter()
            .filter_map(|(of, rate)| Some((of, rate?)))
        {
            let window = self
                .sign_in
                .calls
                .entry((client.to_owned(), of))
                .or_insert_with(|| Window::new(now));
            let room;
            (told, room) = window.take(rate, now);
            if !room {
                self.sign_in.throttled += 1;
                return (told, Err(Refusal::too_many_requests(told.reset)));
            }
        }
        (told, Ok(()))
    }

    /// Returns the client's rate-limit headers without counting a call. There are none without a
    /// limit or a known client.
    pub(crate) fn quota_of(&self, headers: &HeaderMap, now: Timestamp) -> RateHeaders {
        let (Some(rate), Ok(client)) = (self.options.quota, self.client(headers, now)) else {
            return RateHeaders::default();
        };
        let window = self
            .sign_in
            .calls
            .get(&(self.options.clients[client].id.clone(), None));
        window
            .copied()
            .unwrap_or_else(|| Window::new(now))
            .look(rate, now)
    }

    /// `GET /api/v2/tokens/me`
    pub(crate) fn token_info(&self, client: usize) -> Response<Body> {
        let client = &self.options.clients[client];
        response::json(
            StatusCode::OK,
            &json!({
                "organization": {"id": "09a00000-0000-4000-8000-000000000001", "name": "Simulated Organization"},
                "OAuthClient": {"id": client.id, "name": client.id},
            }),
        )
    }
}

/// Returns the bearer token of a request, whichever issuer it has.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let value = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    value
        .and_then(|value| {
            value
                .strip_prefix("Bearer ")
                .or_else(|| value.strip_prefix("bearer "))
        })
        .ok_or_else(|| {
            unauthorized(
                "authentication.required",
                "No authentication bearer token specified.",
            )
        })
}

pub(crate) fn unauthorized(code: &'static str, message: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, code, message)
}

/// Builds an error response of a token request. It has three fields in place of the platform's
/// error body.
fn refuse(status: StatusCode, error: &str, text: &str) -> Response<Body> {
    response::json(
        status,
        &json!({"error": error, "description": text, "error_description": text}),
    )
}

fn form(headers: &HeaderMap, body: &[u8]) -> Result<HashMap<String, String>, Box<Response<Body>>> {
    if !has_type(headers, "application/x-www-form-urlencoded") {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            "the body is not a form",
        )
        .into());
    }
    let form: HashMap<_, _> = url::form_urlencoded::parse(body).into_owned().collect();
    if form.get("grant_type").map(String::as_str) != Some("client_credentials") {
        let text = "grant_type is not client_credentials";
        return Err(refuse(StatusCode::BAD_REQUEST, "unsupported_grant_type", text).into());
    }
    Ok(form)
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let value = value
        .strip_prefix("Basic ")
        .or_else(|| value.strip_prefix("basic "))?;
    let decoded = String::from_utf8(BASE64_STANDARD.decode(value).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}
