//! `guestlane batch --check`: every row is read and looked at, and nothing is sent.

use std::process::ExitCode;

use guestlane::{config::Settings, request::QueueId};
use serde::Serialize;
use serde_json::json;

use super::rows;
use crate::{
    args::{Batch, Global},
    failure::{ErrorJson, SOME_FAILED},
    screen,
};

#[derive(Debug, Default, Serialize)]
struct Summary {
    rows: u64,
    good: u64,
    bad: u64,
}

pub(super) async fn run(
    global: &Global,
    args: &Batch,
    settings: &Settings,
    queue: Option<QueueId>,
    batch_key: String,
) -> anyhow::Result<ExitCode> {
    let surface = settings.surface()?;
    let (mut rows, _) = rows::read(args.file(), queue, batch_key)?;
    let mut summary = Summary::default();
    while let Some(row) = rows.recv().await {
        summary.rows += 1;
        let checked = row.and_then(|row| {
            let bad = |invalid| rows::RowError { place: row.place, invalid };
            surface.check(&row.request).map_err(bad)
        });
        match checked {
            Ok(()) => summary.good += 1,
            Err(bad) => {
                summary.bad += 1;
                screen::note(&bad);
                if global.json {
                    screen::json(&bad.place.with(json!({"error": ErrorJson::from(&bad.invalid)})));
                }
            }
        }
    }
    if global.json {
        screen::json(&summary);
    } else {
        let rows = screen::count(summary.rows, "row");
        screen::data(format!("{rows}: {} good, {} bad; nothing was sent", summary.good, summary.bad));
    }
    Ok(ExitCode::from(if summary.bad == 0 { 0 } else { SOME_FAILED }))
}
