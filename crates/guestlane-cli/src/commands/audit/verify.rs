//! Verification of the audit logs, with and without the store.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use guestlane::Workspace;
use guestlane_core::request::ValidationError;
use guestlane_runtime::{Clock, text::without_bom_str};
use guestlane_tlog::{self, Checkpoint, Tampered, VerificationError, VerifierKey};
use serde_json::json;

use super::{super::open_state_read_only, key};
use crate::{args::Global, output, settings};

pub(super) async fn verify(
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
                print_verified(global, path, &checkpoint);
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
            Ok(checkpoint) => print_verified(global, &log.path, &checkpoint),
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

fn print_verified(global: &Global, path: &Path, checkpoint: &Checkpoint) {
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
