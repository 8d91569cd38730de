//! The master key, which encrypts the other keys and secrets in the store.

use std::{
    any::Any,
    fmt, io,
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

use guestlane_runtime::text::without_bom_str;

/// A key of 32 bytes that encrypts the secrets in the store with AES-256-GCM.
///
/// A secret's name is the associated data, so that one secret cannot replace another.
///
/// During a rotation a second key decrypts older values; the current key encrypts all new ones. A
/// reload replaces both keys in a running process.
///
/// Nonces are random, so one key may encrypt at most [`MAX_SEALS`](Self::MAX_SEALS) values. Web
/// messaging encrypts one value for each session. The process counts its encryptions, and the store
/// keeps the sum.
pub struct MasterKey {
    keys: ArcSwap<Keys>,
    /// Encryptions that the store has not counted yet.
    seals: AtomicU64,
}

#[derive(Clone)]
struct Keys {
    current: Arc<Cipher>,
    previous: Option<Arc<Cipher>>,
    /// Held while this process has a key from a file, so that the file cannot be rotated meanwhile.
    /// Values encrypted later with only the old key would be lost with it.
    _lock: Option<Arc<dyn Any + Send + Sync>>,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey")
    }
}

/// Why the master key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// The text is not the base64 of 32 bytes.
    #[error("the master key in {0} is damaged: it is not the base64 of 32 bytes")]
    Damaged(String),
    /// The file's permissions allow access beyond its owner and its group.
    #[error("the master key file {0} can be read by others (mode {1:o})")]
    ExposedFile(PathBuf, u32),
    /// The file does not exist, but the store has values that its key encrypted.
    #[error("the master key file {0} is missing, and the store has keys that it encrypted")]
    Missing(PathBuf),
    /// A previous key exists without a current one.
    #[error("{previous} has a previous master key, and {current} has no current one")]
    PreviousAlone {
        /// Location of the previous key.
        previous: String,
        /// Expected location of the current key.
        current: String,
    },
    /// The file cannot be read or created.
    #[error("the master key file {0} cannot be used")]
    File(PathBuf, #[source] io::Error),
    /// Another process uses the key in the file, so it cannot be rotated.
    #[error("another process uses the master key file {0}")]
    InUse(PathBuf),
    /// Another process is rotating the key in the file.
    #[error("the master key file {0} is being rotated")]
    BeingRotated(PathBuf),
    /// Another process encrypted values under the previous key during the rotation.
    #[error("another process still seals values under the previous master key")]
    PreviousInUse,
    /// The value was encrypted under another key or name, or is damaged.
    #[error("{0} cannot be decrypted: it was encrypted under another master key, or is damaged")]
    Undecryptable(String),
    /// Encryption failed.
    #[error("the master key cannot encrypt")]
    Unusable,
}

impl MasterKeyError {
    /// Whether the error may end without a change of the settings: a volume is not mounted yet, or
    /// the key is being rotated.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::File(..) | Self::Missing(_) | Self::ExposedFile(..) | Self::BeingRotated(_) => {
                true
            }
            Self::Damaged(_)
            | Self::PreviousAlone { .. }
            | Self::InUse(_)
            | Self::PreviousInUse
            | Self::Undecryptable(_)
            | Self::Unusable => false,
        }
    }
}

impl MasterKey {
    /// Length of a key in bytes.
    pub const LENGTH: usize = 32;

    /// Number of values that one key may encrypt with random nonces of 96 bits: 2^32 (NIST SP
    /// 800-38D, section 8.3).
    pub const MAX_SEALS: u64 = 1 << 32;

    /// Parses the base64 of 32 bytes, as a setting has it. Errors name `source`.
    ///
    /// # Errors
    /// Returns [`MasterKeyError::Damaged`] if the text has another form.
    pub fn parse(text: &SecretString, source: &str) -> Result<Self, MasterKeyError> {
        let keys = Keys {
            current: Arc::new(Cipher::parse(text, source)?),
            previous: None,
            _lock: None,
        };
        Ok(Self {
            keys: ArcSwap::from_pointee(keys),
            seals: AtomicU64::new(0),
        })
    }

    /// Adds a previous key, which decrypts what the current key cannot. It encrypts nothing.
    ///
    /// # Errors
    /// Returns [`MasterKeyError::Damaged`] if the text is not the base64 of 32 bytes.
    pub fn with_previous(self, text: &SecretString, source: &str) -> Result<Self, MasterKeyError> {
        let previous = Some(Arc::new(Cipher::parse(text, source)?));
        self.keys.rcu(|keys| Keys {
            previous: previous.clone(),
            ..Keys::clone(keys)
        });
        Ok(self)
    }

    /// Adds a lock, such as that of a file, that is held as long as the key is in use.
    pub fn with_lock(self, lock: impl Any + Send + Sync) -> Self {
        let lock: Option<Arc<dyn Any + Send + Sync>> = Some(Arc::new(lock));
        self.keys.rcu(|keys| Keys {
            _lock: lock.clone(),
            ..Keys::clone(keys)
        });
        self
    }

    /// Replaces the keys by those of `other`, for all holders of this value.
    pub fn take_keys_of(&self, other: &Self) {
        self.keys.store(other.keys.load_full());
    }

    /// Whether `other` has the same current key and the same previous key.
    pub fn has_keys_of(&self, other: &Self) -> bool {
        let (one, other) = (self.keys.load(), other.keys.load());
        let previous = |keys: &Keys| keys.previous.as_ref().map(|previous| previous.id.clone());
        one.current.id == other.current.id && previous(&one) == previous(&other)
    }

    /// Returns the ID of the current key, 16 hexadecimal digits that do not reveal it.
    pub fn id(&self) -> String {
        self.keys.load().current.id.clone()
    }

    /// Whether a previous key exists that differs from the current key.
    pub fn is_being_replaced(&self) -> bool {
        let keys = self.keys.load();
        keys.previous
            .as_ref()
            .is_some_and(|previous| previous.id != keys.current.id)
    }

    /// Encrypts `secret` under its `name` with the current key.
    ///
    /// # Errors
    /// Returns [`MasterKeyError::Unusable`] if encryption fails.
    pub fn seal(&self, name: &str, secret: &[u8]) -> Result<Vec<u8>, MasterKeyError> {
        self.seals.fetch_add(1, Ordering::Relaxed);
        self.keys.load().current.seal(name, secret)
    }

    /// Decrypts what [`seal`](Self::seal) returned for `name`, with the current or the previous
    /// key.
    ///
    /// # Errors
    /// Returns [`MasterKeyError::Undecryptable`] if neither key decrypts the value.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, MasterKeyError> {
        let keys = self.keys.load();
        let opened = keys.current.open(name, sealed);
        let opened = opened.or_else(|| keys.previous.as_ref()?.open(name, sealed));
        opened.ok_or_else(|| MasterKeyError::Undecryptable(name.to_owned()))
    }

    /// Whether the current key decrypts what was encrypted under `name`.
    pub fn is_current(&self, name: &str, sealed: &[u8]) -> bool {
        self.keys.load().current.open(name, sealed).is_some()
    }

    /// Returns the number of encryptions that the store has not counted yet.
    pub fn uncounted_seals(&self) -> u64 {
        self.seals.load(Ordering::Relaxed)
    }

    /// Takes the number of uncounted encryptions, to add it to the store's sum.
    pub fn take_seals(&self) -> u64 {
        self.seals.swap(0, Ordering::Relaxed)
    }

    /// Returns a number that could not be added to the store's sum.
    pub fn give_back_seals(&self, seals: u64) {
        self.seals.fetch_add(seals, Ordering::Relaxed);
    }
}

/// An AES-256-GCM key with its ID.
struct Cipher {
    key: RandomizedNonceKey,
    id: String,
}

impl Cipher {
    fn parse(text: &SecretString, source: &str) -> Result<Self, MasterKeyError> {
        let damaged = || MasterKeyError::Damaged(source.to_owned());
        let bytes = Zeroizing::new(
            BASE64_STANDARD
                .decode(without_bom_str(text.expose_secret()).trim())
                .map_err(|_| damaged())?,
        );
        if bytes.len() != MasterKey::LENGTH {
            return Err(damaged());
        }
        let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| damaged())?;
        let tag = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, &bytes),
            b"guestlane master key id",
        );
        let id = tag
            .as_ref()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Self { key, id })
    }

    fn seal(&self, name: &str, secret: &[u8]) -> Result<Vec<u8>, MasterKeyError> {
        let mut sealed = secret.to_vec();
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut sealed)
            .map_err(|_| MasterKeyError::Unusable)?;
        Ok([nonce.as_ref().as_slice(), &sealed].concat())
    }

    /// Decrypts a value. Returns `None` if another key or name was used, or if the value was
    /// changed.
    fn open(&self, name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_at_checked(12)?;
        let nonce = aws_lc_rs::aead::Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let length = self
            .key
            .open_in_place(nonce, Aad::from(name.as_bytes()), &mut bytes)
            .ok()?
            .len();
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
    fn secret_opens_only_under_its_own_name_and_key() {
        let sealed = key(1).seal("signing key v1", b"secret").unwrap();
        assert_eq!(
            key(1).open("signing key v1", &sealed).unwrap().as_slice(),
            b"secret"
        );
        assert!(matches!(
            key(1).open("signing key v2", &sealed),
            Err(MasterKeyError::Undecryptable(_))
        ));
        assert!(matches!(
            key(2).open("signing key v1", &sealed),
            Err(MasterKeyError::Undecryptable(_))
        ));
        for cut in 0..sealed.len() {
            assert!(key(1).open("signing key v1", &sealed[..cut]).is_err());
        }
    }

    #[test]
    fn previous_key_opens_but_never_seals() {
        let both = key(2).with_previous(&text(1), "a test").unwrap();
        let old = key(1).seal("x", b"old").unwrap();
        let new = both.seal("x", b"new").unwrap();
        assert_eq!(both.open("x", &old).unwrap().as_slice(), b"old");
        assert_eq!(
            (both.is_current("x", &old), both.is_current("x", &new)),
            (false, true)
        );
        assert!(key(1).open("x", &new).is_err() && key(2).open("x", &new).is_ok());
        assert!(both.is_being_replaced() && !key(2).is_being_replaced());
        assert!(
            !key(1)
                .with_previous(&text(1), "a test")
                .unwrap()
                .is_being_replaced()
        );
        assert!(
            both.with_previous(&"short".to_owned().into(), "PREVIOUS")
                .unwrap_err()
                .to_string()
                .contains("PREVIOUS")
        );
    }

    #[test]
    fn replaced_keys_apply_to_all_holders() {
        let (held, both) = (
            Arc::new(key(1)),
            key(2).with_previous(&text(1), "a test").unwrap(),
        );
        let holder = Arc::clone(&held);
        let old = holder.seal("x", b"old").unwrap();
        assert!(
            !held.has_keys_of(&both) && !both.has_keys_of(&key(2)) && held.has_keys_of(&key(1))
        );
        held.take_keys_of(&both);
        assert!(held.has_keys_of(&both) && holder.open("x", &old).is_ok());
        let new = holder.seal("x", b"new").unwrap();
        assert!(key(2).open("x", &new).is_ok() && key(1).open("x", &new).is_err());
    }

    #[test]
    fn seals_are_counted_until_taken_by_the_store() {
        let key = key(1);
        for _ in 0..3 {
            key.seal("x", b"secret").unwrap();
        }
        assert_eq!(
            (
                key.uncounted_seals(),
                key.take_seals(),
                key.uncounted_seals()
            ),
            (3, 3, 0)
        );
        key.give_back_seals(3);
        assert_eq!(key.uncounted_seals(), 3);
    }

    #[test]
    fn key_id_does_not_reveal_the_key() {
        assert!(key(1).id() == key(1).id() && key(1).id() != key(2).id());
        assert!(key(1).id().len() == 16 && !text(1).expose_secret().contains(&key(1).id()));
    }

    #[test]
    fn damaged_master_key_error_does_not_show_it() {
        for text in ["", "short", "c2hvcnQ=", "!!!!"] {
            let error = MasterKey::parse(&text.to_owned().into(), "storage.master_key")
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("storage.master_key") && (text.is_empty() || !error.contains(text)),
                "{error}"
            );
        }
    }
}
