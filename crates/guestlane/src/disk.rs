//! What a file needs to survive a power cut.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// The directory of a file.
pub(crate) fn directory_of(path: &Path) -> PathBuf {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Makes the names in a file's directory safe: a file's bytes are of no use when its name is lost.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}
