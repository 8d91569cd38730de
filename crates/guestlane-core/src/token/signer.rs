//! Signs with RS256 (RFC 7518, section 3.3), with a key that is parsed once.
//!
//! The crates that sign JSON Web Tokens parse the key for each token, which takes two thirds of
//! their time.

use std::collections::BTreeMap;

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    guest_token::{GuestToken, TokenIdentity},
    key_error::KeyError,
    token_error::TokenError,
};
use crate::request::{Attributes, GuestId};

/// The token's header: `{alg, kid}` and nothing else (requirement R3, docs/requirements.md).
#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    kid: &'a str,
}

/// The token's claims: `guestId`, the caller's attributes, and those of JWT. Attributes cannot have
/// the names of the other claims.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Claims<'a> {
    guest_id: &'a str,
    #[serde(flatten)]
    attributes: &'a BTreeMap<String, String>,
    iat: i64,
    exp: i64,
    jti: Uuid,
}

impl<'a> Claims<'a> {
    fn new(guest: &'a GuestId, attributes: &'a Attributes, identity: &TokenIdentity) -> Self {
        Self {
            guest_id: guest.as_str(),
            attributes: attributes.as_map(),
            iat: identity.issued_at,
            exp: identity.expires_at(),
            jti: identity.jti,
        }
    }
}

/// A private key with precomputed values.
pub struct SigningKey {
    kid: String,
    pair: RsaKeyPair,
    /// `base64url(header).`, the same for every token of this key.
    prefix: String,
    decoding: DecodingKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Generates a key pair of 2048 bits (requirement R2, docs/requirements.md), as PKCS#8. Takes a
    /// tenth of a second.
    ///
    /// # Errors
    /// Returns [`KeyError::Unusable`] if the crypto library fails.
    pub fn generate() -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Unusable)?;
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Unusable)?;
        Ok(der.as_ref().to_vec().into())
    }

    /// Parses a key pair in PKCS#8.
    ///
    /// # Errors
    /// Returns [`KeyError::Unusable`] if the bytes are not an RSA key in PKCS#8.
    pub fn from_pkcs8(kid: &str, der: &[u8]) -> Result<Self, KeyError> {
        let pair = RsaKeyPair::from_pkcs8(der).map_err(|_| KeyError::Unusable)?;
        let header =
            serde_json::to_vec(&Header { alg: "RS256", kid }).map_err(|_| KeyError::Unusable)?;
        let prefix = format!("{}.", BASE64_URL_SAFE_NO_PAD.encode(header));
        let public = pair.public_key();
        let (modulus, exponent) = (public.modulus(), public.exponent());
        let decoding = DecodingKey::from_rsa_raw_components(
            modulus.big_endian_without_leading_zero(),
            exponent.big_endian_without_leading_zero(),
        );
        Ok(Self {
            kid: kid.to_owned(),
            pair,
            prefix,
            decoding,
        })
    }

    /// Returns the key's ID.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    pub(super) fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    /// Returns the public key as SPKI in DER.
    ///
    /// # Errors
    /// Returns [`KeyError::Unusable`] if the crypto library fails.
    pub fn public_der(&self) -> Result<Vec<u8>, KeyError> {
        let der: PublicKeyX509Der<'_> = self
            .pair
            .public_key()
            .as_der()
            .map_err(|_| KeyError::Unusable)?;
        Ok(der.as_ref().to_vec())
    }

    /// Returns the public key as SPKI in PEM (RFC 7468), for the admin console.
    ///
    /// # Errors
    /// Returns [`KeyError::Unusable`] if the crypto library fails.
    pub fn public_pem(&self) -> Result<String, KeyError> {
        let encoded = BASE64_STANDARD.encode(self.public_der()?);
        let mut pem = "-----BEGIN PUBLIC KEY-----\n".to_owned();
        for line in encoded.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END PUBLIC KEY-----\n");
        Ok(pem)
    }

    /// Returns the public key as a JWK (RFC 7517).
    pub fn public_jwk(&self) -> Value {
        let public = self.pair.public_key();
        let number = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid,
            "n": number(public.modulus().big_endian_without_leading_zero()),
            "e": number(public.exponent().big_endian_without_leading_zero()),
        })
    }

    fn sign(&self, claims: &Claims<'_>) -> Result<GuestToken, KeyError> {
        let claims = serde_json::to_vec(claims).map_err(|_| KeyError::Unusable)?;
        let mut token = String::with_capacity(self.prefix.len() + claims.len() * 4 / 3 + 350);
        token.push_str(&self.prefix);
        BASE64_URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let mut signature = [0; 256];
        let signature = signature
            .get_mut(..self.pair.public_modulus_len())
            .ok_or(KeyError::Unusable)?;
        self.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                token.as_bytes(),
                signature,
            )
            .map_err(|_| KeyError::Unusable)?;
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(GuestToken::new(token))
    }
}

/// Signs a guest token, and verifies it with the public key before it is used (requirement R3,
/// docs/requirements.md).
///
/// # Errors
/// Returns [`TokenError`] if the key cannot sign, or if the token does not verify.
pub fn sign(
    key: &SigningKey,
    guest: &GuestId,
    attributes: &Attributes,
    identity: &TokenIdentity,
) -> Result<GuestToken, TokenError> {
    let token = key.sign(&Claims::new(guest, attributes, identity))?;
    check_signature(key.decoding(), &token, guest)?;
    Ok(token)
}

/// Returns the settings for a check of the signature only. The times are checked against the
/// product's clock.
fn validation() -> Validation {
    let mut validation = Validation::new(Algorithm::RS256);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    validation
}

/// Checks a fresh token: the public key must verify it, and it must name this guest.
fn check_signature(
    key: &DecodingKey,
    token: &GuestToken,
    guest: &GuestId,
) -> Result<(), TokenError> {
    #[derive(Deserialize)]
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

impl GuestToken {
    /// Returns a text that replaces an unsigned token, as long as a signed token for these values.
    pub fn placeholder(guest: &GuestId, attributes: &Attributes, kid: &str) -> Self {
        const SIGNATURE: usize = 256; // RSA, 2048 bits
        let base64 = |bytes: usize| (bytes * 4).div_ceil(3);
        let identity = TokenIdentity {
            kid: kid.to_owned(),
            jti: Uuid::nil(),
            issued_at: 1_800_000_000,
        };
        let json =
            |value| serde_json::to_vec::<serde_json::Value>(value).map_or(0, |json| json.len());
        let header = serde_json::to_value(Header { alg: "RS256", kid }).unwrap_or_default();
        let claims =
            serde_json::to_value(Claims::new(guest, attributes, &identity)).unwrap_or_default();
        let length = base64(json(&header)) + 1 + base64(json(&claims)) + 1 + base64(SIGNATURE);
        Self::new("x".repeat(length))
    }
}
