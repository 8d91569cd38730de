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
    let only = || {
        Invalid::new("--to", "is no database of PostgreSQL, or --from is no file", "copy --from sqlite:PATH --to postgres://…")
    };
    let (Database::Sqlite(file), Database::Postgres(database)) = (parse("--from", from)?, parse("--to", to)?) else {
        return Err(only().into());
    };
    if !file.is_file() {
        let reason = format!("{} is no file", file.display());
        return Err(Invalid::new("--from", reason, "name the store, like sqlite:.guestlane/guestlane.db").into());
    }
    let home = settings::load(global)?.places()?.home;
    let told = tokio::task::spawn_blocking(move || {
        let mut last = "";
        let progress = |CopyProgress { table, done, of }: CopyProgress| {
            if table != last || done == of || done % 100_000 == 0 {
                screen::note(format!("{table}: {done} of {of}"));
            }
            last = table;
        };
        copy(&file, &database, &home, Clock::system().now(), &Seams::default(), progress)
    });
    let copied = told.await?.map_err(|error| match error {
        CopyError::Store(error) => anyhow::Error::new(guestlane::Error::from(error)),
        CopyError::NotEmpty => Invalid::new(
            "--to",
            error.to_string(),
            "name an empty database; a copy that was interrupted goes on by the same command",
        )
        .into(),
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
