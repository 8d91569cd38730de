//! `guestlane store`: migrates the store from SQLite to PostgreSQL.

use std::{path::PathBuf, process::ExitCode};

use guestlane_core::request::ValidationError;
use guestlane_runtime::{Clock, FailPoints};
use guestlane_store::{
    Database, InvalidDatabase, PostgresUrl,
    migrate::{MigrationError, MigrationProgress, abandon, migrate_store, unfinished},
};
use serde_json::json;

use super::confirm;
use crate::{
    args::{self, Global},
    output, settings,
};

pub(crate) async fn run(global: &Global, command: &args::Store) -> anyhow::Result<ExitCode> {
    let args::Store::Migrate {
        from,
        to,
        abandon,
        yes,
    } = command;
    let fix = "migrate --from sqlite:PATH --to postgres://…; the reverse is not supported";
    let Database::Sqlite(file) = parse("--from", from)? else {
        return Err(ValidationError::new("--from", "is not a SQLite file", fix).into());
    };
    let Some(to) = to.as_ref().filter(|_| !abandon) else {
        return abandon_move(global, file, *yes).await;
    };
    let Database::Postgres(database) = parse("--to", to)? else {
        return Err(ValidationError::new("--to", "is not a PostgreSQL database", fix).into());
    };
    move_store(global, file, *database).await
}

fn parse(flag: &'static str, text: &str) -> Result<Database, ValidationError> {
    // White space at the ends is ignored, as in other settings.
    text.trim()
        .parse()
        .map_err(|invalid: InvalidDatabase| ValidationError::new(flag, invalid.reason, invalid.fix))
}

async fn move_store(
    global: &Global,
    file: PathBuf,
    database: PostgresUrl,
) -> anyhow::Result<ExitCode> {
    let to = database.to_string();
    if !file.is_file() {
        let reason = format!("{} is not a file", file.display());
        return Err(ValidationError::new(
            "--from",
            reason,
            "name the store, like sqlite:.guestlane/guestlane.db",
        )
        .into());
    }
    let places = settings::load(global)?.storage()?;
    let moving = tokio::task::spawn_blocking(move || {
        let mut last = "";
        let progress = |MigrationProgress { table, done, of }: MigrationProgress| {
            if table != last || done == of || done % 100_000 == 0 {
                output::stderr_line(format!("{table}: {done} of {of}"));
            }
            last = table;
        };
        migrate_store(
            &file,
            &database,
            &places.home,
            &places.audit.path,
            Clock::system().now(),
            &FailPoints::default(),
            progress,
        )
    });
    let copied = moving.await?.map_err(advised)?;
    if global.json {
        let logs: Vec<_> = copied
            .logs
            .iter()
            .map(|(log, size)| json!({"log": log, "records": size}))
            .collect();
        output::json(
            &json!({"rows": copied.rows, "sha256": copied.digests, "copiedNow": copied.copied_now, "logs": logs}),
        );
    } else {
        let rows: u64 = copied.rows.values().sum();
        output::stdout_line(format!(
            "{} ({} copied by this run) and {}: equal in the file and the database",
            output::count(rows, "row"),
            copied.copied_now,
            output::count(copied.logs.len() as u64, "log")
        ));
        output::stderr_line(format!(
            "The file can no longer be opened. Set GUESTLANE_DATABASE_URL to the database: {to}"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

async fn abandon_move(global: &Global, file: PathBuf, yes: bool) -> anyhow::Result<ExitCode> {
    let shown = file.display().to_string();
    let giving_up = move || {
        if yes {
            abandon(&file)
        } else {
            unfinished(&file)
        }
    };
    let to = tokio::task::spawn_blocking(giving_up)
        .await?
        .map_err(advised)?;
    let data = json!({"abandoned": to});
    if !yes {
        let lines = [
            format!(
                "The migration of {shown} to {to} would be abandoned, and the file could be \
                 opened again."
            ),
            "The database could not be opened, and would keep the rows that were copied."
                .to_owned(),
        ];
        return Ok(confirm::preview(global, data, lines));
    }
    let code = confirm::done(
        global,
        data,
        ["The migration is abandoned; the file can be opened \
        again."
            .to_owned()],
    );
    if !global.json {
        output::stderr_line(format!(
            "The database {to} cannot be opened and holds copied rows: drop its schema, or run \
             `guestlane store migrate` to it later."
        ));
    }
    Ok(code)
}

/// The error of a failed or refused migration, with the flag to correct.
fn advised(error: MigrationError) -> anyhow::Error {
    let message = error.to_string();
    let (flag, fix) = match error {
        MigrationError::Store(error) => return guestlane::Error::from(error).into(),
        MigrationError::Differs { .. } => {
            return anyhow::Error::new(error).context(
                "neither store can be opened; run the same command to copy the differing \
                    rows again",
            );
        }
        MigrationError::NotEmpty => (
            "--to",
            "name an empty database; to finish an interrupted migration, run the same command \
             again",
        ),
        MigrationError::InUse(_) => ("--from", "stop all processes that use it first"),
        MigrationError::AlreadyMigrated => (
            "--to",
            "set GUESTLANE_DATABASE_URL to the database; nothing was changed",
        ),
        MigrationError::WrongTarget { .. } => (
            "--to",
            "name that database, or abandon that migration first: `guestlane store migrate \
             --abandon --yes`",
        ),
        MigrationError::NotStarted(_) => ("--abandon", "omit it; the file can be opened"),
        MigrationError::NoAuditFile(_) => (
            "--state-dir",
            "name the state directory of the store, or rebuild the file: `guestlane audit rebuild`",
        ),
    };
    ValidationError::new(flag, message, fix).into()
}
