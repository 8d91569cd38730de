//! What a file needs around it: a directory, and to survive a power cut.

use std::{
    fs::{DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

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
