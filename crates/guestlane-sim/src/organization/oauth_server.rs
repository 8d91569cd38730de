//! The access tokens, and the rate limits of OAuth clients.

use std::collections::HashMap;

use guestlane_genesys::Rate;
use guestlane_runtime::Timestamp;

use crate::{
    rate_window::{RateHeaders, Window},
    response::Refusal,
    route::Route,
};

/// The access tokens and their rate-limit windows.
#[derive(Debug, Default)]
pub(crate) struct OAuthServer {
    tokens: HashMap<String, Token>,
    calls: HashMap<(String, Option<Route>), Window>,
    token_requests: HashMap<String, Window>,
    /// The number of access tokens issued.
    pub(crate) issued: u64,
    /// The number of requests that exceeded a rate limit.
    pub(crate) throttled: u64,
}

#[derive(Debug)]
struct Token {
    /// The index of the client in the options.
    client: usize,
    expires_at: Timestamp,
}

impl OAuthServer {
    pub(crate) fn issue(&mut self, token: String, client: usize, expires_at: Timestamp) {
        self.issued += 1;
        self.tokens.insert(token, Token { client, expires_at });
    }

    /// Revokes every access token that was issued so far.
    pub(crate) fn revoke_tokens(&mut self) {
        self.tokens.clear();
    }

    /// Returns the index of the client that the token was issued to.
    pub(crate) fn client(&self, token: &str, now: Timestamp) -> Result<usize, Refusal> {
        match self.tokens.get(token) {
            None => Err(Refusal::unauthorized(
                "bad.credentials",
                "Invalid login credentials.",
            )),
            Some(token) if token.expires_at <= now => Err(Refusal::unauthorized(
                "credentials.expired",
                "The access token has expired.",
            )),
            Some(token) => Ok(token.client),
        }
    }

    /// Counts a token request against this limit.
    ///
    /// # Errors
    ///
    /// Fails with the seconds to wait if the limit is exceeded.
    pub(crate) fn count_token_request(
        &mut self,
        client: &str,
        rate: Rate,
        now: Timestamp,
    ) -> Result<(), u64> {
        let (headers, room) = self
            .token_requests
            .entry(client.to_owned())
            .or_insert_with(|| Window::new(now))
            .take(rate, now);
        if room {
            return Ok(());
        }
        self.throttled += 1;
        Err(headers.reset)
    }

    /// Counts a call against these limits of the client: of all routes (`None`) or of one. Returns
    /// the headers of the last limit that was looked at.
    ///
    /// # Errors
    ///
    /// Returns the 429 response if a limit is exceeded.
    pub(crate) fn count_call(
        &mut self,
        client: &str,
        limits: impl Iterator<Item = (Option<Route>, Rate)>,
        now: Timestamp,
    ) -> (RateHeaders, Result<(), Refusal>) {
        let mut headers = RateHeaders::default();
        for (route, rate) in limits {
            let window = self
                .calls
                .entry((client.to_owned(), route))
                .or_insert_with(|| Window::new(now));
            let room;
            (headers, room) = window.take(rate, now);
            if !room {
                self.throttled += 1;
                return (headers, Err(Refusal::too_many_requests(headers.reset)));
            }
        }
        (headers, Ok(()))
    }

    /// Returns the client's rate-limit headers without counting a call.
    pub(crate) fn rate_headers(&self, client: &str, rate: Rate, now: Timestamp) -> RateHeaders {
        let window = self.calls.get(&(client.to_owned(), None)).copied();
        window.unwrap_or_else(|| Window::new(now)).look(rate, now)
    }
}
