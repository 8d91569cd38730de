//! `guestlane audit`: shows audit records, verifies and rebuilds the audit log, and proves
//! inclusion of records.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use guestlane::Workspace;
use guestlane_core::{
    audit::ChangeAction,
    request::{GuestId, ValidationError},
    session_proof::SessionProof,
};
use guestlane_runtime::Clock;
use guestlane_runtime::text::without_bom_str;
use guestlane_store::{RecordFilter, RestoreOutcome, StoredRecord};
use guestlane_tlog::{self, Checkpoint, Tampered, VerificationError, VerifierKey};
use serde_json::{Value, json};

use super::open_state_read_only;
use crate::{
    args::{Audit, Global},
    output, settings,
};

pub(crate) async fn run(global: &Global, args: &Audit) -> anyhow::Result<ExitCode> {
    match args {
        Audit::Show {
            session,
            guest,
            limit,
        } => show(global, session.as_deref(), guest.as_deref(), *limit).await,
        Audit::Verify {
            proof: Some(proof),
            key,
            ..
        } => verify_proof(global, proof, key.as_deref()).await,
        Audit::Verify {
            files,
            key,
            checkpoint,
            ..
        } => verify(global, files, key.as_deref(), checkpoint).await,
        Audit::Prove { session } => prove(global, session).await,
        Audit::Key => {
            output::stdout_line(open_state_read_only(global).await?.audit_key());
            Ok(ExitCode::SUCCESS)
        }
        Audit::Rebuild { log } => restore(global, *log).await,
    }
}

async fn show(
    global: &Global,
    session: Option<&str>,
    guest: Option<&str>,
    limit: u32,
) -> anyhow::Result<ExitCode> {
    let guest = guest.map(GuestId::recorded).transpose()?;
    let filter = RecordFilter {
        session: session.map(str::parse).transpose()?,
        guest,
        limit,
    };
    let records = open_state_read_only(global)
        .await?
        .store
        .records(filter)
        .await?;
    if global.json {
        records
            .iter()
            .for_each(|record| output::stdout_line(&record.line));
    } else if records.is_empty() {
        output::stderr_line("No matching records.");
    } else {
        let row = |record: &StoredRecord| {
            let line: Value = serde_json::from_str(&record.line).unwrap_or_default();
            let text = |name: &str| match &line[name] {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            let place = format!("{}/{}", record.log, record.index);
            let told = [
                "timestamp",
                "action",
                "status",
                "guestIdentifier",
                "sessionId",
                "error",
            ]
            .map(text);
            std::iter::once(place).chain(told).collect()
        };
        let headings = [
            "record", "time", "action", "status", "guest", "session", "error",
        ];
        output::stdout_line(output::table(&headings, records.iter().map(row)));
    }
    Ok(ExitCode::SUCCESS)
}

async fn prove(global: &Global, session: &str) -> anyhow::Result<ExitCode> {
    let unknown = || {
        ValidationError::new(
            "SESSION",
            "has no record in the audit log",
            "see `guestlane sessions list`",
        )
    };
    let proof = open_state_read_only(global)
        .await?
        .prove_inclusion(session.parse()?)
        .await?
        .ok_or_else(unknown)?;
    output::json(&proof);
    Ok(ExitCode::SUCCESS)
}

/// The verifier key that was given, as text or as a file, else that of the state directory.
async fn key(global: &Global, given: Option<&str>) -> anyhow::Result<VerifierKey> {
    let Some(given) = given else {
        return Ok(open_state_read_only(global).await?.audit_key().clone());
    };
    let is_file = Path::new(given).is_file();
    let text = if is_file {
        fs::read_to_string(given)?
    } else {
        given.to_owned()
    };
    let invalid = |_| {
        let reason = if is_file {
            format!("the file {given} contains no verifier key")
        } else {
            format!(
                "`{}` is neither a verifier key nor an existing file",
                output::printable(given)
            )
        };
        ValidationError::new(
            "--key",
            reason,
            "give the output of `guestlane audit key`, or a file that contains it",
        )
    };
    Ok(without_bom_str(&text).parse().map_err(invalid)?)
}

/// Rebuilds the files of a log from the store.
async fn restore(global: &Global, log: u32) -> anyhow::Result<ExitCode> {
    let refused = |reason: String, fix: &str| Err(ValidationError::new("LOG", reason, fix).into());
    let store = open_state_read_only(global).await?.store;
    match store.restore_log(log).await? {
        RestoreOutcome::Restored { path, records } => {
            store
                .record_change(
                    ChangeAction::AuditLogRestored,
                    log.to_string(),
                    store.clock().now(),
                )
                .await?;
            if global.json {
                output::json(&json!({"file": path, "records": records}));
            } else {
                output::stdout_line(format!(
                    "{}: {}, rebuilt from the store",
                    path.display(),
                    output::count(records, "record")
                ));
            }
            Ok(ExitCode::SUCCESS)
        }
        RestoreOutcome::Unknown => refused(
            format!("{log} is not a log of this store"),
            "`guestlane audit verify` lists them",
        ),
        RestoreOutcome::FileExists(file) => refused(
            format!("{log} cannot be written: {} exists", file.display()),
            "move the file and its companions away, as they may be evidence; then run the command \
             again",
        ),
        RestoreOutcome::Busy => refused(
            format!("{log} is being written by another process"),
            "wait until that process has ended",
        ),
        RestoreOutcome::Failed(error) => Err(anyhow::Error::new(guestlane::Error::Audit(error))),
    }
}

async fn verify_proof(
    global: &Global,
    file: &Path,
    given: Option<&str>,
) -> anyhow::Result<ExitCode> {
    let key = key(global, given).await?;
    let refuse = |reason: String| {
        ValidationError::new(
            format!("--proof {}", file.display()),
            reason,
            "give a file with the output of `guestlane audit prove`",
        )
    };
    let text =
        fs::read_to_string(file).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    let proof: SessionProof = serde_json::from_str(without_bom_str(&text))
        .map_err(|error| refuse(format!("is not a proof: {error}")))?;
    match proof.verify(&key) {
        Ok(places) => {
            for (record, (index, checkpoint)) in proof.records.iter().zip(places) {
                if global.json {
                    let place = json!({"origin": checkpoint.origin, "index": index, "records": checkpoint.size, "line": record.line, "proven": true});
                    output::json(&place);
                } else {
                    output::stdout_line(format!(
                        "record {index} of {}: proven\n  {}",
                        checkpoint.origin,
                        output::printable(&record.line)
                    ));
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Err((number, invalid)) => {
            if global.json {
                output::json(
                    &json!({"record": number, "proven": false, "problem": invalid.to_string()}),
                );
            }
            output::stderr_line(format!(
                "error: record {number} of the proof is not proven: {invalid}"
            ));
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn verify(
    global: &Global,
    files: &[PathBuf],
    given: Option<&str>,
    kept: &[PathBuf],
) -> anyhow::Result<ExitCode> {
    // A shell pattern may also match the files beside a log: its checkpoint and its hashes.
    let is_companion = |path: &&PathBuf| {
        ["checkpoint", "hashes"]
            .iter()
            .any(|ending| path.extension().is_some_and(|have| have == *ending))
    };
    let named: Vec<&PathBuf> = files.iter().filter(|path| !is_companion(path)).collect();
    if let Some(missing) = named.iter().find(|path| !path.is_file()) {
        let reason = format!("{} is not a file", missing.display());
        return Err(ValidationError::new(
            "FILE",
            reason,
            "name log files, like audit/session-audit.jsonl",
        )
        .into());
    }
    // Without file arguments, the logs of the state directory are verified.
    let state = if files.is_empty() {
        Some(open_state_read_only(global).await?)
    } else {
        None
    };
    let key = match (&state, given) {
        (Some(state), None) => state.audit_key().clone(),
        _ => key(global, given).await?,
    };
    let mut checkpoints = Vec::new();
    for path in kept {
        let refuse = |reason| {
            ValidationError::new(
                format!("--checkpoint {}", path.display()),
                reason,
                "give an unmodified checkpoint of this log",
            )
        };
        let note =
            fs::read_to_string(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
        checkpoints.push(
            Checkpoint::open(without_bom_str(&note), &key)
                .map_err(|error| refuse(error.to_string()))?,
        );
    }
    match state {
        Some(state) => verify_ours(global, &state, checkpoints, &key).await,
        None => verify_files(global, &named, checkpoints, &key).await,
    }
}

/// Verifies log files with a verifier key alone, without a store.
async fn verify_files(
    global: &Global,
    files: &[&PathBuf],
    mut kept: Vec<Checkpoint>,
    key: &VerifierKey,
) -> anyhow::Result<ExitCode> {
    // Each log contains the last checkpoints of the logs before it.
    kept.extend(
        files
            .iter()
            .flat_map(|path| guestlane_tlog::rotation_checkpoints(path, key)),
    );
    let mut origins = Vec::new();
    let mut good = true;
    for path in files {
        match guestlane_store::retry_while_growing(&Clock::system(), async || {
            guestlane_tlog::verify_log(path, key, &kept)
        })
        .await
        {
            Ok(checkpoint) => {
                tell(global, path, &checkpoint);
                origins.push(checkpoint.origin);
            }
            Err(unproven) => {
                good = false;
                tell_unproven(global, path, &unproven);
            }
        }
    }
    let absent: BTreeSet<_> = kept
        .iter()
        .map(|checkpoint| &checkpoint.origin)
        .filter(|origin| !origins.contains(origin))
        .collect();
    if good {
        absent.iter().for_each(|origin| {
            output::stderr_line(format!(
                "note: the log {origin} is known but was not given, so it was not verified"
            ))
        });
    }
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Verifies all logs of this state directory against the store that wrote them.
async fn verify_ours(
    global: &Global,
    state: &Workspace,
    kept: Vec<Checkpoint>,
    key: &VerifierKey,
) -> anyhow::Result<ExitCode> {
    let first = settings::load(global)?.storage()?.audit.path;
    let checked = guestlane_store::verify_all(&state.store, &first, key, kept, &Clock::system())
        .await
        .context("the store cannot be read")?;
    if checked.is_empty() {
        output::stderr_line("No records exist yet.");
    }
    if checked
        .iter()
        .filter(|(log, _)| !log.closed && !log.other_node)
        .count()
        > 1
    {
        output::stderr_line(
            "note: there are several logs, because processes that write at the same time have \
             separate logs",
        );
    }
    let mut good = true;
    for (log, proven) in checked {
        match proven {
            Ok(checkpoint) if log.other_node => tell_elsewhere(global, &checkpoint),
            Ok(checkpoint) => tell(global, &log.path, &checkpoint),
            Err(unproven) => {
                good = false;
                tell_unproven(global, &log.path, &unproven);
                if !log.path.exists() {
                    let whole = if log.closed {
                        " It was full and may be archived: give the archived files."
                    } else {
                        ""
                    };
                    output::stderr_line(format!(
                        "  The file does not exist.{whole} `guestlane audit rebuild {}` rebuilds \
                         it from the store.",
                        log.log
                    ));
                }
            }
        }
    }
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn tell(global: &Global, path: &Path, checkpoint: &Checkpoint) {
    let (origin, records, root) = (
        &checkpoint.origin,
        checkpoint.size,
        checkpoint.root_base64(),
    );
    if global.json {
        output::json(
            &json!({"file": path, "proven": true, "origin": origin, "records": records, "root": root}),
        );
    } else {
        let records = output::count(records, "record");
        output::stdout_line(format!(
            "{}: {records}, as they were written\n  log {origin}, root {root}",
            path.display()
        ));
    }
}

/// Reports a log whose files are on another machine: only its records in the database were
/// verified.
fn tell_elsewhere(global: &Global, checkpoint: &Checkpoint) {
    let (origin, records, root) = (
        &checkpoint.origin,
        checkpoint.size,
        checkpoint.root_base64(),
    );
    if global.json {
        output::json(
            &json!({"file": null, "proven": true, "origin": origin, "records": records, "root": root}),
        );
    } else {
        let records = output::count(records, "record");
        output::stdout_line(format!(
            "in the database: {records}, as they were signed; the files are on another machine\n  log {origin}, root {root}"
        ));
    }
}

fn tell_unproven(global: &Global, path: &Path, unproven: &VerificationError) {
    let problem = guestlane_runtime::text::display_chain(unproven);
    let line = match unproven {
        VerificationError::Tampered(_, tampered) => Some(tampered.line()),
        VerificationError::LogTruncated { has, .. } => Some(has + 1),
        VerificationError::Read(..)
        | VerificationError::NoCheckpoint(_)
        | VerificationError::Checkpoint(..)
        | VerificationError::WrongLog { .. }
        | VerificationError::Diverged(_)
        | VerificationError::Store(_) => None,
    };
    if global.json {
        output::json(&json!({"file": path, "proven": false, "line": line, "problem": problem}));
    }
    output::stderr_line(format!("error: {problem}"));
    match unproven {
        VerificationError::Tampered(_, Tampered::Unsigned { .. }) => output::stderr_line(
            "  The record was added by another program, or a process was killed or ran out of \
             disk space before it signed the record. In the second case, the next `create` or \
             `batch` signs it. If that reports that the log does not belong to this store, move \
             the file away.",
        ),
        VerificationError::LogTruncated { .. } => {
            output::stderr_line(
                "  The next `create`, `batch` or `sessions resume` writes the missing records and \
                 reports it. If the files may be evidence, copy them first.",
            );
        }
        _ => {}
    }
}
