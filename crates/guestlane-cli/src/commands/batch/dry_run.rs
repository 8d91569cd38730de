//! `guestlane batch --dry-run`: validates every row without sending anything.

use guestlane::messaging;
use std::process::ExitCode;

use guestlane_cli::config::Settings;
use guestlane_core::request::QueueId;
use serde::Serialize;
use serde_json::json;

use super::rows;
use crate::{
    args::{Batch, Global},
    output,
    report::{ErrorJson, SOME_FAILED},
};

#[derive(Debug, Default, Serialize)]
struct Summary {
    rows: u64,
    good: u64,
    bad: u64,
    /// Valid rows that a person should check.
    #[serde(skip_serializing_if = "is_none")]
    warned: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

/// Whether the ID looks like a number that a spreadsheet rounded, such as `1.23457E+17`. Rounding
/// may have given several guests the same ID.
fn is_rounded(guest: &str) -> bool {
    let Some((number, exponent)) = guest.split_once("E+") else {
        return false;
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = number.split_once(['.', ',']).unwrap_or((number, "0"));
    whole.len() == 1 && digits(whole) && digits(fraction) && digits(exponent)
}

fn warn(global: &Global, place: rows::Place) {
    let warning = "guestId looks like a number that a spreadsheet rounded; several guests may \
        have the same guestId now";
    output::stderr_line(format!(
        "{place}: warning: {warning}; format the column as text and export it again"
    ));
    if global.json {
        output::json(&place.with(json!({"warning": warning, "field": "guestId"})));
    }
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
            let bad = |invalid| rows::RowError {
                place: row.place,
                invalid,
            };
            messaging::validate(&surface, &row.request)
                .map_err(bad)
                .map(|()| row)
        });
        match checked {
            Ok(row) => {
                summary.good += 1;
                if is_rounded(row.request.guest.as_str()) {
                    summary.warned += 1;
                    warn(global, row.place);
                }
            }
            Err(bad) => {
                summary.bad += 1;
                output::stderr_line(&bad);
                if global.json {
                    output::json(
                        &bad.place
                            .with(json!({"error": ErrorJson::from(&bad.invalid)})),
                    );
                }
            }
        }
    }
    if global.json {
        output::json(&summary);
    } else {
        let rows = output::count(summary.rows, "row");
        output::stdout_line(format!(
            "{rows}: {} valid, {} invalid; nothing was sent",
            summary.good, summary.bad
        ));
    }
    Ok(ExitCode::from(if summary.bad == 0 {
        0
    } else {
        SOME_FAILED
    }))
}
