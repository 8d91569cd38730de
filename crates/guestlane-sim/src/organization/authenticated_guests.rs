//! The guests that signed in, by JWT and by refresh token
//! (docs/platform.md#authenticated-guests).

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use guestlane_runtime::Timestamp;

/// The lifetimes of a JWT from a code exchange and of a refresh token.
pub(crate) const JWT_TTL: Duration = Duration::from_secs(15 * 60);
const REFRESH_TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);

/// The authenticated guests by JWT and by refresh token, with their expiry.
#[derive(Debug, Default)]
pub(crate) struct AuthenticatedGuests {
    jwts: HashMap<String, (String, Timestamp)>,
    refresh_tokens: HashMap<String, (String, Timestamp)>,
    /// Codes that were redeemed.
    redeemed: HashSet<String>,
}

impl AuthenticatedGuests {
    /// Redeems a code of the provider, and returns whether it was not redeemed before.
    pub(crate) fn redeem(&mut self, code: &str) -> bool {
        self.redeemed.insert(code.to_owned())
    }

    pub(crate) fn add_jwt(&mut self, jwt: String, subject: String, now: Timestamp) {
        self.jwts.insert(jwt, (subject, now + JWT_TTL));
    }

    pub(crate) fn add_refresh_token(&mut self, token: String, subject: String, now: Timestamp) {
        let expires_at = now + REFRESH_TOKEN_TTL;
        self.refresh_tokens.insert(token, (subject, expires_at));
    }

    /// Returns the guest of this JWT while the JWT is valid.
    pub(crate) fn subject_of_jwt(&self, jwt: &str, now: Timestamp) -> Option<String> {
        valid(&self.jwts, jwt, now)
    }

    /// Returns the guest of this refresh token while the token is valid.
    pub(crate) fn subject_of_refresh_token(&self, token: &str, now: Timestamp) -> Option<String> {
        valid(&self.refresh_tokens, token, now)
    }

    /// Makes all tokens of the guest invalid.
    pub(crate) fn revoke(&mut self, subject: &str) {
        self.jwts.retain(|_, (known, _)| known != subject);
        self.refresh_tokens.retain(|_, (known, _)| known != subject);
    }
}

fn valid(
    tokens: &HashMap<String, (String, Timestamp)>,
    token: &str,
    now: Timestamp,
) -> Option<String> {
    let (subject, expires_at) = tokens.get(token)?;
    (*expires_at > now).then(|| subject.clone())
}
