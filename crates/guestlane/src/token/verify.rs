//! Is this a guest token of ours, and whose?

use guestlane_genesys::Timestamp;
use jsonwebtoken::{Algorithm, Validation};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    claims::GuestToken,
    keyring::{KeyError, Keyring},
    signer::SigningKey,
};
use crate::request::GuestId;

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three parts of base64url, or no JSON in them.
    #[error("the guest token is not a JSON Web Token")]
    Malformed,
    /// Another algorithm than RS256.
    #[error("the guest token is not signed by RS256")]
    Algorithm,
    /// `typ` is there and is not `JWT`.
    #[error("the guest token's typ is not JWT")]
    Type,
    /// No such key in the key ring.
    #[error("the guest token was signed by an unknown key ({0})")]
    UnknownKey(String),
    /// The signature is not this key's over these bytes.
    #[error("the guest token's signature does not verify")]
    Signature,
    /// `exp` is past, or missing.
    #[error("the guest token has expired")]
    Expired,
    /// `iat` is in the future, or missing.
    #[error("the guest token is from the future")]
    NotYet,
    /// `guestId` is another's, or missing.
    #[error("the guest token names another guest")]
    IdentityMismatch,
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A token that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// Whose it is.
    pub guest_id: String,
    /// Which key signed it.
    pub kid: String,
    /// Seconds since the Unix epoch.
    pub expires_at: i64,
    /// All claims.
    pub claims: Map<String, Value>,
}

/// How far clocks may differ, in seconds.
const SKEW: i64 = 60;

/// Only the signature: times are ours to judge, by our clock.
fn validation() -> Validation {
    let mut validation = Validation::new(Algorithm::RS256);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    validation
}

/// Right after signing: the public half must accept it, and it must name this guest.
pub(super) fn signed_for(key: &SigningKey, token: &GuestToken, guest: &GuestId) -> Result<(), TokenError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct GuestClaim {
        guest_id: String,
    }
    let data =
        jsonwebtoken::decode::<GuestClaim>(token.expose(), key.decoding(), &validation()).map_err(|_| TokenError::Signature)?;
    if data.claims.guest_id == guest.as_str() { Ok(()) } else { Err(TokenError::IdentityMismatch) }
}

/// Accepts a token that this key ring signed and whose time is now. The algorithm is RS256 whatever the token says.
pub fn verify(keyring: &Keyring, token: &str, now: Timestamp) -> Result<Verified, TokenError> {
    let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
    if header.alg != Algorithm::RS256 {
        return Err(TokenError::Algorithm);
    }
    if header.typ.is_some_and(|typ| !typ.eq_ignore_ascii_case("JWT")) {
        return Err(TokenError::Type);
    }
    let kid = header.kid.unwrap_or_default();
    let key = keyring.by_kid(&kid).ok_or_else(|| TokenError::UnknownKey(crate::request::shorten(&kid)))?;
    let data =
        jsonwebtoken::decode::<Map<String, Value>>(token, key.decoding(), &validation()).map_err(|_| TokenError::Signature)?;
    let claims = data.claims;
    let seconds = |name: &str| claims.get(name).and_then(Value::as_i64);
    let expires_at = seconds("exp").filter(|exp| *exp > now.unix_seconds()).ok_or(TokenError::Expired)?;
    seconds("iat").filter(|iat| *iat <= now.unix_seconds() + SKEW).ok_or(TokenError::NotYet)?;
    let guest_id = claims.get("guestId").and_then(Value::as_str).ok_or(TokenError::IdentityMismatch)?.to_owned();
    Ok(Verified { guest_id, kid, expires_at, claims })
}

/// Header and claims as they stand there, with nothing checked.
pub fn decode(token: &str) -> Result<(Value, Value), TokenError> {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    let part = |text: Option<&str>| {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.unwrap_or_default()).map_err(|_| TokenError::Malformed)?;
        serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
    };
    let mut parts = token.trim().split('.');
    let decoded = (part(parts.next())?, part(parts.next())?);
    if parts.next().is_some() && parts.next().is_none() { Ok(decoded) } else { Err(TokenError::Malformed) }
}
