//! `guestlane batch enqueue FILE`, `status`, `results` and `cancel`: batches in the database, which
//! workers process.

use std::{path::Path, process::ExitCode};

use guestlane::{Workspace, messaging};
use guestlane_cli::config::{DATABASE_URL, Settings};
use guestlane_core::request::ValidationError;
use guestlane_runtime::Clock;
use guestlane_server::{diagnosis, model::Session as SessionJson};
use guestlane_store::batch::{BatchId, BatchStatus, NewRow, RowFailure, RowResult};
use serde_json::json;
use uuid::Uuid;

use super::rows;
use crate::{
    args::{BatchCommand, Global},
    commands::{confirm, confirm::Confirmed, open_state, open_state_read_only},
    output,
    report::{ErrorJson, SOME_FAILED},
    settings,
};

/// Rows per insert.
const CHUNK: usize = 1000;

async fn enqueue(
    global: &Global,
    settings: &Settings,
    file: &Path,
    batch_key: Option<&str>,
) -> anyhow::Result<ExitCode> {
    let batch_key = super::checked_batch_key(batch_key, file)?;
    let surface = settings.surface()?;
    // The file is checked before anything is written.
    let (mut source, _) = rows::read(file, settings.default_queue()?, batch_key.clone())?;
    let state = open_state(global).await?;
    let clock = Clock::system();
    let id = BatchId(Uuid::now_v7());
    state
        .store
        .batches()?
        .begin_batch(id, batch_key, clock.now())
        .await?;
    let (mut count, mut bad) = (0_u64, 0_u64);
    let mut new = Vec::new();
    while let Some(row) = source.recv().await {
        let (place, request) = match row {
            Ok(row) => (
                row.place,
                messaging::validate(&surface, &row.request).map(|()| row.request),
            ),
            Err(bad) => (bad.place, Err(bad.invalid)),
        };
        count += 1;
        if let Err(invalid) = &request {
            bad += 1;
            output::stderr_line(rows::RowError {
                place,
                invalid: invalid.clone(),
            });
        }
        new.push(NewRow {
            number: place.row(),
            line: place.line(),
            request: request.map_err(|invalid| failure(&invalid)),
        });
        if new.len() == CHUNK {
            state
                .store
                .batches()?
                .add_rows(id, std::mem::take(&mut new), clock.now())
                .await?;
        }
    }
    state
        .store
        .batches()?
        .add_rows(id, new, clock.now())
        .await?;
    state
        .store
        .batches()?
        .complete_batch(id, clock.now())
        .await?;
    if global.json {
        output::json(&json!({"batchId": id, "rows": count, "bad": bad}));
    } else {
        output::stdout_line(format!(
            "batch {id}: {} for workers (`guestlane worker`, `guestlane serve --with-worker`)",
            output::count(count, "row")
        ));
    }
    Ok(ExitCode::from(if bad == 0 { 0 } else { SOME_FAILED }))
}

/// Checks that the store is shared. Workers on other machines cannot claim rows of a SQLite file.
///
/// # Errors
/// The settings name no PostgreSQL database.
pub(crate) fn is_shared(settings: &Settings) -> anyhow::Result<()> {
    if settings.storage()?.database.is_shared() {
        return Ok(());
    }
    let reason = "names no PostgreSQL database, which batches for workers need";
    Err(ValidationError::new(
        DATABASE_URL,
        reason,
        "set it to postgres://USER:PASSWORD@HOST:5432/DATABASE, the same on all nodes",
    )
    .into())
}

fn failure(invalid: &ValidationError) -> RowFailure {
    let error = guestlane::Error::Invalid(invalid.clone());
    diagnosis::of(&error).into()
}

pub(super) async fn run(global: &Global, command: &BatchCommand) -> anyhow::Result<ExitCode> {
    let settings = settings::load(global)?;
    is_shared(&settings)?;
    match command {
        BatchCommand::Enqueue { file, batch_key } => {
            enqueue(global, &settings, file, batch_key.as_deref()).await
        }
        BatchCommand::Status { id: None } => {
            let batches = open_state_read_only(global)
                .await?
                .store
                .batches()?
                .list_batches(None, 50)
                .await?;
            tell_all(global, &batches);
            Ok(ExitCode::SUCCESS)
        }
        BatchCommand::Status { id: Some(id) } => {
            print_status(
                global,
                &known(&open_state_read_only(global).await?, id).await?,
            );
            Ok(ExitCode::SUCCESS)
        }
        BatchCommand::Results { id } => {
            let state = open_state_read_only(global).await?;
            results(&state, known(&state, id).await?).await
        }
        BatchCommand::Cancel { id, confirmed } => {
            let state = open_state_read_only(global).await?;
            cancel(global, &state, known(&state, id).await?, *confirmed).await
        }
    }
}

async fn cancel(
    global: &Global,
    state: &Workspace,
    status: BatchStatus,
    confirmed: Confirmed,
) -> anyhow::Result<ExitCode> {
    if !confirmed.is_given() {
        let lines = [
            format!(
                "batch {} of {}: {} would be cancelled.",
                status.batch_id,
                status.name,
                output::count(status.waiting, "waiting row")
            ),
            format!(
                "{} in flight would be finished, and the sessions of {} that are open would be \
                 kept.",
                output::count(status.running, "row"),
                output::count(status.open, "row")
            ),
        ];
        return Ok(confirm::preview(
            global,
            serde_json::to_value(&status)?,
            lines,
        ));
    }
    state
        .store
        .batches()?
        .cancel_batch(status.batch_id, Clock::system().now())
        .await?;
    let status = known(state, &status.batch_id.to_string()).await?;
    let code = confirm::done(global, serde_json::to_value(&status)?, status_row(&status));
    if status.running > 0 {
        output::stderr_line(format!(
            "note: {} still in flight; they will be finished",
            output::count(status.running, "row")
        ));
    }
    Ok(code)
}

async fn known(state: &Workspace, id: &str) -> anyhow::Result<BatchStatus> {
    let id: BatchId = id.parse()?;
    let found = state
        .store
        .batches()?
        .list_batches(Some(id), 1)
        .await?
        .pop();
    Ok(found.ok_or_else(|| {
        ValidationError::new(
            "ID",
            format!("{id} is not a batch of this store"),
            "see `guestlane batch status`",
        )
    })?)
}

/// Prints one line per finished row, in the order of the rows and in the format of
/// `batch --output`.
async fn results(state: &Workspace, status: BatchStatus) -> anyhow::Result<ExitCode> {
    let mut after = 0;
    loop {
        let rows = state
            .store
            .batches()?
            .row_results(status.batch_id, after, 1000)
            .await?;
        let Some(last) = rows.last() else { break };
        after = last.number;
        rows.iter().for_each(print);
    }
    let left = status.waiting + status.running;
    if left > 0 {
        output::stderr_line(format!(
            "note: {} not finished yet",
            output::count(left, "row")
        ));
    }
    Ok(ExitCode::from(if status.failed == 0 {
        0
    } else {
        SOME_FAILED
    }))
}

fn print(row: &RowResult) {
    match (&row.session, &row.failure) {
        (Some(session), _) => {
            let mut line = serde_json::to_value(SessionJson::stored(session).of_row(row.number))
                .unwrap_or_default();
            line["replayed"] = row.replayed.into();
            output::json(&line);
        }
        (None, Some(failure)) if row.state == "failed" => {
            let error = ErrorJson::of_row(failure);
            output::json(&json!({"row": row.number, "line": row.line, "error": error}));
        }
        (None, _) if row.state == "open" || row.state == "cancelled" => {
            // The session was erased, or the row never had one.
            output::json(&json!({"row": row.number, "line": row.line, "state": row.state}));
        }
        (None, _) => {}
    }
}

fn print_status(global: &Global, status: &BatchStatus) {
    if global.json {
        output::json(status);
    } else {
        status_row(status).into_iter().for_each(output::stdout_line);
    }
}

fn status_row(status: &BatchStatus) -> [String; 2] {
    let BatchStatus {
        batch_id,
        name,
        rows,
        waiting,
        running,
        open,
        replayed,
        failed,
        cancelled,
        ..
    } = status;
    let rows = output::count(*rows, "row");
    [
        format!(
            "batch {batch_id} of {name}{}",
            if status.complete {
                ""
            } else {
                " (not all rows are stored yet)"
            }
        ),
        format!(
            "{rows}: {waiting} waiting, {running} running, {open} open ({replayed} replayed), \
             {failed} failed, {cancelled} cancelled"
        ),
    ]
}

fn tell_all(global: &Global, batches: &[BatchStatus]) {
    if global.json {
        batches.iter().for_each(output::json);
        return;
    }
    if batches.is_empty() {
        output::stderr_line("No batch exists; see `guestlane batch enqueue FILE`.");
    }
    batches
        .iter()
        .for_each(|status| print_status(global, status));
}
