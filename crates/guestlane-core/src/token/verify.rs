//! Verifies guest tokens.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use guestlane_runtime::Timestamp;
use jsonwebtoken::Algorithm;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    CLOCK_SKEW, TOKEN_TTL,
    keyring::Keyring,
    strict_json::{self, StrictJsonError},
    token_error::TokenError,
};
use crate::request::{GuestId, shorten};

/// The content of an accepted token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// ID of the guest.
    pub guest_id: String,
    /// ID of the signing key.
    pub kid: String,
    /// Expiry, in seconds since the Unix epoch.
    pub expires_at: i64,
    /// All claims.
    pub claims: Map<String, Value>,
}

/// Longest accepted token, in bytes. Attributes have at most 2 KiB, twice that as JSON, and base64
/// adds a third.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Verifies a guest token at the time `now`.
///
/// The token must be signed with RS256, whatever its header says, by a key of the key ring that is
/// trusted now. It must contain nothing that no guest token contains.
///
/// # Errors
/// See [`TokenError`].
pub fn verify(keyring: &Keyring, token: &str, now: Timestamp) -> Result<Verified, TokenError> {
    if token.len() > MAX_TOKEN_BYTES {
        // A long token is rejected before anything is parsed.
        return Err(TokenError::TooLong);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, claims) = message
        .split_once('.')
        .filter(|(_, claims)| !claims.contains('.'))
        .ok_or(TokenError::Malformed)?;
    let kid = kid_of(&object(&bytes(header)?)?)?;
    let key = keyring.trusted_key(&kid, now)?;
    let claims = bytes(claims)?;
    // A token has exactly one accepted encoding, so a second spelling of the same bytes is
    // rejected.
    bytes(signature)?;
    let verified = jsonwebtoken::crypto::verify(
        signature,
        message.as_bytes(),
        key.decoding(),
        Algorithm::RS256,
    );
    if !verified.unwrap_or(false) {
        return Err(TokenError::Signature);
    }
    accept(object(&claims)?, kid, now)
}

/// Checks the header and returns its `kid`. No other parameter affects how the token is verified.
fn kid_of(header: &Map<String, Value>) -> Result<String, TokenError> {
    if header.get("alg").and_then(Value::as_str) != Some("RS256") {
        return Err(TokenError::Algorithm);
    }
    if let Some(unknown) = header
        .keys()
        .find(|name| !["alg", "kid", "typ"].contains(&name.as_str()))
    {
        return Err(TokenError::Header(shorten(unknown)));
    }
    if header.get("typ").is_some_and(|typ| {
        !typ.as_str()
            .is_some_and(|typ| typ.eq_ignore_ascii_case("JWT"))
    }) {
        return Err(TokenError::Type);
    }
    header
        .get("kid")
        .and_then(Value::as_str)
        .filter(|kid| !kid.is_empty())
        .map(str::to_owned)
        .ok_or(TokenError::NoKey)
}

/// Checks the claims of a token whose signature is valid.
fn accept(claims: Map<String, Value>, kid: String, now: Timestamp) -> Result<Verified, TokenError> {
    let now = now.unix_seconds();
    let (skew, life) = (seconds(CLOCK_SKEW), seconds(TOKEN_TTL));
    let time = |name: &'static str| {
        claims
            .get(name)
            .and_then(Value::as_i64)
            .ok_or(TokenError::Claim(name))
    };
    let (issued_at, expires_at) = (time("iat")?, time("exp")?);
    if expires_at <= now {
        return Err(TokenError::Expired);
    }
    if issued_at > now.saturating_add(skew) {
        return Err(TokenError::NotYet);
    }
    if expires_at > issued_at.saturating_add(life) {
        return Err(TokenError::Claim("exp")); // no guest token lives longer
    }
    if claims.contains_key("nbf") && time("nbf")? > now.saturating_add(skew) {
        return Err(TokenError::NotYet);
    }
    let guest: Option<GuestId> = claims
        .get("guestId")
        .and_then(Value::as_str)
        .and_then(|id| GuestId::recorded(id).ok());
    let guest_id = guest
        .ok_or(TokenError::Claim("guestId"))?
        .as_str()
        .to_owned();
    Ok(Verified {
        guest_id,
        kid,
        expires_at,
        claims,
    })
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(0)
}

/// Decodes base64url without padding, and accepts only the canonical encoding (RFC 7515, section
/// 2).
fn bytes(part: &str) -> Result<Vec<u8>, TokenError> {
    BASE64_URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenError::Malformed)
}

fn object(json: &[u8]) -> Result<Map<String, Value>, TokenError> {
    strict_json::object(json).map_err(|wrong| match wrong {
        StrictJsonError::NotAnObject => TokenError::Malformed,
        StrictJsonError::DuplicateName(name) => TokenError::DuplicateName(shorten(&name)),
    })
}

/// Decodes header and claims without any verification.
///
/// # Errors
/// Returns [`TokenError::Malformed`] if the text is not three parts with JSON in the first two.
pub fn decode(token: &str) -> Result<(Value, Value), TokenError> {
    let part = |text: Option<&str>| {
        serde_json::from_slice(&bytes(text.unwrap_or_default())?).map_err(|_| TokenError::Malformed)
    };
    let mut parts = token.trim().split('.');
    let decoded = (part(parts.next())?, part(parts.next())?);
    if parts.next().is_some() && parts.next().is_none() {
        Ok(decoded)
    } else {
        Err(TokenError::Malformed)
    }
}
