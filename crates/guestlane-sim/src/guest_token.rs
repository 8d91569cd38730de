//! Validation of a guest token on the surface `rest`: RS256, not expired, with `guestId`,
//! signed by a registered key (requirements R2 and R3, docs/requirements.md).

use std::collections::HashMap;

use guestlane_runtime::Timestamp;
use http::StatusCode;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, jwk::JwkSet};
use serde::Deserialize;

use crate::response::Refusal;

/// The public keys registered with the simulated organization. While there are none, signatures
/// cannot be checked.
#[derive(Debug, Default)]
pub(crate) struct GuestKeys(HashMap<String, DecodingKey>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claims {
    guest_id: Option<String>,
    exp: Option<i64>,
}

impl GuestKeys {
    /// Replaces all registered keys by this JWK set.
    pub(crate) fn replace_by_jwks(&mut self, jwks: &[u8]) -> Result<usize, String> {
        let set: JwkSet =
            serde_json::from_slice(jwks).map_err(|error| format!("not a JWK set: {error}"))?;
        let mut keys = HashMap::new();
        for jwk in &set.keys {
            let kid = jwk
                .common
                .key_id
                .clone()
                .ok_or("a key of the JWK set has no kid")?;
            keys.insert(
                kid,
                DecodingKey::from_jwk(jwk).map_err(|error| error.to_string())?,
            );
        }
        self.0 = keys;
        Ok(self.0.len())
    }

    /// Adds one key.
    pub(crate) fn add_pem(&mut self, kid: &str, pem: &[u8]) -> Result<(), String> {
        let key = DecodingKey::from_rsa_pem(pem).map_err(|error| error.to_string())?;
        self.0.insert(kid.to_owned(), key);
        Ok(())
    }

    /// Checks a token against the expected `guest_id`.
    pub(crate) fn check(&self, token: &str, guest_id: &str, now: Timestamp) -> Result<(), Refusal> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| malformed())?;
        if header.alg != Algorithm::RS256 {
            return Err(refuse(
                "guest.token.algorithm",
                "The guest token is not signed by RS256.",
            ));
        }
        let claims = self.claims(token, &header)?;
        if claims.exp.is_none_or(|exp| exp <= now.unix_seconds()) {
            return Err(refuse(
                "guest.token.expired",
                "The guest token has expired.",
            ));
        }
        match claims.guest_id {
            None => Err(refuse(
                "guest.token.no.guest.id",
                "The guest token has no claim guestId.",
            )),
            Some(id) if id != guest_id => Err(refuse(
                "guest.token.mismatch",
                "The guest token names another guest than the request.",
            )),
            Some(_) => Ok(()),
        }
    }

    fn claims(&self, token: &str, header: &Header) -> Result<Claims, Refusal> {
        if self.0.is_empty() {
            return jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| malformed());
        }
        let key = header.kid.as_ref().and_then(|kid| self.0.get(kid));
        let key = key.ok_or_else(|| {
            refuse(
                "guest.token.unknown.key",
                "The guest token's kid is not that of a registered key.",
            )
        })?;
        let mut validation = Validation::new(Algorithm::RS256);
        validation.validate_exp = false; // the simulator has a clock of its own
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let data = jsonwebtoken::decode(token, key, &validation).map_err(|_| {
            refuse(
                "guest.token.signature",
                "The guest token's signature does not match the registered key.",
            )
        })?;
        Ok(data.claims)
    }
}

fn refuse(code: &'static str, message: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, code, message)
}

fn malformed() -> Refusal {
    refuse(
        "guest.token.malformed",
        "The guest token is not a JSON Web Token.",
    )
}
