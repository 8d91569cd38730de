//! `guestlane batch`: creates one session per row of a file.

mod dry_run;
mod feed;
mod headings;
mod progress;
pub(crate) mod queued;
mod results;
mod rows;
mod signals;

use std::{collections::BTreeMap, path::Path, process::ExitCode, sync::Arc};

use anyhow::Context;
use guestlane::{
    AttemptLog, CreatedSession, Priority, SessionEngine, Workers,
    admission_control::{AdmissionController, PlatformOutage},
};
use guestlane_cli::config::{PLATFORM_RATE_LIMIT, QUEUE_ID};
use guestlane_core::request::check_visible;
use guestlane_runtime::Clock;
use serde::Serialize;
use tokio::{sync::mpsc, task::JoinSet};

use super::close;
use crate::{
    args::{Batch, Global},
    output,
    report::{self, ErrorJson, SOME_FAILED},
    settings,
};
use feed::FeedEvent;
use progress::Progress;
use results::Results;
use rows::{Place, Row, RowError};
use signals::Signals;

/// Counts of rows by result.
#[derive(Debug, Default)]
struct Counts {
    /// Rows taken from the input: started, already done, or invalid.
    begun: u64,
    /// How far into the input these rows are, in bytes.
    reached: u64,
    /// Finished rows.
    rows: u64,
    opened: u64,
    replayed: u64,
    failed: u64,
}

impl Counts {
    fn begin(&mut self, place: Place) {
        self.begun += 1;
        self.reached = self.reached.max(place.byte());
    }
}

#[derive(Debug, Serialize)]
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
    /// Why rows were left that have not started. Absent if no rows were left.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<&'static str>,
}

type Failed = (guestlane::Error, Row);

/// The result of a row.
enum RowResult {
    Opened(Box<CreatedSession>),
    Failed(Box<Failed>),
    Bad(RowError),
    /// The result file already contains the row.
    Known,
}

/// Maximum number of rows to remember for a second attempt. After all other rows, rows with a
/// retryable error are tried once more.
const MAX_RETRIED_ROWS: usize = 10_000;

/// Why no more rows are started.
#[derive(Debug, Clone, Copy)]
enum Stop {
    Interrupted,
    Outage(PlatformOutage),
}

impl Stop {
    fn name(self) -> &'static str {
        match self {
            Self::Interrupted => "interrupted",
            Self::Outage(_) => "outage",
        }
    }
}

/// The batch key: the one given, else one derived from the file's path.
fn checked_batch_key(given: Option<&str>, file: &Path) -> anyhow::Result<String> {
    if let Some(name) = given {
        check_visible("--batch-key", name)?;
    }
    Ok(given.map_or_else(|| rows::file_key(file), str::to_owned))
}

pub(crate) async fn run(global: &Global, args: &Batch) -> anyhow::Result<ExitCode> {
    if let Some(command) = &args.command {
        return queued::run(global, command).await;
    }
    let mut settings = settings::load(global)?;
    settings.add_flag(PLATFORM_RATE_LIMIT, args.rate_limit.clone());
    let queue = settings.default_queue()?;
    let batch_key = checked_batch_key(args.batch_key.as_deref(), args.file())?;
    if args.dry_run {
        return dry_run::run(global, args, &settings, queue, batch_key).await;
    }
    let config = settings.engine(false)?;
    let (rows, size) = rows::read(args.file(), queue, batch_key)?;

    let clock = Clock::system();
    let engine = SessionEngine::open(config, clock.clone()).await?;
    let mut results = Results::open(args.output.as_deref(), args.file(), global.json)?;
    let working = tokio::spawn(Workers::new(Arc::clone(&engine)).run());
    let started = clock.monotonic();
    let intake = AdmissionController::new(
        Arc::clone(&engine),
        args.max_concurrency
            .map_or(AdmissionController::MAX_CONCURRENCY, usize::from),
    );
    let intake = Arc::new(intake);
    let mut feed = feed::begin(
        rows,
        Arc::clone(&intake),
        Arc::clone(&engine),
        results.known(),
    );
    let mut signals = Signals::listen()?;
    let mut progress = Progress::begin(args.quiet, size, &clock);
    let mut counts = Counts::default();
    let mut stop = None;
    let mut input_exhausted = false;
    let mut running = JoinSet::new();
    // Rows with a retryable error, until the second attempt. Rows without a second attempt are
    // reported with their first error.
    let mut failed: BTreeMap<u64, Failed> = BTreeMap::new();
    let mut second = false;
    loop {
        if input_exhausted && running.is_empty() {
            if stop.is_some() || failed.is_empty() || second {
                break;
            }
            second = true;
            let rows = feed_again(&failed, &mut counts);
            feed = feed::begin(
                rows,
                Arc::clone(&intake),
                Arc::clone(&engine),
                results.known(),
            );
            input_exhausted = false;
        }
        tokio::select! {
            () = signals.next() => {
                if stop.is_some() {
                    // The sessions in flight are recorded in the store.
                    break;
                }
                stop = Some(Stop::Interrupted);
                input_exhausted = true;
                feed.close();
                output::stderr_line(format!("Finishing {}; press Ctrl-C again to stop at once.", output::count(running.len() as u64, "session")));
            }
            fed = feed.recv(), if !input_exhausted => match fed {
                Some(FeedEvent::Row(row, begun)) => {
                    counts.begin(row.place);
                    let engine = Arc::clone(&engine);
                    // Each row is a separate task, because signing is CPU-bound and can use several
                    // cores.
                    running.spawn(async move {
                        let ended = create(&engine, row).await;
                        drop(begun);
                        ended
                    });
                }
                Some(FeedEvent::AlreadyDone(place)) => {
                    counts.begin(place);
                    count(&mut counts, &mut results, place, RowResult::Known)?;
                }
                Some(FeedEvent::Invalid(bad)) => {
                    counts.begin(bad.place);
                    count(&mut counts, &mut results, bad.place, RowResult::Bad(bad))?;
                }
                Some(FeedEvent::Stopped(outage)) => {
                    stop = Some(Stop::Outage(outage));
                    input_exhausted = true;
                }
                None => input_exhausted = true,
            },
            Some(ended) = running.join_next() => {
                let (place, ended) = ended.context("the task of a row failed")?;
                failed.remove(&place.row());
                match ended {
                    RowResult::Failed(ended) if !second && ended.0.code().is_retryable() && failed.len() < MAX_RETRIED_ROWS => {
                        failed.insert(place.row(), *ended);
                    }
                    ended => count(&mut counts, &mut results, place, ended)?,
                }
            }
            () = Progress::due(&clock) => {}
        }
        progress.show(&counts, &engine);
    }
    let left = running.len();
    running.detach_all();
    // After a second interrupt, this includes rows in their second attempt.
    for (_, ended) in failed {
        count(
            &mut counts,
            &mut results,
            ended.1.place,
            RowResult::Failed(Box::new(ended)),
        )?;
    }
    progress.end();
    results.finish()?;
    let seconds = clock.monotonic().since(started).as_secs_f64();
    let summary = Summary {
        rows: counts.rows,
        opened: counts.opened,
        replayed: counts.replayed,
        failed: counts.failed,
        seconds,
        per_second: if seconds > 0.0 {
            counts.rows as f64 / seconds
        } else {
            0.0
        },
        calls: engine.platform_metrics().calls(),
        throttled: engine.platform_metrics().throttled(),
        stopped: stop.map(Stop::name),
    };
    if left == 0 {
        close(&engine).await;
    }
    working.abort();
    print_summary(global, args, &summary, stop, left);
    Ok(ExitCode::from(if summary.failed == 0 && stop.is_none() {
        0
    } else {
        SOME_FAILED
    }))
}

async fn create(engine: &SessionEngine, row: Row) -> (Place, RowResult) {
    match engine
        .create_with(
            row.request.clone(),
            Priority::Background,
            AttemptLog::default(),
        )
        .await
    {
        Ok(opened) => (row.place, RowResult::Opened(Box::new(opened))),
        Err(error) => (row.place, RowResult::Failed(Box::new((error, row)))),
    }
}

/// Feeds the failed rows a second time.
fn feed_again(
    failed: &BTreeMap<u64, Failed>,
    counts: &mut Counts,
) -> mpsc::Receiver<Result<Row, RowError>> {
    let rows = failed.len() as u64;
    counts.begun -= rows;
    output::stderr_line(format!(
        "{} failed with a retryable error; retrying once.",
        output::count(rows, "row")
    ));
    let (sender, receiver) = mpsc::channel(failed.len());
    for (_, row) in failed.values() {
        // The channel has room for all rows.
        let _ = sender.try_send(Ok(row.clone()));
    }
    receiver
}

fn count(
    counts: &mut Counts,
    results: &mut Results,
    place: Place,
    ended: RowResult,
) -> anyhow::Result<()> {
    counts.rows += 1;
    match ended {
        RowResult::Opened(opened) => {
            if opened.replayed {
                counts.replayed += 1
            } else {
                counts.opened += 1
            }
            results.opened(place, &opened)
        }
        RowResult::Known => {
            counts.replayed += 1;
            Ok(())
        }
        RowResult::Failed(failed) => {
            let (error, row) = *failed;
            counts.failed += 1;
            output::stderr_line(format!("{place}: {}", report::text(&error)));
            results.failed(place, &ErrorJson::from(&error).under(&row.request.key))
        }
        RowResult::Bad(bad) => {
            counts.failed += 1;
            output::stderr_line(&bad);
            results.failed(place, &ErrorJson::from(&bad.invalid))
        }
    }
}

fn print_summary(
    global: &Global,
    args: &Batch,
    summary: &Summary,
    stop: Option<Stop>,
    left: usize,
) {
    if global.json {
        output::json(summary);
    } else {
        output::stdout_line(format!(
            "{}: {} opened, {} replayed, {} failed; {:.1} s, {:.0} rows/s, {} calls, {} rate \
             limited",
            output::count(summary.rows, "row"),
            summary.opened,
            summary.replayed,
            summary.failed,
            summary.seconds,
            summary.per_second,
            summary.calls,
            summary.throttled
        ));
    }
    if left > 0 {
        output::stderr_line(format!(
            "Stopped with {} in flight; their progress is recorded.",
            output::count(left as u64, "session")
        ));
    }
    let go_on = if args.file().as_os_str() == "-" {
        "the same rows and the same --batch-key"
    } else {
        "the same command"
    };
    match stop {
        Some(Stop::Interrupted) => output::stderr_line(format!(
            "Interrupted. To continue, run {go_on} again; no session is created twice."
        )),
        Some(Stop::Outage(outage)) => {
            output::stderr_line(format!(
                "error: {outage}: the other rows were not started. When it responds again, run \
                 {go_on} again."
            ));
        }
        None if summary.rows == 0 => {
            output::stderr_line(format!(
                "note: the file has no rows; rows without a queue_id use {QUEUE_ID}"
            ));
        }
        None => {}
    }
}
