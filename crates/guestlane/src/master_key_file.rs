//! The master key in a file, and the steps of its rotation.
//!
//! `master.key` has the current key. During a rotation `master.key.next` has the next key, and
//! later `master.key.previous` the previous key. Each file name is durable before the next step
//! begins. Every process that has the key in memory holds a lock on `master.key.lock`.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use base64::{Engine, prelude::BASE64_STANDARD};
use guestlane_runtime::{FailPoint, FailPoints};
use secrecy::SecretString;
use zeroize::Zeroizing;

use guestlane_core::token::{MasterKey, MasterKeyError};
use guestlane_runtime::durable_fs::{
    expect_private, link, make_directory, make_once, sync_directory,
};

/// Reads the key from a file that only its owner and its group can read, and creates it on
/// first use.
///
/// The previous key is in a file beside it until a rotation is complete.
///
/// # Errors
/// See [`MasterKeyError`]; [`MasterKeyError::BeingRotated`] while another process rotates the
/// key.
pub(crate) fn from_file(
    path: &Path,
    fail_points: &FailPoints,
) -> Result<MasterKey, MasterKeyError> {
    read_locked(path, || make_file(path, fail_points))
}

/// Reads the key like [`from_file`], for a store that is in use. Creates no
/// key.
pub(crate) fn from_file_in_use(path: &Path) -> Result<MasterKey, MasterKeyError> {
    if !path.exists() {
        return Err(MasterKeyError::Missing(path.to_owned()));
    }
    read_locked(path, || Err(io::ErrorKind::NotFound.into()))
}

fn read_locked(
    path: &Path,
    make: impl FnOnce() -> io::Result<()>,
) -> Result<MasterKey, MasterKeyError> {
    let lock = lock_file(path)?;
    lock.try_lock_shared()
        .map_err(|_| MasterKeyError::BeingRotated(path.to_owned()))?;
    Ok(read(path, make)?.with_lock(lock))
}

/// Locks the key files exclusively for this process, as long as the returned file is open.
///
/// # Errors
/// Returns [`MasterKeyError::InUse`] if another process uses them.
pub(crate) fn lock_alone(path: &Path) -> Result<File, MasterKeyError> {
    let lock = lock_file(path)?;
    lock.try_lock()
        .map_err(|_| MasterKeyError::InUse(path.to_owned()))?;
    Ok(lock)
}

/// Reads the keys in the files, for a process that holds the lock.
pub(crate) fn from_locked_file(path: &Path) -> Result<MasterKey, MasterKeyError> {
    read(path, || Err(io::ErrorKind::NotFound.into()))
}

fn read(path: &Path, make: impl FnOnce() -> io::Result<()>) -> Result<MasterKey, MasterKeyError> {
    let previous = beside(path, "previous");
    let text = match read_private(path)? {
        Some(text) => text,
        None if read_private(&previous)?.is_some() => {
            let (previous, current) = (previous.display().to_string(), path.display().to_string());
            return Err(MasterKeyError::PreviousAlone { previous, current });
        }
        None => {
            make().map_err(|error| MasterKeyError::File(path.to_owned(), error))?;
            read_private(path)?.ok_or_else(|| MasterKeyError::Missing(path.to_owned()))?
        }
    };
    let current = MasterKey::parse(&text, &path.display().to_string())?;
    match read_private(&previous)? {
        Some(text) => current.with_previous(&text, &previous.display().to_string()),
        None => Ok(current),
    }
}

/// Replaces the key in the file by a new one, and keeps the old one as the previous key.
///
/// After a crash the same call continues. A rotation whose values are not all encrypted again
/// yet is left unchanged.
pub(crate) fn replace_in_file(path: &Path, fail_points: &FailPoints) -> Result<(), MasterKeyError> {
    if from_locked_file(path)?.is_being_replaced() {
        return Ok(());
    }
    let failed = |error| MasterKeyError::File(path.to_owned(), error);
    let (next, previous) = (beside(path, "next"), beside(path, "previous"));
    if read_private(&next)?.is_none() {
        make_file(&next, fail_points).map_err(failed)?;
    }
    // A damaged key must not replace a valid one.
    from_locked_file(&next)?;
    link(path, &previous).map_err(failed)?;
    sync_directory(path).map_err(failed)?;
    fail_points.hit_blocking(FailPoint::PreviousMasterKeyKept);
    fs::rename(&next, path).map_err(failed)?;
    sync_directory(path).map_err(failed)?;
    fail_points.hit_blocking(FailPoint::MasterKeyReplaced);
    Ok(())
}

/// Deletes the previous key, after no value is encrypted under it any more.
pub(crate) fn delete_previous(path: &Path) -> Result<(), MasterKeyError> {
    let failed = |error| MasterKeyError::File(beside(path, "previous"), error);
    fs::remove_file(beside(path, "previous")).map_err(failed)?;
    sync_directory(path).map_err(failed)
}
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(".");
    name.push(ending);
    name.into()
}

fn lock_file(path: &Path) -> Result<File, MasterKeyError> {
    let lock = beside(path, "lock");
    let opened = make_directory(&lock).and_then(|()| {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock)
    });
    opened.map_err(|error| MasterKeyError::File(lock, error))
}

/// Reads a file that only its owner and its group can access. Returns `None` if it does not exist.
fn read_private(path: &Path) -> Result<Option<SecretString>, MasterKeyError> {
    let failed = |error| MasterKeyError::File(path.to_owned(), error);
    expect_private(path)
        .map_err(|exposed| MasterKeyError::ExposedFile(path.to_owned(), exposed.mode))?;
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Creates a key file. Two processes that start at the same time end up with one key.
fn make_file(path: &Path, fail_points: &FailPoints) -> io::Result<()> {
    let mut key = Zeroizing::new([0; MasterKey::LENGTH]);
    rand::fill(key.as_mut()).map_err(|_| io::Error::other("the random number generator failed"))?;
    let text = Zeroizing::new(format!("{}\n", BASE64_STANDARD.encode(*key)));
    make_once(path, text.as_bytes(), || {
        fail_points.hit_blocking(FailPoint::MasterKeyDrafted)
    })?;
    fail_points.hit_blocking(FailPoint::MasterKeyMade);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key_in(path: &Path) -> Result<MasterKey, MasterKeyError> {
        from_file(path, &FailPoints::default())
    }

    #[test]
    fn key_file_is_created_once_and_rejected_with_open_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        let sealed = key_in(&path).unwrap().seal("x", b"secret").unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            key_in(&path)
                .unwrap()
                .open("x", &sealed)
                .unwrap()
                .as_slice(),
            b"secret"
        );

        for mode in [0o644, 0o602, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(
                matches!(key_in(&path), Err(MasterKeyError::ExposedFile(_, found)) if found == mode)
            );
        }
        // Modes that Kubernetes sets: fsGroup at each mount, and a mounted Secret.
        for mode in [0o660, 0o440] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            key_in(&path).unwrap();
        }
    }

    #[test]
    fn replaced_key_opens_until_it_is_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        let sealed = key_in(&path).unwrap().seal("x", b"secret").unwrap();
        for _ in 0..2 {
            replace_in_file(&path, &FailPoints::default()).unwrap(); // the second one changes nothing
            let both = key_in(&path).unwrap();
            assert!(both.open("x", &sealed).is_ok() && !both.is_current("x", &sealed));
        }
        fs::set_permissions(beside(&path, "previous"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(
            matches!(key_in(&path), Err(MasterKeyError::ExposedFile(open, 0o644)) if open == beside(&path, "previous"))
        );
        delete_previous(&path).unwrap();
        assert!(key_in(&path).unwrap().open("x", &sealed).is_err());
        let left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left.len(), 2, "the key and its lock: {left:?}");
    }

    #[test]
    fn previous_key_alone_is_rejected_and_no_key_is_created() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        drop(key_in(&path).unwrap());
        fs::rename(&path, beside(&path, "previous")).unwrap();
        assert!(matches!(
            key_in(&path),
            Err(MasterKeyError::PreviousAlone { .. })
        ));
        assert!(!path.exists());
    }

    #[test]
    fn damaged_next_key_does_not_replace_a_good_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        let sealed = key_in(&path).unwrap().seal("x", b"secret").unwrap();
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(beside(&path, "next"))
            .unwrap();
        assert!(matches!(
            replace_in_file(&path, &FailPoints::default()),
            Err(MasterKeyError::Damaged(_))
        ));
        assert!(key_in(&path).unwrap().is_current("x", &sealed));
    }

    #[test]
    fn key_use_and_key_rotation_exclude_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        let key = key_in(&path).unwrap();
        assert!(matches!(lock_alone(&path), Err(MasterKeyError::InUse(_))));
        drop(key);
        let alone = lock_alone(&path).unwrap();
        assert!(matches!(
            key_in(&path),
            Err(MasterKeyError::BeingRotated(_))
        ));
        drop(alone);
        key_in(&path).unwrap();
    }
}
