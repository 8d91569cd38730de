//! The files of an audit log: its lines, the hashes of the lines, and the checkpoint over them.
//!
//! The store is the durable copy of a record; the files are the copy that operators and programs
//! read. After each commit the files are synchronized with the store, wherever an earlier process
//! stopped. A torn line is cut off and written again. Only one process at a time writes a log.

mod open_log;

use std::{
    io,
    path::{Path, PathBuf},
};

use guestlane_runtime::{FailPoint, FailPoints, durable_fs::sync_directory};
use open_log::{Open, inodes};

/// Why an audit log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file system failed.
    #[error("the audit log {} cannot be written", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// The store cannot be read.
    #[error("the audit log {} cannot be synchronized with the store: {}", .0.display(), .1)]
    Store(PathBuf, String),
    /// The file was not written by this store.
    #[error("the audit log {} does not belong to this store: {}", .0.display(), .1)]
    Foreign(PathBuf, &'static str),
}

/// Size of one read from the store and of one write, in bytes.
pub const ONE_WRITE: usize = 1024 * 1024;

/// Size of the first window at a file's end, in bytes. A record is shorter.
const ENOUGH: u64 = 64 * 1024;

/// Largest window at a file's end, in bytes.
///
/// Records are bounded, but a record of an older version may contain a whole response of the
/// platform (1 MiB). As JSON each of its bytes may take six.
const LONGEST: u64 = 64 * 1024 * 1024;

/// What was appended to the files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AppendedRange {
    /// Number of lines.
    pub lines: u64,
    /// Whether the checkpoint changed.
    pub checkpoint: bool,
}

/// The source of a log's lines, by index: the store.
pub trait LineSource {
    /// Returns the line at `index`, or `None` if there is no such line.
    ///
    /// # Errors
    /// Returns the reason as text, if the source cannot be read.
    fn line(&self, index: u64) -> Result<Option<String>, String>;

    /// Appends lines to `text`, from `index` on, each with its line feed, and returns their number.
    ///
    /// It stops at the last line, or when the text is long enough for one write.
    ///
    /// # Errors
    /// Returns the reason as text, if the source cannot be read.
    fn append_from(&self, index: u64, text: &mut Vec<u8>) -> Result<u64, String>;
}

/// Returns the path of a log's lines.
///
/// The first log has the configured path; the others have their number before the extension.
pub fn lines_path(first: &Path, log: u32) -> PathBuf {
    if log <= 1 {
        return first.to_owned();
    }
    let stem = first.file_stem().unwrap_or_default().to_string_lossy();
    let extension = first
        .extension()
        .map(|extension| format!(".{}", extension.to_string_lossy()))
        .unwrap_or_default();
    first.with_file_name(format!("{stem}.{log}{extension}"))
}

/// Returns the path of the hashes of a log's lines.
///
/// The file has 32 bytes for each line (level 0 of C2SP `tlog-tiles`, in one piece).
pub fn hashes_path(lines: &Path) -> PathBuf {
    beside(lines, ".hashes")
}

/// Returns the path of the newest checkpoint over a log's lines.
pub fn checkpoint_path(lines: &Path) -> PathBuf {
    beside(lines, ".checkpoint")
}

fn beside(lines: &Path, ending: &str) -> PathBuf {
    let mut name = lines.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    lines.with_file_name(name)
}

/// The files of one log, with the cached state of their ends.
#[derive(Debug)]
pub struct LogFiles {
    path: PathBuf,
    open: Option<Open>,
}

impl LogFiles {
    /// Creates the value without access to the file system. `path` is the path of the lines.
    pub fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    /// Returns the path of the lines.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the length of the lines' file in bytes, or 0 if the file is not open.
    pub fn length(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.length)
    }

    /// Appends what the files lack, and writes `note`, the checkpoint over all lines.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub fn catch_up(
        &mut self,
        lines: &dyn LineSource,
        note: &str,
        fail_points: &FailPoints,
    ) -> Result<AppendedRange, AuditError> {
        let caught_up = self.try_catch_up(lines, note, fail_points);
        if caught_up.is_err() {
            // The cached state may be wrong after a failure, so the next call reads the files' ends
            // again.
            self.open = None;
        }
        caught_up
    }

    /// Syncs all files of a closed log to disk, because no later call repairs them after a power
    /// failure.
    ///
    /// # Errors
    /// Returns [`AuditError::Write`] if a file cannot be synced.
    pub fn sync(&self) -> Result<(), AuditError> {
        let failed = |error| AuditError::Write(self.path.clone(), error);
        let Some(open) = &self.open else {
            return Ok(());
        };
        for file in [&open.lines, &open.hashes, &open.checkpoint] {
            file.sync_all().map_err(failed)?;
        }
        sync_directory(&self.path).map_err(failed)
    }

    fn try_catch_up(
        &mut self,
        lines: &dyn LineSource,
        note: &str,
        fail_points: &FailPoints,
    ) -> Result<AppendedRange, AuditError> {
        let path = &self.path;
        let failed = |error| AuditError::Write(path.clone(), error);
        let open = match &mut self.open {
            Some(open) if inodes(path).is_ok_and(|now| now == open.inodes) => open,
            stale => stale.insert(Open::new(path)?), // not opened yet, or the files were moved away
        };
        let before = open.find_end(path, lines)?;
        let added = open.append_lines(path, lines)?;
        fail_points.hit_blocking(FailPoint::LinesAppended);
        open.append_hashes(path, lines, before, &added)?;
        fail_points.hit_blocking(FailPoint::HashesAppended);
        let checkpoint = open.seal(note).map_err(failed)?;
        Ok(AppendedRange {
            lines: open.next - before,
            checkpoint,
        })
    }
}

#[cfg(test)]
mod tests;
