//! The key ring: which signing key signs, which keys are published, and which are trusted.

use std::{collections::HashMap, sync::Arc};

use guestlane_runtime::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    guest_token::{GuestToken, TokenIdentity},
    key_error::KeyError,
    lifecycle::{self, KeyLifecycle, KeyState},
    master_key::{MasterKey, MasterKeyError},
    schedule::RotationPolicy,
    signer::{self, SigningKey},
    token_error::TokenError,
};
use crate::request::{Attributes, GuestId};

/// A signing key as the store keeps it.
#[derive(Clone)]
pub struct SealedSigningKey {
    /// ID of the key.
    pub kid: String,
    /// PKCS#8, encrypted under the master key.
    pub sealed: Vec<u8>,
    /// The times that determine the key's state.
    pub life: KeyLifecycle,
}

impl SealedSigningKey {
    /// ID of the first key (requirement R2, docs/requirements.md).
    pub const FIRST_KID: &'static str = "webchat-guest-key-v1";

    /// Creates the first key of a store, which signs immediately.
    ///
    /// # Errors
    /// Returns [`KeyringError`] if the key cannot be generated or encrypted.
    pub fn first(master: &MasterKey, now: Timestamp) -> Result<Self, KeyringError> {
        Self::new(
            master,
            Self::FIRST_KID.to_owned(),
            KeyLifecycle::active_now(now),
        )
    }

    /// Creates a key that is published now and signs after the publish lead time.
    ///
    /// # Errors
    /// Returns [`KeyringError`] if the key cannot be generated or encrypted.
    pub fn next(
        master: &MasterKey,
        kid: String,
        schedule: &RotationPolicy,
        now: Timestamp,
    ) -> Result<Self, KeyringError> {
        Self::new(master, kid, KeyLifecycle::next(schedule, now))
    }

    /// Creates a key that replaces a revoked one when no published key can do so.
    ///
    /// It signs immediately, so verifiers must fetch the key set again to know it.
    ///
    /// # Errors
    /// Returns [`KeyringError`] if the key cannot be generated or encrypted.
    pub fn emergency_replacement(
        master: &MasterKey,
        kid: String,
        now: Timestamp,
    ) -> Result<Self, KeyringError> {
        Self::new(master, kid, KeyLifecycle::active_now(now))
    }

    /// Returns a `kid` for a new key that no other key has or had.
    pub fn new_kid(keys: &[Self]) -> String {
        let last = keys
            .iter()
            .filter_map(|key| version(&key.kid))
            .max()
            .unwrap_or(0);
        format!("{KID}{}", last + 1)
    }

    /// Returns the sort key for the order in which keys sign.
    pub(super) fn order(&self) -> (Timestamp, Timestamp, Option<u64>) {
        (
            self.life.active_from(),
            self.life.created_at(),
            version(&self.kid),
        )
    }

    fn new(master: &MasterKey, kid: String, life: KeyLifecycle) -> Result<Self, KeyringError> {
        let pkcs8 = SigningKey::generate()?;
        let sealed = master.seal(&name(&kid), &pkcs8)?;
        Ok(Self { kid, sealed, life })
    }
}

/// The public properties of a signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyInfo {
    /// ID of the key.
    pub kid: String,
    /// State of the key.
    pub state: KeyState,
    /// When the key was created and published.
    pub created_at: Timestamp,
    /// When the key starts to sign.
    pub active_from: Timestamp,
    /// Until when the key is published and trusted, if that is known.
    pub until: Option<Timestamp>,
    /// When the key was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// The decrypted signing keys of the store. A key's state depends on the time alone ([`KeyState`]).
#[derive(Debug)]
pub struct Keyring {
    /// The keys, in the order in which they sign.
    keys: Vec<Arc<SigningKey>>,
    lives: Vec<KeyLifecycle>,
    /// Index of each key in `keys` and `lives`, by `kid`.
    places: HashMap<String, usize>,
    /// The first key that is not revoked, so that one key can always sign.
    good: Arc<SigningKey>,
}

impl Keyring {
    /// Decrypts the stored keys.
    ///
    /// # Errors
    /// Returns [`KeyringError`] if a key cannot be decrypted or used, or if all are revoked.
    pub fn open(master: &MasterKey, stored: Vec<SealedSigningKey>) -> Result<Self, KeyringError> {
        Self::open_with(master, stored, |_| None)
    }

    /// Returns the key ring for the keys now in the store, or `None` if nothing changed.
    ///
    /// Known keys are not decrypted again.
    ///
    /// # Errors
    /// Returns [`KeyringError`] if a key cannot be decrypted or used, or if all are revoked.
    pub fn reload(
        &self,
        master: &MasterKey,
        stored: Vec<SealedSigningKey>,
    ) -> Result<Option<Self>, KeyringError> {
        let same = |key: &SealedSigningKey| {
            self.position(&key.kid)
                .is_some_and(|at| self.lives.get(at) == Some(&key.life))
        };
        if stored.len() == self.keys.len() && stored.iter().all(same) {
            return Ok(None);
        }
        Self::open_with(master, stored, |kid| self.by_kid(kid).cloned()).map(Some)
    }

    fn open_with(
        master: &MasterKey,
        mut stored: Vec<SealedSigningKey>,
        known: impl Fn(&str) -> Option<Arc<SigningKey>>,
    ) -> Result<Self, KeyringError> {
        stored.sort_by_key(SealedSigningKey::order);
        let open = |key: &SealedSigningKey| match known(&key.kid) {
            Some(known) => Ok(known),
            None => {
                let pkcs8 = master.open(&name(&key.kid), &key.sealed)?;
                Ok(Arc::new(SigningKey::from_pkcs8(&key.kid, &pkcs8)?))
            }
        };
        let keys: Vec<_> = stored
            .iter()
            .map(open)
            .collect::<Result<_, KeyringError>>()?;
        let lives: Vec<_> = stored.iter().map(|key| key.life).collect();
        let good = lives
            .iter()
            .position(|life| !life.is_revoked())
            .and_then(|at| keys.get(at))
            .cloned();
        let places = stored
            .into_iter()
            .enumerate()
            .map(|(at, key)| (key.kid, at))
            .collect();
        Ok(Self {
            good: good.ok_or(KeyError::NoUsableKey)?,
            keys,
            lives,
            places,
        })
    }

    /// Returns the key that signs new tokens at `now`.
    pub fn active(&self, now: Timestamp) -> &Arc<SigningKey> {
        lifecycle::active(&self.lives, now)
            .and_then(|at| self.keys.get(at))
            .unwrap_or(&self.good)
    }

    /// Returns a key in any state, to sign again what it signed before.
    pub fn by_kid(&self, kid: &str) -> Option<&Arc<SigningKey>> {
        self.position(kid).and_then(|at| self.keys.get(at))
    }

    /// Whether the key is revoked.
    pub fn is_revoked(&self, kid: &str) -> bool {
        self.position(kid)
            .and_then(|at| self.lives.get(at))
            .is_some_and(KeyLifecycle::is_revoked)
    }

    /// Returns the key if its tokens are trusted at `now`. The clock of the token's issuer may be
    /// ahead by [`CLOCK_SKEW`](super::CLOCK_SKEW).
    ///
    /// # Errors
    /// Returns [`TokenError::UnknownKey`] or [`TokenError::NotTrusted`].
    pub fn trusted_key(&self, kid: &str, now: Timestamp) -> Result<&Arc<SigningKey>, TokenError> {
        let unknown = || TokenError::UnknownKey(crate::request::shorten(kid));
        let at = self.position(kid).ok_or_else(unknown)?;
        let state =
            match lifecycle::state(&self.lives, at, lifecycle::active(&self.lives, now), now) {
                KeyState::Next
                    if self
                        .lives
                        .get(at)
                        .is_some_and(|life| life.active_from() <= now + lifecycle::CLOCK_SKEW) =>
                {
                    KeyState::Active
                }
                state => state,
            };
        match state {
            KeyState::Active | KeyState::Retiring => self.keys.get(at).ok_or_else(unknown),
            KeyState::Next | KeyState::Retired | KeyState::Revoked => Err(TokenError::NotTrusted {
                kid: kid.to_owned(),
                state,
            }),
        }
    }

    /// Signs a guest token. The same identity gives the same bytes.
    ///
    /// # Errors
    /// Returns [`TokenError`] if the key is not in the key ring or cannot sign.
    pub fn sign(
        &self,
        guest: &GuestId,
        attributes: &Attributes,
        identity: &TokenIdentity,
    ) -> Result<GuestToken, TokenError> {
        let key = self
            .by_kid(&identity.kid)
            .ok_or_else(|| KeyError::Missing(identity.kid.clone()))?;
        signer::sign(key, guest, attributes, identity)
    }

    /// Returns the properties of all keys at `now`, in the order in which they sign.
    pub fn list(&self, now: Timestamp) -> Vec<KeyInfo> {
        let active = lifecycle::active(&self.lives, now);
        let info = |(at, (key, life)): (usize, (&Arc<SigningKey>, &KeyLifecycle))| KeyInfo {
            kid: key.kid().to_owned(),
            state: lifecycle::state(&self.lives, at, active, now),
            created_at: life.created_at(),
            active_from: life.active_from(),
            until: if life.is_revoked() {
                life.revoked_at()
            } else {
                lifecycle::until(&self.lives, at)
            },
            revoked_at: life.revoked_at(),
        };
        self.keys
            .iter()
            .zip(&self.lives)
            .enumerate()
            .map(info)
            .collect()
    }

    /// Returns the keys published at `now`: those in the states next, active and retiring.
    pub fn published(&self, now: Timestamp) -> Vec<&Arc<SigningKey>> {
        let active = lifecycle::active(&self.lives, now);
        let is_published = |at: usize| match lifecycle::state(&self.lives, at, active, now) {
            KeyState::Next | KeyState::Active | KeyState::Retiring => true,
            KeyState::Retired | KeyState::Revoked => false,
        };
        self.keys
            .iter()
            .enumerate()
            .filter(|(at, _)| is_published(*at))
            .map(|(_, key)| key)
            .collect()
    }

    /// Returns the public keys of the published keys as a JWK set (RFC 7517, section 5).
    pub fn jwks(&self, now: Timestamp) -> Value {
        json!({"keys": self.published(now).into_iter().map(|key| key.public_jwk()).collect::<Vec<_>>()})
    }

    fn position(&self, kid: &str) -> Option<usize> {
        self.places.get(kid).copied()
    }
}

const KID: &str = "webchat-guest-key-v";

fn version(kid: &str) -> Option<u64> {
    kid.strip_prefix(KID)?.parse().ok()
}

/// Why the key ring cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The master key cannot decrypt or encrypt a key.
    #[error(transparent)]
    Master(#[from] MasterKeyError),
    /// A signing key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Returns the name under which a signing key is encrypted.
pub fn name(kid: &str) -> String {
    format!("the signing key {kid}")
}
