//! `guestlane audit`: shows audit records, verifies and rebuilds the audit log, and proves
//! inclusion of records.

mod verify;

use std::{fs, path::Path, process::ExitCode};

use guestlane_core::{
    audit::ChangeAction,
    request::{GuestId, ValidationError},
    session_proof::SessionProof,
};
use guestlane_runtime::text::without_bom_str;
use guestlane_store::{RecordFilter, RestoreOutcome, StoredRecord};
use guestlane_tlog::{self, VerifierKey};
use serde_json::{Value, json};
use verify::verify;

use super::open_state_read_only;
use crate::{
    args::{Audit, Global},
    output,
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
