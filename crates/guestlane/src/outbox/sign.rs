//! Signatures by the Standard Webhooks scheme, so that receivers can use any library of it.

use std::fmt;

use aws_lc_rs::{hmac, rand};
use base64::{Engine, prelude::BASE64_STANDARD};
use guestlane_genesys::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// The secret shared with the CRM: `whsec_` and the base64 of 24 to 64 bytes.
#[derive(Clone)]
pub struct WebhookSecret {
    text: SecretString,
    key: hmac::Key,
}

/// Not such a secret. The text is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not whsec_ and the base64 of 24 to 64 bytes")]
pub struct InvalidSecret;

impl WebhookSecret {
    /// Reads `whsec_…`.
    pub fn parse(text: &SecretString) -> Result<Self, InvalidSecret> {
        let encoded = text.expose_secret().strip_prefix("whsec_").ok_or(InvalidSecret)?;
        let bytes = Zeroizing::new(BASE64_STANDARD.decode(encoded).map_err(|_| InvalidSecret)?);
        if !(24..=64).contains(&bytes.len()) {
            return Err(InvalidSecret);
        }
        Ok(Self { text: text.clone(), key: hmac::Key::new(hmac::HMAC_SHA256, &bytes) })
    }

    /// A fresh one.
    pub fn generate() -> Result<SecretString, InvalidSecret> {
        let mut bytes = Zeroizing::new([0; 32]);
        rand::fill(bytes.as_mut()).map_err(|_| InvalidSecret)?;
        Ok(format!("whsec_{}", BASE64_STANDARD.encode(*bytes)).into())
    }

    /// `whsec_…`, for whoever sets up the receiver.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// The value of `webhook-signature`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_library_makes_the_same_signature() {
        let text = WebhookSecret::generate().unwrap();
        let reference = standardwebhooks::Webhook::new(text.expose_secret()).unwrap();
        let ours = WebhookSecret::parse(&text).unwrap();
        let now = Timestamp::from_unix_micros(1_795_361_029_999_999);
        let theirs = reference.sign("msg_1", now.unix_seconds(), br#"{"a":1}"#).unwrap();
        assert_eq!(ours.sign("msg_1", now, br#"{"a":1}"#), theirs);
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_repeated() {
        for text in ["", "whsec_", "whsec_c2hvcnQ=", "secret", "whsec_!!!!"] {
            let error = WebhookSecret::parse(&text.to_owned().into()).unwrap_err().to_string();
            assert!(text.len() < 8 || !error.contains(text), "{error}");
        }
    }
}
