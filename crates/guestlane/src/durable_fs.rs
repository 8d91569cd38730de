//! What a file needs around it: a directory, to survive a power cut, and a mode that keeps a secret.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tracing::warn;

use crate::request::ValidationError;

/// The directory of a file.
fn directory_of(path: &Path) -> PathBuf {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Makes a file's directory where it is missing; only its owner may look into it.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory_of(path))
}

/// Makes the names in a file's directory safe: a file's bytes are of no use when its name is lost.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

/// Makes a file with that content, for its owner alone, unless it is there. It is written whole under another name and
/// then linked: of two processes one makes it, and no crash leaves half of it. `drafted` runs between the two.
pub(crate) fn make_once(path: &Path, content: &[u8], drafted: impl FnOnce()) -> io::Result<()> {
    make_directory(path)?;
    // No process id: containers that share a volume have the same one.
    let draft = path.with_extension(format!("{:016x}.draft", fastrand::u64(..)));
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    drafted();
    let linked = written.and_then(|()| link(&draft, path));
    let _ = fs::remove_file(&draft);
    linked?;
    // A name is safe once its directory is.
    sync_directory(path)
}

/// Links a file that may have been linked before.
pub(crate) fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// A file with a secret that others than its owner and its group can read or write.
#[derive(Debug)]
pub(crate) struct Exposed {
    path: PathBuf,
    /// Permission bits.
    pub(crate) mode: u32,
}

impl Exposed {
    /// The setting that has the secret, or names the file.
    pub(crate) fn named(&self, setting: &str) -> ValidationError {
        let path = self.path.display();
        let reason = format!("{path} can be read or written by others (mode {:o})", self.mode);
        ValidationError::new(setting, reason, format!("run `chmod o= {path}`")).may_pass()
    }
}

/// Checks the mode of a file with a secret, behind links. What its group may read is a warning alone: a volume's `fsGroup`
/// and a mounted Secret give the group rights at each start. A file that is not there is exposed to nothing.
pub(crate) fn expect_private(path: &Path) -> Result<(), Exposed> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(Exposed { path: path.to_owned(), mode });
    }
    if mode & 0o070 != 0 {
        warn!(file = %path.display(), mode = format!("{mode:o}"), "a file with a secret can be read by its group");
    }
    Ok(())
}

/// The mode of a directory that others than its owner and its group can enter or read; else `None`.
pub(crate) fn mode_for_others(directory: &Path) -> Option<u32> {
    let mode = fs::metadata(directory).ok()?.permissions().mode() & 0o7777;
    (mode & 0o007 != 0).then_some(mode)
}

/// Whether an error says that a file or directory cannot be written.
pub(crate) fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}
