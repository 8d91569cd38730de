//! `guestlane store`: moving it.

use std::{path::PathBuf, process::ExitCode};

use guestlane::{
    Clock, Seams,
    request::Invalid,
    store::{
        Database, InvalidDatabase, PostgresUrl,
        copy::{CopyError, CopyProgress, abandon, copy, unfinished},
    },
};
use serde_json::json;

use super::confirm;
use crate::{
    args::{self, Global},
    screen, settings,
};

pub(crate) async fn run(global: &Global, command: &args::Store) -> anyhow::Result<ExitCode> {
    let args::Store::Copy { from, to, abandon, yes } = command;
    let fix = "a store is copied --from sqlite:PATH --to postgres://…, and not back";
    let Database::Sqlite(file) = parse("--from", from)? else {
        return Err(Invalid::new("--from", "is no file", fix).into());
    };
    let Some(to) = to.as_ref().filter(|_| !abandon) else { return abandon_move(global, file, *yes).await };
    let Database::Postgres(database) = parse("--to", to)? else {
        return Err(Invalid::new("--to", "is no database of PostgreSQL", fix).into());
    };
    move_store(global, file, *database).await
}

fn parse(flag: &'static str, text: &str) -> Result<Database, Invalid> {
    // As any setting: without white space at its ends.
    text.trim().parse().map_err(|invalid: InvalidDatabase| Invalid::new(flag, invalid.reason, invalid.fix))
}

async fn move_store(global: &Global, file: PathBuf, database: PostgresUrl) -> anyhow::Result<ExitCode> {
    let to = database.to_string();
    if !file.is_file() {
        let reason = format!("{} is no file", file.display());
        return Err(Invalid::new("--from", reason, "name the store, like sqlite:.guestlane/guestlane.db").into());
    }
    let places = settings::load(global)?.places()?;
    let moving = tokio::task::spawn_blocking(move || {
        let mut last = "";
        let progress = |CopyProgress { table, done, of }: CopyProgress| {
            if table != last || done == of || done % 100_000 == 0 {
                screen::note(format!("{table}: {done} of {of}"));
            }
            last = table;
        };
        copy(&file, &database, &places.home, &places.audit.path, Clock::system().now(), &Seams::default(), progress)
    });
    let copied = moving.await?.map_err(advised)?;
    if global.json {
        let logs: Vec<_> = copied.logs.iter().map(|(log, size)| json!({"log": log, "records": size})).collect();
        screen::json(&json!({"rows": copied.rows, "sha256": copied.digests, "copiedNow": copied.copied_now, "logs": logs}));
    } else {
        let rows: u64 = copied.rows.values().sum();
        screen::data(format!(
            "{} ({} copied by this run) and {}: equal in the file and the database",
            screen::count(rows, "row"),
            copied.copied_now,
            screen::count(copied.logs.len() as u64, "log")
        ));
        screen::note(format!("The file is refused from now on. Set GUESTLANE_DATABASE_URL to the database: {to}"));
    }
    Ok(ExitCode::SUCCESS)
}

async fn abandon_move(global: &Global, file: PathBuf, yes: bool) -> anyhow::Result<ExitCode> {
    let shown = file.display().to_string();
    let giving_up = move || if yes { abandon(&file) } else { unfinished(&file) };
    let to = tokio::task::spawn_blocking(giving_up).await?.map_err(advised)?;
    let data = json!({"abandoned": to});
    if !yes {
        let lines = [
            format!("The move of {shown} to {to} would be given up, and the file would be used again."),
            "The database would stay refused, and would keep the rows that were copied.".to_owned(),
        ];
        return Ok(confirm::preview(global, data, lines));
    }
    let code = confirm::done(global, data, ["The file is used again.".to_owned()]);
    if !global.json {
        screen::note(format!(
            "The database {to} stays refused, and holds copied rows: drop its schema, or run `guestlane store copy` to it later."
        ));
    }
    Ok(code)
}

/// What to do about a move that was refused or failed.
fn advised(error: CopyError) -> anyhow::Error {
    let message = error.to_string();
    let (flag, fix) = match error {
        CopyError::Store(error) => return guestlane::Error::from(error).into(),
        CopyError::Differs { .. } => {
            return anyhow::Error::new(error).context("neither store is used; the same command copies what differs again");
        }
        CopyError::NotEmpty => ("--to", "name an empty database; the same command finishes a move that was interrupted"),
        CopyError::InUse(_) => ("--from", "stop all processes on it first"),
        CopyError::Done => ("--to", "use the database: set GUESTLANE_DATABASE_URL to it; nothing was changed"),
        CopyError::OtherTarget { .. } => {
            ("--to", "name that database, or give that move up first: `guestlane store copy --abandon --yes`")
        }
        CopyError::NotBegun(_) => ("--abandon", "leave it out; the file can be used"),
        CopyError::NoAuditFile(_) => (
            "--state-dir",
            "name the state directory that the store was used with, or write the file anew: `guestlane audit restore`",
        ),
    };
    Invalid::new(flag, message, fix).into()
}
