//! `guestlane store`: moving it.

use std::process::ExitCode;

use guestlane::{
    Clock, Seams,
    request::Invalid,
    store::{
        Database,
        copy::{CopyError, CopyProgress, copy},
    },
};
use serde_json::json;

use crate::{
    args::{self, Global},
    screen, settings,
};

pub(crate) async fn run(global: &Global, command: &args::Store) -> anyhow::Result<ExitCode> {
    match command {
        args::Store::Copy { from, to } => copy_to(global, from, to).await,
    }
}

async fn copy_to(global: &Global, from: &str, to: &str) -> anyhow::Result<ExitCode> {
    let parse = |flag: &str, text: &str| {
        let parsed: Result<Database, _> = text.parse();
        parsed.map_err(|invalid| Invalid::new(flag, invalid.reason, invalid.fix))
    };
    let fix = "a store is copied --from sqlite:PATH --to postgres://…, and not back";
    let Database::Sqlite(file) = parse("--from", from)? else {
        return Err(Invalid::new("--from", "is no file", fix).into());
    };
    let Database::Postgres(database) = parse("--to", to)? else {
        return Err(Invalid::new("--to", "is no database of PostgreSQL", fix).into());
    };
    if !file.is_file() {
        let reason = format!("{} is no file", file.display());
        return Err(Invalid::new("--from", reason, "name the store, like sqlite:.guestlane/guestlane.db").into());
    }
    let places = settings::load(global)?.places()?;
    let told = tokio::task::spawn_blocking(move || {
        let mut last = "";
        let progress = |CopyProgress { table, done, of }: CopyProgress| {
            if table != last || done == of || done % 100_000 == 0 {
                screen::note(format!("{table}: {done} of {of}"));
            }
            last = table;
        };
        copy(&file, &database, &places.home, &places.audit.path, Clock::system().now(), &Seams::default(), progress)
    });
    let copied = told.await?.map_err(|error| match error {
        CopyError::Store(error) => anyhow::Error::new(guestlane::Error::from(error)),
        CopyError::NotEmpty => Invalid::new(
            "--to",
            error.to_string(),
            "name an empty database; a copy that was interrupted goes on by the same command",
        )
        .into(),
        CopyError::InUse(_) => Invalid::new("--from", error.to_string(), "stop all processes on it, and copy then").into(),
        CopyError::Done => {
            Invalid::new("--to", error.to_string(), "use the database: set GUESTLANE_DATABASE_URL to it; nothing was changed").into()
        }
        CopyError::NoAuditFile(_) => {
            let fix = "name the state directory that the store was used with: --state-dir; or write the file anew: `guestlane audit restore`";
            Invalid::new("--state-dir", error.to_string(), fix).into()
        }
        CopyError::Differs { .. } => anyhow::Error::new(error).context("the copy is not used, and the file goes on being used"),
    })?;
    if global.json {
        let logs: Vec<_> = copied.logs.iter().map(|(log, size)| json!({"log": log, "records": size})).collect();
        screen::json(&json!({"rows": copied.rows, "copiedNow": copied.copied_now, "logs": logs}));
    } else {
        let rows: u64 = copied.rows.values().sum();
        screen::data(format!(
            "{} ({} now), counted in both; {} with the same roots in both",
            screen::count(rows, "row"),
            copied.copied_now,
            screen::count(copied.logs.len() as u64, "log")
        ));
        screen::note(format!(
            "The file is used no more. Set GUESTLANE_DATABASE_URL to the database: {to_shown}",
            to_shown = shown(to)
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Without user and password.
fn shown(url: &str) -> String {
    url.parse::<Database>().map(|database| database.to_string()).unwrap_or_default()
}
