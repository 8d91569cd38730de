//! `guestlane batch`: a session for each row.

mod results;
mod rows;

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use futures_util::{StreamExt, stream};
use guestlane::{
    Clock, Lane, LaneConfig, Opened,
    config::{QUEUE_ID, QUOTA},
    request::IdempotencyKey,
};
use serde::Serialize;

use super::close;
use crate::{
    args::{Batch, Global},
    failure::{self, ErrorJson, SOME_FAILED},
    screen, settings,
};
use results::Results;
use rows::{Row, RowError};

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    rows: u64,
    opened: u64,
    replayed: u64,
    failed: u64,
    seconds: f64,
    per_second: f64,
    calls: u64,
    throttled: u64,
}

/// What came of a row.
enum Ended {
    Opened(Box<Opened>),
    Failed(Box<(guestlane::Error, IdempotencyKey)>),
    Bad(RowError),
    /// The result file has it already.
    Known,
}

pub(crate) async fn run(global: &Global, args: &Batch) -> anyhow::Result<ExitCode> {
    let mut settings = settings::load(global)?;
    settings.add_flag(QUOTA, args.quota.clone());
    let config = settings.lane(false)?;
    let queue = settings.default_queue()?;
    let batch_key = args.batch_key.clone().unwrap_or_else(|| rows::file_key(&args.file));
    let rows = rows::read(&args.file, queue, batch_key)?;
    let at_once = at_once(args.concurrency, &config);

    let clock = Clock::system();
    let lane = Lane::open(config, clock.clone()).await?;
    let mut results = Results::open(args.out.as_deref(), &args.file, global.json)?;
    let known = results.known();
    let working = tokio::spawn(Arc::clone(&lane).work());
    let started = clock.now();
    let mut summary = Summary::default();

    let ended = stream::unfold(rows, |mut rows| async move { rows.recv().await.map(|row| (row, rows)) })
        .map(|row| {
            let (lane, known) = (Arc::clone(&lane), Arc::clone(&known));
            // A task of its own: signing keeps a core busy, and there is more than one.
            tokio::spawn(async move { end(&lane, &known, row).await })
        })
        .buffer_unordered(at_once);
    let mut ended = std::pin::pin!(ended);
    while let Some(ended) = ended.next().await {
        let (number, ended) = ended.context("a row's task ended badly")?;
        summary.rows += 1;
        match ended {
            Ended::Opened(opened) => {
                if opened.replayed {
                    summary.replayed += 1
                } else {
                    summary.opened += 1
                }
                results.opened(&opened)?;
            }
            Ended::Known => summary.replayed += 1,
            Ended::Failed(failed) => {
                let (error, key) = *failed;
                summary.failed += 1;
                screen::note(format!("row {number}: {}", failure::text(&error)));
                results.failed(number, &ErrorJson::from(&error).under(&key))?;
            }
            Ended::Bad(bad) => {
                summary.failed += 1;
                screen::note(format!("row {number}: {} {}; {}", bad.invalid.field, bad.invalid.reason, bad.invalid.fix));
                results.failed(number, &ErrorJson::from(&bad.invalid))?;
            }
        }
    }
    summary.seconds = clock.now().since(started).as_secs_f64();
    summary.per_second = if summary.seconds > 0.0 { summary.rows as f64 / summary.seconds } else { 0.0 };
    results.finish()?;
    (summary.calls, summary.throttled) = (lane.stats().calls(), lane.stats().throttled());
    close(&lane).await;
    working.abort();

    if global.json {
        screen::json(&summary);
    } else {
        screen::data(format!(
            "{} rows: {} opened, {} replayed, {} failed; {:.1} s, {:.0} rows/s, {} calls, {} throttled",
            summary.rows,
            summary.opened,
            summary.replayed,
            summary.failed,
            summary.seconds,
            summary.per_second,
            summary.calls,
            summary.throttled
        ));
    }
    if summary.rows == 0 {
        screen::note(format!("note: the file has no rows; rows without a queue_id use {QUEUE_ID}"));
    }
    Ok(ExitCode::from(if summary.failed == 0 { 0 } else { SOME_FAILED }))
}

async fn end(lane: &Arc<Lane>, known: &results::Known, row: Result<Row, RowError>) -> (u64, Ended) {
    match row {
        Err(bad) => (bad.number, Ended::Bad(bad)),
        // Done by the result file's word, unless the ledger knows better: then it is asked, which costs no call.
        Ok(row) if known.has(&row.request) && matches!(lane.store().peek(row.request.key.clone()).await, Ok(None)) => {
            (row.number, Ended::Known)
        }
        Ok(row) => {
            let key = row.request.key.clone();
            match lane.create(row.request).await {
                Ok(opened) => (row.number, Ended::Opened(Box::new(opened))),
                Err(error) => (row.number, Ended::Failed(Box::new((error, key)))),
            }
        }
    }
}

/// No more sessions than the quota can serve within half of their deadline: the others would wait in vain.
fn at_once(wanted: u16, config: &LaneConfig) -> usize {
    // Of one session; on the official surfaces with a move, and a second look for details.
    let calls = if config.surface.is_official() { 6.0 } else { 2.0 };
    let served = config.patience.quota.map_or(f64::MAX, |rate| {
        f64::from(rate.calls()) / rate.window().as_secs_f64() * config.deadline.as_secs_f64() / calls / 2.0
    });
    served.max(1.0).min(wanted.into()) as usize
}
