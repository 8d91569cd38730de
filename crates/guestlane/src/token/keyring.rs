//! Which key signs, which are published, and which are believed.

use std::{collections::HashMap, sync::Arc};

use guestlane_genesys::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    claims::{GuestToken, TokenIdentity},
    lifecycle::{self, KeyLifecycle, KeyState},
    master_key::{MasterKey, MasterKeyError},
    schedule::RotationPolicy,
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
    /// There is no key, or each is revoked.
    #[error("no signing key is left that may sign")]
    NoUsableKey,
}

/// A signing key as the store keeps it.
#[derive(Clone)]
pub struct SealedSigningKey {
    /// Its id.
    pub kid: String,
    /// PKCS#8, encrypted under the master key.
    pub sealed: Vec<u8>,
    /// The moments of its life.
    pub life: KeyLifecycle,
}

impl SealedSigningKey {
    /// The first key's id (requirement R2, docs/requirements.md).
    pub const FIRST_KID: &'static str = "webchat-guest-key-v1";

    /// A new first key: it signs at once.
    pub fn first(master: &MasterKey, now: Timestamp) -> Result<Self, KeyringError> {
        Self::new(master, Self::FIRST_KID.to_owned(), KeyLifecycle::active_now(now))
    }

    /// A new key that is published, and signs when it was published long enough.
    pub fn next(master: &MasterKey, kid: String, schedule: &RotationPolicy, now: Timestamp) -> Result<Self, KeyringError> {
        Self::new(master, kid, KeyLifecycle::next(schedule, now))
    }

    /// A new key in the place of one that is revoked while none is published that could take over: it signs at once, and whoever verifies
    /// must fetch the key set to know it.
    pub fn emergency_replacement(master: &MasterKey, kid: String, now: Timestamp) -> Result<Self, KeyringError> {
        Self::new(master, kid, KeyLifecycle::active_now(now))
    }

    /// The id of a key that is made now: no other has or had it.
    pub(crate) fn new_kid(keys: &[Self]) -> String {
        let last = keys.iter().filter_map(|key| version(&key.kid)).max().unwrap_or(0);
        format!("{KID}{}", last + 1)
    }

    /// The order in which keys sign.
    pub(super) fn order(&self) -> (Timestamp, Timestamp, Option<u64>) {
        (self.life.active_from(), self.life.created_at(), version(&self.kid))
    }

    fn new(master: &MasterKey, kid: String, life: KeyLifecycle) -> Result<Self, KeyringError> {
        let pkcs8 = SigningKey::generate()?;
        let sealed = master.seal(&name(&kid), &pkcs8)?;
        Ok(Self { kid, sealed, life })
    }
}

/// What may be told of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyInfo {
    /// Its id.
    pub kid: String,
    /// Where it is in its life.
    pub state: KeyState,
    /// When it was made, and published.
    pub created_at: Timestamp,
    /// From when on it signs.
    pub active_from: Timestamp,
    /// Until when it is published and believed, where that is known.
    pub until: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// The keys, opened, as the store had them. What each is at a moment is a question of the moment alone ([`KeyState`]).
#[derive(Debug)]
pub struct Keyring {
    /// In the order in which they sign.
    keys: Vec<Arc<SigningKey>>,
    lives: Vec<KeyLifecycle>,
    /// Where each stands in those two.
    places: HashMap<String, usize>,
    /// The first that is not revoked: there is always one that signs.
    good: Arc<SigningKey>,
}

impl Keyring {
    /// Opens the stored keys. At least one must not be revoked.
    pub fn open(master: &MasterKey, stored: Vec<SealedSigningKey>) -> Result<Self, KeyringError> {
        Self::open_with(master, stored, |_| None)
    }

    /// The key ring that the store has by now; `None` where it is the same. Keys that are known are not opened again.
    pub fn reload(&self, master: &MasterKey, stored: Vec<SealedSigningKey>) -> Result<Option<Self>, KeyringError> {
        let same = |key: &SealedSigningKey| self.position(&key.kid).is_some_and(|at| self.lives.get(at) == Some(&key.life));
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
        let keys: Vec<_> = stored.iter().map(open).collect::<Result<_, KeyringError>>()?;
        let lives: Vec<_> = stored.iter().map(|key| key.life).collect();
        let good = lives.iter().position(|life| !life.is_revoked()).and_then(|at| keys.get(at)).cloned();
        let places = stored.into_iter().enumerate().map(|(at, key)| (key.kid, at)).collect();
        Ok(Self { good: good.ok_or(KeyError::NoUsableKey)?, keys, lives, places })
    }

    /// The key that signs new tokens at that moment.
    pub fn active(&self, now: Timestamp) -> &Arc<SigningKey> {
        lifecycle::active(&self.lives, now).and_then(|at| self.keys.get(at)).unwrap_or(&self.good)
    }

    /// A key, whatever its state: to sign again what it signed before.
    pub fn by_kid(&self, kid: &str) -> Option<&Arc<SigningKey>> {
        self.position(kid).and_then(|at| self.keys.get(at))
    }

    /// Whether that key is revoked.
    pub fn is_revoked(&self, kid: &str) -> bool {
        self.position(kid).and_then(|at| self.lives.get(at)).is_some_and(KeyLifecycle::is_revoked)
    }

    /// The key of that id, if a token of it is believed at that moment; else why not. A token may come from a clock that is a little ahead.
    pub fn trusted_key(&self, kid: &str, now: Timestamp) -> Result<&Arc<SigningKey>, TokenError> {
        let unknown = || TokenError::UnknownKey(crate::request::shorten(kid));
        let at = self.position(kid).ok_or_else(unknown)?;
        let state = match lifecycle::state(&self.lives, at, lifecycle::active(&self.lives, now), now) {
            KeyState::Next if self.lives.get(at).is_some_and(|life| life.active_from() <= now + lifecycle::CLOCK_SKEW) => {
                KeyState::Active
            }
            state => state,
        };
        match state {
            KeyState::Active | KeyState::Retiring => self.keys.get(at).ok_or_else(unknown),
            KeyState::Next | KeyState::Retired | KeyState::Revoked => Err(TokenError::NotTrusted { kid: kid.to_owned(), state }),
        }
    }

    /// Signs the token of that identity, or signs it again: the same bytes.
    pub fn sign(&self, guest: &GuestId, attributes: &Attributes, identity: &TokenIdentity) -> Result<GuestToken, TokenError> {
        let key = self.by_kid(&identity.kid).ok_or_else(|| KeyError::Missing(identity.kid.clone()))?;
        signer::sign(key, guest, attributes, identity)
    }

    /// What may be told of the keys at that moment, in the order in which they sign.
    pub fn list(&self, now: Timestamp) -> Vec<KeyInfo> {
        let active = lifecycle::active(&self.lives, now);
        let info = |(at, (key, life)): (usize, (&Arc<SigningKey>, &KeyLifecycle))| KeyInfo {
            kid: key.kid().to_owned(),
            state: lifecycle::state(&self.lives, at, active, now),
            created_at: life.created_at(),
            active_from: life.active_from(),
            until: if life.is_revoked() { life.revoked_at() } else { lifecycle::until(&self.lives, at) },
            revoked_at: life.revoked_at(),
        };
        self.keys.iter().zip(&self.lives).enumerate().map(info).collect()
    }

    /// The keys that are published at that moment: next, active and retiring.
    pub fn published(&self, now: Timestamp) -> Vec<&Arc<SigningKey>> {
        let active = lifecycle::active(&self.lives, now);
        let is_published = |at: usize| match lifecycle::state(&self.lives, at, active, now) {
            KeyState::Next | KeyState::Active | KeyState::Retiring => true,
            KeyState::Retired | KeyState::Revoked => false,
        };
        self.keys.iter().enumerate().filter(|(at, _)| is_published(*at)).map(|(_, key)| key).collect()
    }

    /// The public halves of the published keys as a JWK set (RFC 7517, section 5).
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

/// The name under which a signing key is sealed.
pub(crate) fn name(kid: &str) -> String {
    format!("the signing key {kid}")
}
