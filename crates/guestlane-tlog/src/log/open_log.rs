//! An open log: its three files, and what is appended to them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use guestlane_runtime::durable_fs::make_directory;
use serde::Deserialize;

use super::{
    super::tree::{Hash, leaf_hash},
    AuditError, ENOUGH, LONGEST, LineSource, checkpoint_path, hashes_path,
};

#[derive(Debug)]
pub(super) struct Open {
    pub(super) lines: File,
    pub(super) hashes: File,
    pub(super) checkpoint: File,
    pub(super) inodes: [u64; 3],
    pub(super) length: u64,
    /// Index of the next line.
    pub(super) next: u64,
    /// The checkpoint as it is in its file.
    sealed: String,
}

impl Open {
    pub(super) fn new(path: &Path) -> Result<Self, AuditError> {
        // A terminal or /dev/null would lose the records.
        if fs::metadata(path).is_ok_and(|known| !known.is_file()) {
            return Err(AuditError::Foreign(
                path.to_owned(),
                "it is not a regular file",
            ));
        }
        Self::open_files(path).map_err(|error| AuditError::Write(path.to_owned(), error))
    }

    fn open_files(path: &Path) -> io::Result<Self> {
        make_directory(path)?;
        let open = |path: &Path, append: bool| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .append(append)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)
        };
        let lines = open(path, true)?;
        let (hashes, mut checkpoint) = (
            open(&hashes_path(path), true)?,
            open(&checkpoint_path(path), false)?,
        );
        let mut sealed = Vec::new();
        checkpoint.read_to_end(&mut sealed)?;
        let sealed = String::from_utf8(sealed).unwrap_or_default();
        // No file has this length, so the file's end is read before the first write.
        Ok(Self {
            lines,
            hashes,
            checkpoint,
            inodes: inodes(path)?,
            length: u64::MAX,
            next: 0,
            sealed,
        })
    }

    /// Returns the index of the next line in the file.
    pub(super) fn find_end(
        &mut self,
        path: &Path,
        lines: &dyn LineSource,
    ) -> Result<u64, AuditError> {
        let length = self
            .lines
            .metadata()
            .map_err(|error| AuditError::Write(path.to_owned(), error))?
            .len();
        if length != self.length {
            self.read_end(path, length, lines)?;
        }
        Ok(self.next)
    }

    /// Appends the lines that the file lacks, and returns their hashes.
    pub(super) fn append_lines(
        &mut self,
        path: &Path,
        lines: &dyn LineSource,
    ) -> Result<Vec<Hash>, AuditError> {
        let mut hashes = Vec::new();
        let mut text = Vec::new();
        loop {
            text.clear();
            let added = lines
                .append_from(self.next, &mut text)
                .map_err(|reason| AuditError::Store(path.to_owned(), reason))?;
            if added == 0 {
                return Ok(hashes);
            }
            self.lines
                .write_all(&text)
                .map_err(|error| AuditError::Write(path.to_owned(), error))?;
            self.length += text.len() as u64;
            self.next += added;
            hashes.extend(leaves(&text));
        }
    }

    /// Appends the hashes of the lines added after the first `before` lines. Rewrites all hashes if
    /// the earlier ones are incomplete.
    pub(super) fn append_hashes(
        &mut self,
        path: &Path,
        lines: &dyn LineSource,
        before: u64,
        added: &[Hash],
    ) -> Result<(), AuditError> {
        let failed = |error| AuditError::Write(path.to_owned(), error);
        if self.hashes.metadata().map_err(failed)?.len() == before * 32 {
            return self.hashes.write_all(added.as_flattened()).map_err(failed);
        }
        self.hashes.set_len(0).map_err(failed)?;
        let (mut next, mut text) = (0, Vec::new());
        while next < self.next {
            text.clear();
            let count = lines
                .append_from(next, &mut text)
                .map_err(|reason| AuditError::Store(path.to_owned(), reason))?;
            let hashes: Vec<Hash> = leaves(&text).collect();
            self.hashes
                .write_all(hashes.as_flattened())
                .map_err(failed)?;
            next += count;
        }
        Ok(())
    }

    /// Overwrites the checkpoint if it differs.
    pub(super) fn seal(&mut self, note: &str) -> io::Result<bool> {
        if self.sealed == note {
            return Ok(false);
        }
        self.checkpoint.write_all_at(note.as_bytes(), 0)?;
        self.checkpoint.set_len(note.len() as u64)?;
        note.clone_into(&mut self.sealed);
        Ok(true)
    }

    /// Finds the last whole line, cuts off what follows, and checks that the line is in the store.
    fn read_end(
        &mut self,
        path: &Path,
        full: u64,
        lines: &dyn LineSource,
    ) -> Result<(), AuditError> {
        let failed = |error| AuditError::Write(path.to_owned(), error);
        let foreign = |why| AuditError::Foreign(path.to_owned(), why);
        let line_at = |index| {
            lines
                .line(index)
                .map_err(|reason| AuditError::Store(path.to_owned(), reason))
        };
        // A power failure can leave any number of zeros in place of bytes that were not synced.
        let length = without_zeros(&self.lines, full).map_err(failed)?;
        let Some(end) = last_lines(&self.lines, length).map_err(failed)? else {
            return Err(foreign("it has a line that is longer than any record"));
        };
        let whole = end
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let torn = (end.len() - whole) as u64;
        self.next = match end[..whole].strip_suffix(b"\n") {
            None => 0,
            Some(text) => {
                let last = text
                    .rsplit(|byte| *byte == b'\n')
                    .next()
                    .unwrap_or_default();
                #[derive(Deserialize)]
                struct Indexed {
                    index: u64,
                }
                let index = serde_json::from_slice::<Indexed>(last)
                    .map_err(|_| foreign("its last line is not a record"))?
                    .index;
                if line_at(index)?.is_none_or(|line| line.as_bytes() != last) {
                    return Err(foreign("its last record is not in the store"));
                }
                index + 1
            }
        };
        if torn > 0 {
            let ours =
                line_at(self.next)?.is_some_and(|line| line.as_bytes().starts_with(&end[whole..]));
            if !ours {
                return Err(foreign("it ends with bytes that are not part of a record"));
            }
        }
        if full > length - torn {
            self.lines.set_len(length - torn).map_err(failed)?;
        }
        self.length = length - torn;
        Ok(())
    }
}

/// Returns the leaf hashes of the lines in `text`.
pub(super) fn leaves(text: &[u8]) -> impl Iterator<Item = Hash> {
    text.split_inclusive(|byte| *byte == b'\n')
        .map(|line| leaf_hash(line.strip_suffix(b"\n").unwrap_or(line)))
}

/// Returns the length of the file without trailing zeros.
fn without_zeros(file: &File, length: u64) -> io::Result<u64> {
    let mut block = [0; 4096];
    let mut end = length;
    while end > 0 {
        let from = end.saturating_sub(block.len() as u64);
        let block = &mut block[..usize::try_from(end - from).unwrap_or(0)];
        file.read_exact_at(block, from)?;
        match block.iter().rposition(|byte| *byte != 0) {
            Some(last) => return Ok(from + last as u64 + 1),
            None => end = from,
        }
    }
    Ok(0)
}

/// Returns the inodes of the three files, so that a rename is noticed.
pub(super) fn inodes(path: &Path) -> io::Result<[u64; 3]> {
    let inode = |path: &Path| fs::metadata(path).map(|known| known.ino());
    Ok([
        inode(path)?,
        inode(&hashes_path(path))?,
        inode(&checkpoint_path(path))?,
    ])
}

/// Returns the end of the first `length` bytes of the file, including its last whole line.
///
/// Returns `None` if that line and what follows exceed [`LONGEST`].
fn last_lines(file: &File, length: u64) -> io::Result<Option<Vec<u8>>> {
    let mut window = ENOUGH;
    loop {
        let from = length.saturating_sub(window);
        let mut end = vec![0; usize::try_from(length - from).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut end, from)?;
        // The window contains the whole last line once it contains the end of the previous line, or
        // the file's start.
        if from == 0 || end.iter().filter(|byte| **byte == b'\n').count() >= 2 {
            return Ok(Some(end));
        }
        if window >= LONGEST {
            return Ok(None);
        }
        window *= 2;
    }
}
