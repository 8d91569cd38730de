//! The audit log as a file: `session-audit.jsonl`, one line per record.
//!
//! The store is where a record is safe; this file is where people and programs read it. After each commit the file is brought up to the
//! store, whoever wrote last and wherever it stopped: a line that broke off is cut away and written again.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// The audit log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file system's reason.
    #[error("the audit log {} cannot be written", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// The store could not be read.
    #[error("the audit log {} cannot be brought up to the store: {}", .0.display(), .1)]
    Store(PathBuf, String),
    /// The file is not what this store wrote.
    #[error("the audit log {} is not this store's: {}", .0.display(), .1)]
    Foreign(PathBuf, &'static str),
}

/// What the file is brought up to: the lines of a store, by index.
pub trait Lines {
    /// The line at `index`.
    fn line(&self, index: u64) -> Result<Option<String>, String>;

    /// Adds the lines from `index` on, each with its end, and says how many there were.
    fn append_from(&self, index: u64, text: &mut Vec<u8>) -> Result<u64, String>;
}

/// The file, and what we know of its end.
#[derive(Debug)]
pub struct AuditFile {
    path: PathBuf,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    inode: u64,
    length: u64,
    /// The index that comes next.
    next: u64,
}

impl AuditFile {
    /// Touches nothing yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Brings the file up to the store. Several processes may do so at once.
    pub fn catch_up(&mut self, lines: &dyn Lines) -> Result<(), AuditError> {
        let caught_up = self.try_catch_up(lines);
        if caught_up.is_err() {
            self.open = None; // whatever we believed of its end, we look again
        }
        caught_up
    }

    fn try_catch_up(&mut self, lines: &dyn Lines) -> Result<(), AuditError> {
        let path = &self.path;
        let failed = |error| AuditError::Write(path.clone(), error);
        let known = match self.open.take() {
            Some(open) if fs::metadata(path).is_ok_and(|now| now.ino() == open.inode) => Some(open),
            _ => None, // never opened, or moved away under us
        };
        let mut open = match known {
            Some(open) => open,
            None => Open::new(path).map_err(failed)?,
        };
        open.file.lock().map_err(failed)?;
        let written = open.write(path, lines);
        open.file.unlock().map_err(failed)?;
        written?;
        self.open = Some(open);
        Ok(())
    }
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let inode = file.metadata()?.ino();
        // A length that no file has: the end is read before the first write.
        Ok(Self { file, inode, length: u64::MAX, next: 0 })
    }

    fn write(&mut self, path: &Path, lines: &dyn Lines) -> Result<(), AuditError> {
        let failed = |error| AuditError::Write(path.to_owned(), error);
        if self.file.metadata().map_err(failed)?.len() != self.length {
            self.read_end(path, lines)?;
        }
        let mut text = Vec::new();
        let added = lines.append_from(self.next, &mut text).map_err(|reason| AuditError::Store(path.to_owned(), reason))?;
        self.file.write_all(&text).map_err(failed)?;
        self.length += text.len() as u64;
        self.next += added;
        Ok(())
    }

    /// Finds the last whole line, cuts away what follows it, and makes sure that the line is the store's.
    fn read_end(&mut self, path: &Path, lines: &dyn Lines) -> Result<(), AuditError> {
        let failed = |error| AuditError::Write(path.to_owned(), error);
        let foreign = |why| AuditError::Foreign(path.to_owned(), why);
        let line_at = |index| lines.line(index).map_err(|reason| AuditError::Store(path.to_owned(), reason));
        let length = self.file.metadata().map_err(failed)?.len();
        let end = last_lines(&mut self.file, length).map_err(failed)?;
        let whole = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let torn = (end.len() - whole) as u64;
        if whole == 0 && length > torn {
            return Err(foreign("it has a line longer than any of ours"));
        }
        self.next = match end[..whole].strip_suffix(b"\n") {
            None => 0,
            Some(text) => {
                let last = text.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
                #[derive(Deserialize)]
                struct Indexed {
                    index: u64,
                }
                let index = serde_json::from_slice::<Indexed>(last).map_err(|_| foreign("its last line is no record"))?.index;
                if line_at(index)?.is_none_or(|line| line.as_bytes() != last) {
                    return Err(foreign("its last record is not in the store"));
                }
                index + 1
            }
        };
        if torn > 0 {
            let ours = line_at(self.next)?.is_some_and(|line| line.as_bytes().starts_with(&end[whole..]));
            if !ours {
                return Err(foreign("it ends in something that is no part of a record"));
            }
            self.file.set_len(length - torn).map_err(failed)?;
        }
        self.length = length - torn;
        Ok(())
    }
}

/// The end of the file: far more than a record has.
fn last_lines(file: &mut File, length: u64) -> io::Result<Vec<u8>> {
    const ENOUGH: u64 = 64 * 1024;
    file.seek(SeekFrom::Start(length.saturating_sub(ENOUGH)))?;
    let mut end = Vec::new();
    file.take(ENOUGH).read_to_end(&mut end)?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Store(Vec<String>);

    impl Store {
        fn of(count: usize) -> Self {
            Self((0..count).map(|index| format!(r#"{{"index":{index},"x":"{}"}}"#, "y".repeat(index % 7))).collect())
        }

        fn text(&self) -> String {
            self.0.iter().map(|line| format!("{line}\n")).collect()
        }
    }

    impl Lines for Store {
        fn line(&self, index: u64) -> Result<Option<String>, String> {
            Ok(self.0.get(index as usize).cloned())
        }

        fn append_from(&self, index: u64, text: &mut Vec<u8>) -> Result<u64, String> {
            let lines = self.0.get(index as usize..).unwrap_or_default();
            lines.iter().for_each(|line| text.extend_from_slice(format!("{line}\n").as_bytes()));
            Ok(lines.len() as u64)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Wherever a process died while it wrote, the next one leaves the file whole.
        #[test]
        fn a_file_cut_anywhere_is_made_whole_again(before in 0_usize..6, more in 0_usize..4, cut in 0.0_f64..1.0) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("audit/log.jsonl");
            AuditFile::new(path.clone()).catch_up(&Store::of(before)).unwrap();
            let length = fs::metadata(&path).unwrap().len();
            OpenOptions::new().write(true).open(&path).unwrap().set_len((length as f64 * cut) as u64).unwrap();
            let store = Store::of(before + more);
            AuditFile::new(path.clone()).catch_up(&store).unwrap();
            prop_assert_eq!(fs::read_to_string(&path).unwrap(), store.text());
        }
    }

    #[test]
    fn two_processes_write_each_record_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.jsonl");
        let (mut one, mut two) = (AuditFile::new(path.clone()), AuditFile::new(path.clone()));
        for count in 0..20 {
            one.catch_up(&Store::of(count)).unwrap();
            two.catch_up(&Store::of(count + 1)).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), Store::of(20).text());
    }

    #[test]
    fn a_file_that_is_not_this_stores_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.jsonl");
        for content in ["not json", "not json\n", "{\"index\":0,\"of\":\"another store\"}\n", "{\"index\":99}\n"] {
            fs::write(&path, content).unwrap();
            let refused = AuditFile::new(path.clone()).catch_up(&Store::of(3));
            assert!(matches!(refused, Err(AuditError::Foreign(..))), "{content}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_file_that_was_moved_away_is_begun_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.jsonl");
        let mut file = AuditFile::new(path.clone());
        file.catch_up(&Store::of(2)).unwrap();
        fs::rename(&path, directory.path().join("old.jsonl")).unwrap();
        file.catch_up(&Store::of(3)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), Store::of(3).text());
    }
}
