//! Signatures of the Standard Webhooks scheme, which receivers can verify with any of its
//! libraries.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    hmac, rand,
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use guestlane_runtime::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// The secret shared with the webhook endpoint: `whsec_` and the base64 of 24 to 64 bytes.
#[derive(Clone)]
pub struct WebhookSecret {
    text: SecretString,
    key: hmac::Key,
}

/// The text is not a webhook secret. The error does not contain it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not whsec_ followed by the base64 of 24 to 64 bytes")]
pub struct InvalidSecret;

impl WebhookSecret {
    /// Parses `whsec_…`.
    ///
    /// # Errors
    /// Returns [`InvalidSecret`] if the text has another form.
    pub fn parse(text: &SecretString) -> Result<Self, InvalidSecret> {
        let encoded = text
            .expose_secret()
            .strip_prefix("whsec_")
            .ok_or(InvalidSecret)?;
        let bytes = Zeroizing::new(BASE64_STANDARD.decode(encoded).map_err(|_| InvalidSecret)?);
        if !(24..=64).contains(&bytes.len()) {
            return Err(InvalidSecret);
        }
        Ok(Self {
            text: text.clone(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &bytes),
        })
    }

    /// Generates a secret.
    ///
    /// # Errors
    /// Returns [`InvalidSecret`] if the random number generator fails.
    pub fn generate() -> Result<SecretString, InvalidSecret> {
        let mut bytes = Zeroizing::new([0; 32]);
        rand::fill(bytes.as_mut()).map_err(|_| InvalidSecret)?;
        Ok(format!("whsec_{}", BASE64_STANDARD.encode(*bytes)).into())
    }

    /// Returns `whsec_…`, for the operator who configures the receiver.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// Returns one signature of `webhook-signature`.
    pub fn sign(&self, id: &str, timestamp: Timestamp, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(format!("{id}.{}.", timestamp.unix_seconds()).as_bytes());
        context.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret")
    }
}

/// An Ed25519 key pair. The receiver verifies its signatures and cannot make them.
///
/// The text is `whsk_` and the base64 of 64 bytes: the seed and the public key.
#[derive(Clone)]
pub struct WebhookKeyPair {
    text: SecretString,
    pair: Arc<Ed25519KeyPair>,
}

/// The text is not a key pair. The error does not contain it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not whsk_ followed by the base64 of an Ed25519 key pair of 64 bytes")]
pub struct InvalidKeyPair;

impl WebhookKeyPair {
    const SEED: usize = 32;

    /// Parses `whsk_…`.
    ///
    /// # Errors
    /// Returns an error if the text has another form, or if its public key does not belong to the
    /// seed.
    pub fn parse(text: &SecretString) -> Result<Self, InvalidKeyPair> {
        let encoded = text
            .expose_secret()
            .strip_prefix("whsk_")
            .ok_or(InvalidKeyPair)?;
        let bytes = Zeroizing::new(
            BASE64_STANDARD
                .decode(encoded)
                .map_err(|_| InvalidKeyPair)?,
        );
        let (seed, public) = bytes.split_at_checked(Self::SEED).ok_or(InvalidKeyPair)?;
        let pair =
            Ed25519KeyPair::from_seed_and_public_key(seed, public).map_err(|_| InvalidKeyPair)?;
        Ok(Self {
            text: text.clone(),
            pair: Arc::new(pair),
        })
    }

    /// Generates a key pair.
    ///
    /// # Errors
    /// Returns [`InvalidKeyPair`] if the random number generator fails.
    pub fn generate() -> Result<SecretString, InvalidKeyPair> {
        let mut bytes = Zeroizing::new([0; 2 * Self::SEED]);
        let (seed, public) = bytes.split_at_mut(Self::SEED);
        rand::fill(seed).map_err(|_| InvalidKeyPair)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| InvalidKeyPair)?;
        public.copy_from_slice(pair.public_key().as_ref());
        Ok(format!("whsk_{}", BASE64_STANDARD.encode(*bytes)).into())
    }

    /// Returns `whsk_…`, for the store.
    pub(super) fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// Returns `whpk_…`, the public key with which a receiver verifies. It is not secret.
    pub fn public_key(&self) -> String {
        format!("whpk_{}", BASE64_STANDARD.encode(self.pair.public_key()))
    }

    /// Returns one signature of `webhook-signature`.
    pub fn sign(&self, id: &str, timestamp: Timestamp, body: &[u8]) -> String {
        let signed = [
            format!("{id}.{}.", timestamp.unix_seconds()).as_bytes(),
            body,
        ]
        .concat();
        format!("v1a,{}", BASE64_STANDARD.encode(self.pair.sign(&signed)))
    }
}

impl fmt::Debug for WebhookKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookKeyPair")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_equals_that_of_the_reference_library() {
        let text = WebhookSecret::generate().unwrap();
        let reference = standardwebhooks::Webhook::new(text.expose_secret()).unwrap();
        let ours = WebhookSecret::parse(&text).unwrap();
        let now = Timestamp::from_unix_micros(1_795_361_029_999_999);
        let theirs = reference
            .sign("msg_1", now.unix_seconds(), br#"{"a":1}"#)
            .unwrap();
        assert_eq!(ours.sign("msg_1", now, br#"{"a":1}"#), theirs);
    }

    #[test]
    fn ed25519_signature_verifies_with_the_public_key() {
        use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

        let text = WebhookKeyPair::generate().unwrap();
        let pair = WebhookKeyPair::parse(&text).unwrap();
        let public = BASE64_STANDARD
            .decode(pair.public_key().strip_prefix("whpk_").unwrap())
            .unwrap();
        let signature = pair.sign(
            "msg_1",
            Timestamp::from_unix_micros(1_795_361_029_999_999),
            b"{}",
        );
        let signature = BASE64_STANDARD
            .decode(signature.strip_prefix("v1a,").unwrap())
            .unwrap();
        let key = UnparsedPublicKey::new(&ED25519, public);
        assert!(key.verify(b"msg_1.1795361029.{}", &signature).is_ok());
        assert!(key.verify(b"msg_1.1795361030.{}", &signature).is_err());
    }

    #[test]
    fn key_pair_with_mismatched_halves_is_rejected() {
        let [one, other] = [(); 2].map(|()| {
            BASE64_STANDARD
                .decode(&WebhookKeyPair::generate().unwrap().expose_secret()[5..])
                .unwrap()
        });
        let mixed = format!(
            "whsk_{}",
            BASE64_STANDARD.encode([&one[..32], &other[32..]].concat())
        );
        for text in [
            mixed.as_str(),
            "whsk_",
            "whsk_c2hvcnQ=",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        ] {
            assert!(WebhookKeyPair::parse(&text.to_owned().into()).is_err());
        }
    }

    #[test]
    fn malformed_secret_is_rejected_and_not_shown() {
        for text in ["", "whsec_", "whsec_c2hvcnQ=", "secret", "whsec_!!!!"] {
            let error = WebhookSecret::parse(&text.to_owned().into())
                .unwrap_err()
                .to_string();
            assert!(text.len() < 8 || !error.contains(text), "{error}");
        }
    }
}
