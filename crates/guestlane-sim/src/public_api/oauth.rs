//! OAuth: the client credentials grant, the check of access tokens, and the rate limits of clients.

use std::collections::HashMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use guestlane_runtime::Timestamp;
use http::{HeaderMap, Response, StatusCode, header};
use serde_json::json;

use crate::{
    organization::Organization,
    rate_window::RateHeaders,
    request::{bearer, has_type},
    response::{self, Body, Refusal},
    route::Route,
};

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
        let id = &self.options.clients[client].id;
        if let Some(rate) = self.options.token_quota
            && let Err(seconds) = self.oauth.count_token_request(id, rate, now)
        {
            let text = format!("rate limit exceeded; try again in {seconds} seconds");
            return refuse(StatusCode::BAD_REQUEST, "invalid_request", &text);
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
        let token = format!("sim-{}", self.new_id().simple());
        let expires_at = now + self.options.token_life;
        self.oauth.issue(token.clone(), client, expires_at);
        let life = self.options.token_life.as_secs();
        response::json(
            StatusCode::OK,
            &json!({"access_token": token, "token_type": "bearer", "expires_in": life}),
        )
    }

    /// Returns the client that the request's access token was issued to.
    pub(crate) fn client(&self, headers: &HeaderMap, now: Timestamp) -> Result<usize, Refusal> {
        self.oauth.client(bearer(headers)?, now)
    }

    /// Counts a call against the client's rate limit, and against the endpoint's limit if it has
    /// one.
    ///
    /// # Errors
    ///
    /// Returns the 429 response if a limit is exceeded.
    pub(crate) fn count_call(
        &mut self,
        client: usize,
        route: Route,
        now: Timestamp,
    ) -> (RateHeaders, Result<(), Refusal>) {
        let endpoint = self
            .options
            .endpoint_rate_limits
            .iter()
            .find(|(known, _)| *known == route)
            .map(|(_, rate)| (Some(route), *rate));
        let all = self.options.quota.map(|rate| (None, rate));
        let limits = all.into_iter().chain(endpoint);
        let id = &self.options.clients[client].id;
        self.oauth.count_call(id, limits, now)
    }

    /// Returns the client's rate-limit headers without counting a call. There are none without a
    /// limit or a known client.
    pub(crate) fn quota_of(&self, headers: &HeaderMap, now: Timestamp) -> RateHeaders {
        let (Some(rate), Ok(client)) = (self.options.quota, self.client(headers, now)) else {
            return RateHeaders::default();
        };
        let id = &self.options.clients[client].id;
        self.oauth.rate_headers(id, rate, now)
    }

    /// `GET /api/v2/tokens/me`
    pub(crate) fn token_info(&self, client: Option<usize>) -> Result<Response<Body>, Refusal> {
        let client = client.ok_or_else(Refusal::not_found)?;
        let client = &self.options.clients[client].id;
        Ok(response::json(
            StatusCode::OK,
            &json!({
                "organization": {"id": "09a00000-0000-4000-8000-000000000001", "name": "Simulated Organization"},
                "OAuthClient": {"id": client, "name": client},
            }),
        ))
    }
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
