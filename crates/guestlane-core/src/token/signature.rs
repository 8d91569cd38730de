//! The signature of a guest token.

use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use super::{claims::GuestToken, token_error::TokenError};
use crate::request::GuestId;

/// Returns the settings for a check of the signature only. The times are checked against the
/// product's clock.
pub(super) fn validation() -> Validation {
    let mut validation = Validation::new(Algorithm::RS256);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    validation
}

/// Checks a fresh token: the public key must verify it, and it must name this guest.
pub(super) fn check_signature(
    key: &DecodingKey,
    token: &GuestToken,
    guest: &GuestId,
) -> Result<(), TokenError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct GuestClaim {
        guest_id: String,
    }
    let data = jsonwebtoken::decode::<GuestClaim>(token.expose(), key, &validation())
        .map_err(|_| TokenError::Signature)?;
    if data.claims.guest_id == guest.as_str() {
        Ok(())
    } else {
        Err(TokenError::IdentityMismatch)
    }
}
