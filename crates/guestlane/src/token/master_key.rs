//! The key that the keys are locked with.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, RandomizedNonceKey},
    rand,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use guestlane_genesys::{Seam, Seams};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::{
    disk::{make_directory, sync_directory},
    input::without_bom_str,
};

/// 32 bytes that encrypt what is secret in the store: AES-256-GCM, with the secret's name as associated data, so that one cannot stand
/// in for another.
pub struct MasterKey(RandomizedNonceKey);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey")
    }
}

/// The master key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// Not the base64 of 32 bytes.
    #[error("the master key in {0} is damaged: it is not the base64 of 32 bytes")]
    Damaged(String),
    /// The file can be read by others than its owner.
    #[error("the master key file {0} can be read by others (mode {1:o})")]
    Open(PathBuf, u32),
    /// There is no file, but there are keys that were encrypted by what was in it.
    #[error("the master key file {0} is missing, and the store has keys that it encrypted")]
    Missing(PathBuf),
    /// The file cannot be read or made.
    #[error("the master key file {0} cannot be used")]
    File(PathBuf, #[source] io::Error),
    /// What was locked with another key, or was changed since.
    #[error("{0} cannot be decrypted: it was encrypted under another master key, or is damaged")]
    Wrong(String),
    /// Encryption failed.
    #[error("the master key cannot encrypt")]
    Unusable,
}

const LENGTH: usize = 32;

impl MasterKey {
    /// From `GUESTLANE_MASTER_KEY`: base64 of 32 bytes.
    pub fn parse(text: &SecretString, source: &str) -> Result<Self, MasterKeyError> {
        let damaged = || MasterKeyError::Damaged(source.to_owned());
        let bytes = Zeroizing::new(BASE64_STANDARD.decode(without_bom_str(text.expose_secret()).trim()).map_err(|_| damaged())?);
        if bytes.len() != LENGTH {
            return Err(damaged());
        }
        RandomizedNonceKey::new(&AES_256_GCM, &bytes).map(Self).map_err(|_| damaged())
    }

    /// From a file that only its owner can read; made on first use.
    pub fn from_file(path: &Path, seams: &Seams) -> Result<Self, MasterKeyError> {
        let failed = |error| MasterKeyError::File(path.to_owned(), error);
        match fs::metadata(path) {
            Ok(metadata) => {
                let mode = metadata.permissions().mode() & 0o777;
                if mode & 0o077 != 0 {
                    return Err(MasterKeyError::Open(path.to_owned(), mode));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_file(path, seams).map_err(failed)?,
            Err(error) => return Err(failed(error)),
        }
        let text: SecretString = fs::read_to_string(path).map_err(failed)?.into();
        Self::parse(&text, &path.display().to_string())
    }

    /// Encrypts `secret` under its `name`.
    pub fn seal(&self, name: &str, secret: &[u8]) -> Result<Vec<u8>, MasterKeyError> {
        let mut sealed = secret.to_vec();
        let nonce =
            self.0.seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut sealed).map_err(|_| MasterKeyError::Unusable)?;
        Ok([nonce.as_ref().as_slice(), &sealed].concat())
    }

    /// Decrypts what [`seal`](Self::seal) made under the same `name`.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, MasterKeyError> {
        let wrong = || MasterKeyError::Wrong(name.to_owned());
        let (nonce, sealed) = sealed.split_at_checked(12).ok_or_else(wrong)?;
        let nonce = aws_lc_rs::aead::Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let length = self.0.open_in_place(nonce, Aad::from(name.as_bytes()), &mut bytes).map_err(|_| wrong())?.len();
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// Written whole under another name, then linked: two processes that start at once end up with one key, and nobody ever reads half of
/// one.
fn make_file(path: &Path, seams: &Seams) -> io::Result<()> {
    let mut key = Zeroizing::new([0; LENGTH]);
    rand::fill(key.as_mut()).map_err(|_| io::Error::other("no randomness"))?;
    let text = Zeroizing::new(format!("{}\n", BASE64_STANDARD.encode(*key)));
    make_directory(path)?;
    let draft = path.with_extension(format!("{}.draft", std::process::id()));
    let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    seams.pass_blocking(Seam::MasterKeyDrafted);
    let linked = written.and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()), // another process was quicker: its key is the key
        other => other,
    });
    let _ = fs::remove_file(&draft);
    linked?;
    // A name is safe once its directory is: without this, a power cut could leave keys in the store that nothing opens.
    sync_directory(path)?;
    seams.pass_blocking(Seam::MasterKeyMade);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> MasterKey {
        MasterKey::parse(&BASE64_STANDARD.encode([byte; 32]).into(), "a test").unwrap()
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
    fn a_file_is_made_once_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        let sealed = MasterKey::from_file(&path, &Seams::default()).unwrap().seal("x", b"secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(MasterKey::from_file(&path, &Seams::default()).unwrap().open("x", &sealed).unwrap().as_slice(), b"secret");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(MasterKey::from_file(&path, &Seams::default()), Err(MasterKeyError::Open(_, 0o644))));
    }

    #[test]
    fn a_damaged_master_key_is_told_without_showing_it() {
        for text in ["", "short", "c2hvcnQ=", "!!!!"] {
            let error = MasterKey::parse(&text.to_owned().into(), "GUESTLANE_MASTER_KEY").unwrap_err().to_string();
            assert!(error.contains("GUESTLANE_MASTER_KEY") && (text.is_empty() || !error.contains(text)), "{error}");
        }
    }
}
