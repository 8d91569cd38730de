//! Which key signs, and which keys are still believed.

use std::sync::Arc;

use guestlane_genesys::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    claims::{GuestToken, TokenIdentity},
    master_key::{MasterKey, MasterKeyError},
    signer::{self, SigningKey},
    verify::TokenError,
};
use crate::request::{Attributes, GuestId};

/// A key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not an RSA key of 2048 bits in PKCS#8, or the crypto library failed.
    #[error("the signing key is unusable")]
    Unusable,
    /// A session was signed by a key that is not here.
    #[error("the signing key {0} is not in the key ring")]
    Missing(String),
}

/// A signing key as the store keeps it.
#[derive(Clone)]
pub struct StoredKey {
    /// Its id.
    pub kid: String,
    /// PKCS#8, encrypted under the master key.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What may be told of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyInfo {
    /// Its id.
    pub kid: String,
    /// `active`: it signs.
    pub state: &'static str,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The keys, opened. Today there is one: it signs, and it is believed.
#[derive(Debug)]
pub struct Keyring {
    keys: Vec<(Arc<SigningKey>, Timestamp)>,
    active: Arc<SigningKey>,
}

impl Keyring {
    /// The first key's id (R2).
    pub const FIRST_KID: &'static str = "webchat-guest-key-v1";

    /// A new first key, ready to be stored.
    pub fn first_key(master: &MasterKey, now: Timestamp) -> Result<StoredKey, KeyringError> {
        let pkcs8 = SigningKey::generate()?;
        let sealed = master.seal(&name(Self::FIRST_KID), &pkcs8)?;
        Ok(StoredKey { kid: Self::FIRST_KID.to_owned(), sealed, created_at: now })
    }

    /// Opens the stored keys; the newest signs.
    pub fn open(master: &MasterKey, stored: &[StoredKey]) -> Result<Self, KeyringError> {
        let mut keys = Vec::new();
        for key in stored {
            let pkcs8 = master.open(&name(&key.kid), &key.sealed)?;
            keys.push((Arc::new(SigningKey::from_pkcs8(&key.kid, &pkcs8)?), key.created_at));
        }
        let active = keys.iter().max_by_key(|(_, created_at)| *created_at).map(|(key, _)| Arc::clone(key));
        let active = active.ok_or_else(|| KeyError::Missing(Self::FIRST_KID.to_owned()))?;
        Ok(Self { keys, active })
    }

    /// The key that signs new tokens.
    pub fn active(&self) -> &Arc<SigningKey> {
        &self.active
    }

    /// A key that is believed.
    pub fn by_kid(&self, kid: &str) -> Option<&Arc<SigningKey>> {
        self.keys.iter().map(|(key, _)| key).find(|key| key.kid() == kid)
    }

    /// Signs the token of that identity, or signs it again: the same bytes.
    pub fn sign(&self, guest: &GuestId, attributes: &Attributes, identity: &TokenIdentity) -> Result<GuestToken, TokenError> {
        let key = self.by_kid(&identity.kid).ok_or_else(|| KeyError::Missing(identity.kid.clone()))?;
        signer::sign(key, guest, attributes, identity)
    }

    /// What may be told of the keys.
    pub fn list(&self) -> Vec<KeyInfo> {
        let info = |(key, created_at): &(Arc<SigningKey>, Timestamp)| KeyInfo {
            kid: key.kid().to_owned(),
            state: if Arc::ptr_eq(key, &self.active) { "active" } else { "retiring" },
            created_at: *created_at,
        };
        self.keys.iter().map(info).collect()
    }

    /// The public halves as a JWK set (RFC 7517, section 5).
    pub fn jwks(&self) -> Value {
        json!({"keys": self.keys.iter().map(|(key, _)| key.public_jwk()).collect::<Vec<_>>()})
    }
}

/// The key ring cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The master key's fault.
    #[error(transparent)]
    Master(#[from] MasterKeyError),
    /// A key's fault.
    #[error(transparent)]
    Key(#[from] KeyError),
}

fn name(kid: &str) -> String {
    format!("the signing key {kid}")
}
