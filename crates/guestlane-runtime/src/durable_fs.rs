//! File operations that survive a power failure and keep secrets private: directory
//! synchronization, atomic creation and file modes.

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tracing::warn;

/// The directory of a file.
fn directory_of(path: &Path) -> PathBuf {
    path.parent()
        .filter(|directory| !directory.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
        .to_owned()
}

/// Creates the directory of a file if it is missing, with access for its owner only.
///
/// # Errors
/// Fails if the directory cannot be created.
pub fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory_of(path))
}

/// Synchronizes the directory of a file. Without it, a power failure can lose the name of a file
/// whose content is on disk.
///
/// # Errors
/// Fails if the directory cannot be opened or synchronized.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

/// Creates a file with this content, for its owner only, unless the file exists.
///
/// The content is written to a draft, which is then linked. So only one of two processes creates
/// the file, and a crash leaves no partial file. `drafted` runs between the two steps.
///
/// # Errors
/// Fails if the draft or the link cannot be written.
pub fn make_once(path: &Path, content: &[u8], drafted: impl FnOnce()) -> io::Result<()> {
    make_directory(path)?;
    // The process ID would not be unique: containers that share a volume have the same one.
    let draft = path.with_extension(format!("{:016x}.draft", fastrand::u64(..)));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        });
    drafted();
    let linked = written.and_then(|()| link(&draft, path));
    let _ = fs::remove_file(&draft);
    linked?;
    // The link is durable only after its directory is synchronized.
    sync_directory(path)
}

/// Creates a hard link. Succeeds if the target exists already.
///
/// # Errors
/// Fails if the link cannot be created.
pub fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// A file with a secret that users outside its owner and group can read or write.
#[derive(Debug)]
pub struct Exposed {
    /// The file.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, mode) = (self.path.display(), self.mode);
        write!(f, "{path} can be read or written by others (mode {mode:o})")
    }
}

/// Checks the mode of a file with a secret; links are followed. Access by the group only logs a
/// warning: the `fsGroup` of a volume and a mounted Secret grant it at each start. A missing file
/// is accepted.
///
/// # Errors
/// Returns [`Exposed`] if users outside the owner and the group have access.
pub fn expect_private(path: &Path) -> Result<(), Exposed> {
    let Ok(metadata) = fs::metadata(path) else {
        return Ok(());
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    if mode & 0o070 != 0 {
        warn!(file = %path.display(), mode = format!("{mode:o}"), "a file with a secret can be read by its group");
    }
    Ok(())
}

/// The mode of a directory that users outside its owner and group can enter or read; otherwise
/// `None`.
pub fn mode_for_others(directory: &Path) -> Option<u32> {
    let mode = fs::metadata(directory).ok()?.permissions().mode() & 0o7777;
    (mode & 0o007 != 0).then_some(mode)
}

/// Whether an error says that a file or directory cannot be written.
pub fn is_read_only(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}
