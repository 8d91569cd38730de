//! `guestlane audit`: what happened, and proof of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use guestlane::{
    Clock, State,
    audit::{self, Checkpoint, Tampered, Unproven, VerifierKey, proof::SessionProof},
    request::{GuestId, Invalid},
    store::{RecordFilter, StoredRecord},
};
use serde_json::{Value, json};

use super::open_state;
use crate::{
    args::{Audit, Global},
    screen, settings,
};

pub(crate) async fn run(global: &Global, args: &Audit) -> anyhow::Result<ExitCode> {
    match args {
        Audit::Show { session, guest, limit } => show(global, session.as_deref(), guest.as_deref(), *limit).await,
        Audit::Verify { proof: Some(proof), key, .. } => verify_proof(global, proof, key.as_deref()).await,
        Audit::Verify { files, key, checkpoint, .. } => verify(global, files, key.as_deref(), checkpoint).await,
        Audit::Prove { session } => prove(global, session).await,
        Audit::Key => {
            screen::data(open_state(global).await?.audit_key());
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn show(global: &Global, session: Option<&str>, guest: Option<&str>, limit: u32) -> anyhow::Result<ExitCode> {
    let guest: Option<GuestId> = guest.map(str::parse).transpose()?;
    let filter = RecordFilter { session: session.map(str::parse).transpose()?, guest, limit };
    let records = open_state(global).await?.store.records(filter).await?;
    if global.json {
        records.iter().for_each(|record| screen::data(&record.line));
    } else if records.is_empty() {
        screen::note("There are no such records.");
    } else {
        let row = |record: &StoredRecord| {
            let line: Value = serde_json::from_str(&record.line).unwrap_or_default();
            let text = |name: &str| match &line[name] {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            let place = format!("{}/{}", record.log, record.index);
            let told = ["timestamp", "action", "status", "guestIdentifier", "conversationId", "error"].map(text);
            std::iter::once(place).chain(told).collect()
        };
        let headings = ["record", "time", "action", "status", "guest", "conversation", "error"];
        screen::data(screen::table(&headings, records.iter().map(row)));
    }
    Ok(ExitCode::SUCCESS)
}

async fn prove(global: &Global, session: &str) -> anyhow::Result<ExitCode> {
    let unknown = || Invalid::new("SESSION", "the log has no record of it", "see `guestlane sessions list`");
    let proof = open_state(global).await?.prove(session.parse()?).await?.ok_or_else(unknown)?;
    screen::json(&proof);
    Ok(ExitCode::SUCCESS)
}

/// The key that was given, as itself or in a file; else the state directory's.
async fn key(global: &Global, given: Option<&str>) -> anyhow::Result<VerifierKey> {
    let Some(given) = given else { return Ok(open_state(global).await?.audit_key().clone()) };
    let text = if Path::new(given).is_file() { fs::read_to_string(given)? } else { given.to_owned() };
    Ok(text.parse().map_err(|error| Invalid::new("--key", format!("{error}"), "give it as `guestlane audit key` prints it"))?)
}

async fn verify_proof(global: &Global, file: &Path, given: Option<&str>) -> anyhow::Result<ExitCode> {
    let key = key(global, given).await?;
    let refuse = |reason: String| {
        Invalid::new(format!("--proof {}", file.display()), reason, "give a file that `guestlane audit prove` printed")
    };
    let text = fs::read_to_string(file).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    let proof: SessionProof = serde_json::from_str(&text).map_err(|error| refuse(format!("is no proof: {error}")))?;
    match proof.verify(&key) {
        Ok(places) => {
            for (record, (index, checkpoint)) in proof.records.iter().zip(places) {
                if global.json {
                    let place = json!({"origin": checkpoint.origin, "index": index, "records": checkpoint.size, "proven": true});
                    screen::json(&place);
                } else {
                    screen::data(format!(
                        "record {index} of {}: proven\n  {}",
                        checkpoint.origin,
                        screen::printable(&record.line)
                    ));
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Err((number, invalid)) => {
            if global.json {
                screen::json(&json!({"record": number, "proven": false, "problem": invalid.to_string()}));
            }
            screen::note(format!("error: record {number} of the proof proves nothing: {invalid}"));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// A log to be checked, and what this machine's store knows of it.
struct Log {
    path: PathBuf,
    known: Option<Checkpoint>,
    /// It is full: somebody may have put it into an archive.
    closed: bool,
}

async fn verify(global: &Global, files: &[PathBuf], given: Option<&str>, kept: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let key = key(global, given).await?;
    let mut checkpoints = Vec::new();
    for path in kept {
        let refuse =
            |reason| Invalid::new(format!("--checkpoint {}", path.display()), reason, "give a checkpoint of this log, unchanged");
        let note = fs::read_to_string(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
        checkpoints.push(Checkpoint::open(&note, &key).map_err(|error| refuse(error.to_string()))?);
    }
    let mut logs: Vec<_> = files.iter().map(|path| Log { path: path.clone(), known: None, closed: false }).collect();
    if files.is_empty() {
        logs = logs_of(global, &open_state(global).await?).await?;
    }
    if logs.is_empty() {
        screen::note("There are no records yet.");
    }
    // Each log knows how those before it ended.
    checkpoints.extend(logs.iter().flat_map(|log| audit::continued(&log.path, &key)));
    checkpoints.extend(logs.iter().filter_map(|log| log.known.clone()));

    let mut origins = Vec::new();
    let mut good = true;
    for log in &logs {
        match check(log, &key, &checkpoints).await {
            Ok(checkpoint) => {
                tell(global, &log.path, &checkpoint);
                origins.push(checkpoint.origin);
            }
            Err(Unproven::Read(path, error)) if log.closed && error.kind() == std::io::ErrorKind::NotFound => {
                screen::note(format!(
                    "note: {} is full and is not here any more: give the file from its archive to check it",
                    path.display()
                ));
                origins.extend(log.known.iter().map(|known| known.origin.clone()));
            }
            Err(unproven) => {
                good = false;
                tell_unproven(global, &log.path, &unproven);
            }
        }
    }
    let absent: std::collections::BTreeSet<_> =
        checkpoints.iter().map(|checkpoint| &checkpoint.origin).filter(|origin| !origins.contains(origin)).collect();
    if good {
        for origin in absent {
            screen::note(format!("note: the log {origin} is known, and was not given: it was not checked"));
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn logs_of(global: &Global, state: &State) -> anyhow::Result<Vec<Log>> {
    let first = settings::load(global)?.places()?.audit.path;
    let logs = state.store.logs(&first, state.audit_key()).await.context("the store cannot be read")?;
    Ok(logs.into_iter().map(|log| Log { path: log.path, known: Some(log.checkpoint), closed: log.closed }).collect())
}

/// A log that is being written may be ahead of its checkpoint for a moment: then it is looked at again.
async fn check(log: &Log, key: &VerifierKey, kept: &[Checkpoint]) -> Result<Checkpoint, Unproven> {
    const LOOKS: u32 = 5;
    let mut looks = 1;
    loop {
        match audit::check(&log.path, key, kept) {
            Err(Unproven::Tampered(_, Tampered::Missing { .. } | Tampered::Unsigned { .. } | Tampered::Torn { .. }))
                if looks < LOOKS =>
            {
                looks += 1;
                Clock::system().sleep(Duration::from_millis(50)).await;
            }
            checked => return checked,
        }
    }
}

fn tell(global: &Global, path: &Path, checkpoint: &Checkpoint) {
    let (origin, records, root) = (&checkpoint.origin, checkpoint.size, checkpoint.root_base64());
    if global.json {
        screen::json(&json!({"file": path, "proven": true, "origin": origin, "records": records, "root": root}));
    } else {
        let records = screen::count(records, "record");
        screen::data(format!("{}: {records}, as they were written\n  log {origin}, root {root}", path.display()));
    }
}

fn tell_unproven(global: &Global, path: &Path, unproven: &Unproven) {
    let problem = guestlane::error::chain(unproven);
    let line = match unproven {
        Unproven::Tampered(_, tampered) => Some(tampered.line()),
        Unproven::Read(..) | Unproven::NoCheckpoint(_) | Unproven::Checkpoint(..) => None,
    };
    if global.json {
        screen::json(&json!({"file": path, "proven": false, "line": line, "problem": problem}));
    }
    screen::note(format!("error: {problem}"));
    if let Unproven::Tampered(_, Tampered::Unsigned { .. }) = unproven {
        screen::note(
            "  Somebody added it, or a process was killed before it signed: then the next start of guestlane with this state directory signs it.",
        );
    }
}
