//! The results of a batch: one JSON line for each row, and on the next run only what is missing.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use anyhow::Context;
use guestlane::Opened;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{failure::ErrorJson, screen, session_json::SessionJson};

/// The keys of the rows that are done.
pub(super) type Known = HashSet<String>;

/// Where results go: the file, else (as data) the screen, else nowhere.
pub(super) struct Results {
    file: Option<BufWriter<File>>,
    screen: bool,
    known: Arc<Known>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    session_id: String,
    idempotency_key: String,
}

impl Results {
    /// Keeps of an older file what is done, and lets go of failures and of a line that broke off.
    pub(super) fn open(path: Option<&Path>, json: bool) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self { file: None, screen: json, known: Arc::default() }) };
        let (file, known) =
            continue_file(path).with_context(|| format!("the result file {} cannot be written", path.display()))?;
        Ok(Self { file: Some(file), screen: false, known: Arc::new(known) })
    }

    pub(super) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known)
    }

    pub(super) fn opened(&mut self, opened: &Opened) -> anyhow::Result<()> {
        if self.file.is_none() && !self.screen {
            return Ok(());
        }
        self.line(&SessionJson::opened(opened))
    }

    pub(super) fn failed(&mut self, row: u64, error: &ErrorJson) -> anyhow::Result<()> {
        self.line(&json!({"row": row, "error": error}))
    }

    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.flush().context("the result file cannot be written"))
    }

    fn line(&mut self, line: &impl Serialize) -> anyhow::Result<()> {
        if let Some(file) = &mut self.file {
            serde_json::to_writer(&mut *file, line)?;
            file.write_all(b"\n").context("the result file cannot be written")?;
        } else if self.screen {
            screen::json(line);
        }
        Ok(())
    }
}

/// The new file takes the old one's place only when it is whole. It holds guest tokens: its owner alone may read it.
fn continue_file(path: &Path) -> io::Result<(BufWriter<File>, Known)> {
    let draft = path.with_extension("draft");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    let mut file = BufWriter::new(file);
    let mut known = Known::new();
    match File::open(path) {
        Ok(old) => {
            for line in BufReader::new(old).lines() {
                let line = line?;
                if let Ok(done) = serde_json::from_str::<Done>(&line)
                    && !done.session_id.is_empty()
                    && known.insert(done.idempotency_key)
                {
                    writeln!(file, "{line}")?;
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    file.flush()?;
    fs::rename(&draft, path)?;
    Ok((file, known))
}
