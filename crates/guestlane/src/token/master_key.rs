//! The key that the keys are locked with.

use std::{
    fmt,
    fs::File,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, RandomizedNonceKey},
    hmac,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::input::without_bom_str;

/// 32 bytes that encrypt what is secret in the store: AES-256-GCM, with the secret's name as associated data, so that one cannot stand
/// in for another.
///
/// While it is rotated, a second key opens what was sealed before; everything is sealed under the current one. A reload
/// replaces both in a running process.
///
/// Nonces are random, so one key may seal at most [`MAX_SEALS`](Self::MAX_SEALS) values. Web messaging seals one value for each
/// session. The process counts its seals, and the store keeps their sum.
pub struct MasterKey {
    keys: ArcSwap<Keys>,
    /// Seals that the store does not count yet.
    seals: AtomicU64,
}

#[derive(Clone)]
struct Keys {
    current: Arc<Cipher>,
    previous: Option<Arc<Cipher>>,
    /// Held while this process has a key from a file: a process that went on with the old key alone would seal what is lost with it.
    _lock: Option<Arc<File>>,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey")
    }
}

/// The master key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// Not the base64 of 32 bytes.
    #[error("the master key in {0} is damaged: it is not the base64 of 32 bytes")]
    Damaged(String),
    /// The file can be read by others than its owner and its group.
    #[error("the master key file {0} can be read by others (mode {1:o})")]
    Open(PathBuf, u32),
    /// There is no file, but there are keys that were encrypted by what was in it.
    #[error("the master key file {0} is missing, and the store has keys that it encrypted")]
    Missing(PathBuf),
    /// There is a previous key, and no current one where that should be.
    #[error("{previous} has a previous master key, and {current} has no current one")]
    PreviousAlone {
        /// Where the previous key is.
        previous: String,
        /// Where the current key should be.
        current: String,
    },
    /// The file cannot be read or made.
    #[error("the master key file {0} cannot be used")]
    File(PathBuf, #[source] io::Error),
    /// Another process has the key in the file in use, so it is not rotated.
    #[error("another process uses the master key file {0}")]
    InUse(PathBuf),
    /// Another process rotates the key in the file.
    #[error("the master key file {0} is being rotated")]
    BeingRotated(PathBuf),
    /// Values were sealed under the previous key while they were re-sealed.
    #[error("another process still seals values under the previous master key")]
    PreviousInUse,
    /// What was locked with another key, or was changed since.
    #[error("{0} cannot be decrypted: it was encrypted under another master key, or is damaged")]
    Wrong(String),
    /// Encryption failed.
    #[error("the master key cannot encrypt")]
    Unusable,
}

impl MasterKeyError {
    /// Whether it may pass without a change of the settings: a volume that is not mounted yet, a key that is being rotated.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::File(..) | Self::Missing(_) | Self::Open(..) | Self::BeingRotated(_) => true,
            Self::Damaged(_)
            | Self::PreviousAlone { .. }
            | Self::InUse(_)
            | Self::PreviousInUse
            | Self::Wrong(_)
            | Self::Unusable => false,
        }
    }
}

pub(super) const LENGTH: usize = 32;

impl MasterKey {
    /// How many values may be sealed under one key with random nonces of 96 bits: 2^32 (NIST SP 800-38D, section 8.3).
    pub const MAX_SEALS: u64 = 1 << 32;

    /// From `GUESTLANE_MASTER_KEY`: base64 of 32 bytes.
    pub fn parse(text: &SecretString, source: &str) -> Result<Self, MasterKeyError> {
        let keys = Keys { current: Arc::new(Cipher::parse(text, source)?), previous: None, _lock: None };
        Ok(Self { keys: ArcSwap::from_pointee(keys), seals: AtomicU64::new(0) })
    }

    /// The same key, with one that opens what this one does not. It seals nothing.
    pub fn with_previous(self, text: &SecretString, source: &str) -> Result<Self, MasterKeyError> {
        let previous = Some(Arc::new(Cipher::parse(text, source)?));
        self.keys.rcu(|keys| Keys { previous: previous.clone(), ..Keys::clone(keys) });
        Ok(self)
    }

    /// The same key, which holds `lock` for as long as it is in use.
    pub(super) fn with_lock(self, lock: File) -> Self {
        let lock = Some(Arc::new(lock));
        self.keys.rcu(|keys| Keys { _lock: lock.clone(), ..Keys::clone(keys) });
        self
    }

    /// Takes the keys of `other` in the place of its own, for all holders of this value.
    pub(crate) fn take_keys_of(&self, other: &Self) {
        self.keys.store(other.keys.load_full());
    }

    /// Whether `other` has the same current key and the same previous one.
    pub(crate) fn has_keys_of(&self, other: &Self) -> bool {
        let (one, other) = (self.keys.load(), other.keys.load());
        let previous = |keys: &Keys| keys.previous.as_ref().map(|previous| previous.id.clone());
        one.current.id == other.current.id && previous(&one) == previous(&other)
    }

    /// Identifies the current key without revealing it: 16 hexadecimal digits.
    pub fn id(&self) -> String {
        self.keys.load().current.id.clone()
    }

    /// Whether there is a previous key, and it is another one than the current.
    pub fn is_being_replaced(&self) -> bool {
        let keys = self.keys.load();
        keys.previous.as_ref().is_some_and(|previous| previous.id != keys.current.id)
    }

    /// Encrypts `secret` under its `name` with the current key.
    pub fn seal(&self, name: &str, secret: &[u8]) -> Result<Vec<u8>, MasterKeyError> {
        self.seals.fetch_add(1, Ordering::Relaxed);
        self.keys.load().current.seal(name, secret)
    }

    /// Decrypts what [`seal`](Self::seal) made under the same `name`, with the current key or the previous one.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, MasterKeyError> {
        let keys = self.keys.load();
        let opened = keys.current.open(name, sealed);
        let opened = opened.or_else(|| keys.previous.as_ref()?.open(name, sealed));
        opened.ok_or_else(|| MasterKeyError::Wrong(name.to_owned()))
    }

    /// Whether the current key opens what was sealed under that `name`.
    pub fn is_current(&self, name: &str, sealed: &[u8]) -> bool {
        self.keys.load().current.open(name, sealed).is_some()
    }

    /// Seals of this process that the store does not count yet.
    pub fn uncounted_seals(&self) -> u64 {
        self.seals.load(Ordering::Relaxed)
    }

    /// Takes what the store does not count yet, to add it there.
    pub(crate) fn take_seals(&self) -> u64 {
        self.seals.swap(0, Ordering::Relaxed)
    }

    /// Gives back what could not be added.
    pub(crate) fn give_back_seals(&self, seals: u64) {
        self.seals.fetch_add(seals, Ordering::Relaxed);
    }
}

/// One key of AES-256-GCM.
struct Cipher {
    key: RandomizedNonceKey,
    id: String,
}

impl Cipher {
    fn parse(text: &SecretString, source: &str) -> Result<Self, MasterKeyError> {
        let damaged = || MasterKeyError::Damaged(source.to_owned());
        let bytes = Zeroizing::new(BASE64_STANDARD.decode(without_bom_str(text.expose_secret()).trim()).map_err(|_| damaged())?);
        if bytes.len() != LENGTH {
            return Err(damaged());
        }
        let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| damaged())?;
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &bytes), b"guestlane master key id");
        let id = tag.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { key, id })
    }

    fn seal(&self, name: &str, secret: &[u8]) -> Result<Vec<u8>, MasterKeyError> {
        let mut sealed = secret.to_vec();
        let nonce =
            self.key.seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut sealed).map_err(|_| MasterKeyError::Unusable)?;
        Ok([nonce.as_ref().as_slice(), &sealed].concat())
    }

    /// `None` for what another key sealed, or what was sealed under another name or changed since.
    fn open(&self, name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_at_checked(12)?;
        let nonce = aws_lc_rs::aead::Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let length = self.key.open_in_place(nonce, Aad::from(name.as_bytes()), &mut bytes).ok()?.len();
        bytes.truncate(length);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(byte: u8) -> SecretString {
        BASE64_STANDARD.encode([byte; 32]).into()
    }

    fn key(byte: u8) -> MasterKey {
        MasterKey::parse(&text(byte), "a test").unwrap()
    }

    #[test]
    fn a_secret_opens_under_its_own_name_and_key_only() {
        let sealed = key(1).seal("signing key v1", b"secret").unwrap();
        assert_eq!(key(1).open("signing key v1", &sealed).unwrap().as_slice(), b"secret");
        assert!(matches!(key(1).open("signing key v2", &sealed), Err(MasterKeyError::Wrong(_))));
        assert!(matches!(key(2).open("signing key v1", &sealed), Err(MasterKeyError::Wrong(_))));
        for cut in 0..sealed.len() {
            assert!(key(1).open("signing key v1", &sealed[..cut]).is_err());
        }
    }

    #[test]
    fn the_previous_key_opens_and_seals_nothing() {
        let both = key(2).with_previous(&text(1), "a test").unwrap();
        let old = key(1).seal("x", b"old").unwrap();
        let new = both.seal("x", b"new").unwrap();
        assert_eq!(both.open("x", &old).unwrap().as_slice(), b"old");
        assert_eq!((both.is_current("x", &old), both.is_current("x", &new)), (false, true));
        assert!(key(1).open("x", &new).is_err() && key(2).open("x", &new).is_ok());
        assert!(both.is_being_replaced() && !key(2).is_being_replaced());
        assert!(!key(1).with_previous(&text(1), "a test").unwrap().is_being_replaced());
        assert!(both.with_previous(&"short".to_owned().into(), "PREVIOUS").unwrap_err().to_string().contains("PREVIOUS"));
    }

    #[test]
    fn keys_are_replaced_for_all_holders() {
        let (held, both) = (Arc::new(key(1)), key(2).with_previous(&text(1), "a test").unwrap());
        let holder = Arc::clone(&held);
        let old = holder.seal("x", b"old").unwrap();
        assert!(!held.has_keys_of(&both) && !both.has_keys_of(&key(2)) && held.has_keys_of(&key(1)));
        held.take_keys_of(&both);
        assert!(held.has_keys_of(&both) && holder.open("x", &old).is_ok());
        let new = holder.seal("x", b"new").unwrap();
        assert!(key(2).open("x", &new).is_ok() && key(1).open("x", &new).is_err());
    }

    #[test]
    fn each_seal_is_counted_until_the_store_counts_it() {
        let key = key(1);
        for _ in 0..3 {
            key.seal("x", b"secret").unwrap();
        }
        assert_eq!((key.uncounted_seals(), key.take_seals(), key.uncounted_seals()), (3, 3, 0));
        key.give_back_seals(3);
        assert_eq!(key.uncounted_seals(), 3);
    }

    #[test]
    fn a_key_is_identified_without_being_shown() {
        assert!(key(1).id() == key(1).id() && key(1).id() != key(2).id());
        assert!(key(1).id().len() == 16 && !text(1).expose_secret().contains(&key(1).id()));
    }

    #[test]
    fn a_damaged_master_key_is_told_without_showing_it() {
        for text in ["", "short", "c2hvcnQ=", "!!!!"] {
            let error = MasterKey::parse(&text.to_owned().into(), "GUESTLANE_MASTER_KEY").unwrap_err().to_string();
            assert!(error.contains("GUESTLANE_MASTER_KEY") && (text.is_empty() || !error.contains(text)), "{error}");
        }
    }
}
