//! The results of a batch, one JSON line per row. A later run with the same file completes only
//! what is missing.

use std::{
    collections::HashSet,
    fs::{self, File},
    hash::{BuildHasher, RandomState},
    io::{self, BufRead, BufReader, BufWriter, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use guestlane::CreatedSession;
use guestlane_core::request::{SessionRequest, ValidationError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tempfile::NamedTempFile;

use super::rows::Place;
use guestlane_server::model::Session as SessionJson;

use crate::{output, report::ErrorJson};

/// The rows that are done. A file may have millions of rows, so only a hash of each is kept.
#[derive(Debug, Default)]
pub(super) struct Known {
    done: HashSet<u64>,
    hash: RandomState,
}

impl Known {
    /// Whether the result file says that this request is done.
    pub(super) fn has(&self, request: &SessionRequest) -> bool {
        !self.done.is_empty()
            && self.done.contains(&self.row_hash(
                request.key.as_str(),
                request.guest.as_str(),
                &request.queue.to_string(),
            ))
    }

    /// Hashes key, guest and queue. A collision of 64 bits is very rare. It never skips a row whose
    /// key the store knows: such a row takes the normal path.
    fn row_hash(&self, key: &str, guest: &str, queue: &str) -> u64 {
        self.hash.hash_one((key, guest, queue))
    }
}

/// Where results go: to the file, else to stdout with `--json`, else nowhere.
pub(super) struct Results {
    file: Option<BufWriter<File>>,
    screen: bool,
    known: Arc<Known>,
}

/// A line of an earlier run.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    #[serde(rename_all = "camelCase")]
    Done {
        session_id: String,
        guest_id: String,
        queue_id: String,
        idempotency_key: String,
    },
    Failed {
        #[serde(rename = "row")]
        _row: u64,
        #[serde(rename = "error")]
        _error: serde::de::IgnoredAny,
    },
}

impl Results {
    /// Opens the result file. It keeps the completed rows of an earlier run, and drops failures and
    /// a truncated last line.
    ///
    /// # Errors
    /// The file cannot be written, or is not a result file.
    pub(super) fn open(path: Option<&Path>, input: &Path, json: bool) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self {
                file: None,
                screen: json,
                known: Arc::default(),
            });
        };
        let (file, known) = continue_file(path, input)?;
        Ok(Self {
            file: Some(BufWriter::new(file)),
            screen: false,
            known: Arc::new(known),
        })
    }

    pub(super) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known)
    }

    pub(super) fn opened(&mut self, place: Place, opened: &CreatedSession) -> anyhow::Result<()> {
        if (self.file.is_none() && !self.screen) || self.known.has(&opened.session.request) {
            return Ok(());
        }
        self.line(&SessionJson::opened(opened).of_row(place.row()))
    }

    pub(super) fn failed(&mut self, place: Place, error: &ErrorJson) -> anyhow::Result<()> {
        self.line(&place.with(json!({"error": error})))
    }

    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| {
            file.flush().context("the result file cannot be written")
        })
    }

    fn line(&mut self, line: &impl Serialize) -> anyhow::Result<()> {
        if let Some(file) = &mut self.file {
            serde_json::to_writer(&mut *file, line)?;
            file.write_all(b"\n")
                .context("the result file cannot be written")?;
        } else if self.screen {
            output::json(line);
        }
        Ok(())
    }
}

fn invalid(path: &Path, reason: impl std::fmt::Display, fix: &str) -> ValidationError {
    ValidationError::new("--output", format!("{} {reason}", path.display()), fix)
}

/// Writes a copy and renames it, so that the old file is replaced only when its rows are complete
/// in the new one. The file contains guest tokens, so only its owner can read it.
fn continue_file(path: &Path, input: &Path) -> Result<(File, Known), ValidationError> {
    let unwritable = |error: io::Error| {
        invalid(
            path,
            format!("cannot be written: {error}"),
            "name a file in a writable directory",
        )
    };
    let directory = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
        .map_or_else(|| PathBuf::from("."), Path::to_owned);
    let mut draft = NamedTempFile::new_in(directory).map_err(unwritable)?;
    draft.as_file().lock().map_err(unwritable)?;
    let mut known = Known::default();
    match File::open(path) {
        Ok(old) => {
            check(&old, path, input)?;
            keep(old, path, draft.as_file_mut(), &mut known)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(invalid(
                path,
                format!("cannot be read: {error}"),
                "name a readable file",
            ));
        }
    }
    let file = draft
        .persist(path)
        .map_err(|error| unwritable(error.error))?;
    Ok((file, known))
}

/// Checks that an existing file is a regular file, not the input, and not in use by another batch.
fn check(old: &File, path: &Path, input: &Path) -> Result<(), ValidationError> {
    let metadata = old
        .metadata()
        .map_err(|error| invalid(path, error, "name a readable file"))?;
    if !metadata.is_file() {
        return Err(invalid(
            path,
            "is not a regular file",
            "name a file, or omit --output and use --json",
        ));
    }
    let same = fs::metadata(input)
        .is_ok_and(|input| (input.dev(), input.ino()) == (metadata.dev(), metadata.ino()));
    if same {
        return Err(invalid(path, "is the input file", "name another file"));
    }
    old.try_lock().map_err(|_| {
        invalid(
            path,
            "is being written by another batch",
            "wait until that batch has ended",
        )
    })
}

fn keep(old: File, path: &Path, new: &mut File, known: &mut Known) -> Result<(), ValidationError> {
    let failed = |error: io::Error| {
        invalid(
            path,
            format!("cannot be copied: {error}"),
            "free disk space",
        )
    };
    let mut new = BufWriter::new(new);
    let mut lines = BufReader::new(old).split(b'\n').peekable();
    while let Some(line) = lines.next() {
        let line = line.map_err(failed)?;
        match serde_json::from_slice(&line) {
            Ok(Line::Done {
                session_id,
                guest_id,
                queue_id,
                idempotency_key,
            }) if !session_id.is_empty() => {
                if known
                    .done
                    .insert(known.row_hash(&idempotency_key, &guest_id, &queue_id))
                {
                    new.write_all(&line)
                        .and_then(|()| new.write_all(b"\n"))
                        .map_err(failed)?;
                }
            }
            Ok(_) => {}
            // The last line may be truncated if the batch was killed.
            Err(_) if lines.peek().is_none() => {}
            Err(_) => {
                return Err(invalid(
                    path,
                    "is not a result file of a batch and would be overwritten",
                    "name another file",
                ));
            }
        }
    }
    new.flush().map_err(failed)
}
