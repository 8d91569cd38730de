//! `guestlane batch`: creates one session per row of a file.

mod counts;
mod dry_run;
mod feed;
mod headings;
mod progress;
pub(crate) mod queued;
mod results;
mod rows;
mod run;
mod signals;
mod summary;

use std::{path::Path, process::ExitCode, sync::Arc};

use guestlane::{SessionEngine, Workers, admission_control::AdmissionController};
use guestlane_cli::config::PLATFORM_RATE_LIMIT;
use guestlane_core::request::check_visible;
use guestlane_runtime::Clock;

use super::close;
use crate::{
    args::{Batch, Global},
    report::SOME_FAILED,
    settings,
};
use feed::Feeder;
use progress::Progress;
use results::Results;
use run::Run;
use summary::Summary;

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
    let results = Results::open(args.output.as_deref(), args.file(), global.json)?;
    let workers = tokio::spawn(Workers::new(Arc::clone(&engine)).run());
    let started = clock.monotonic();
    let max_concurrency = args
        .max_concurrency
        .map_or(AdmissionController::MAX_CONCURRENCY, usize::from);
    let feeder = Feeder {
        admission: Arc::new(AdmissionController::new(
            Arc::clone(&engine),
            max_concurrency,
        )),
        engine: Arc::clone(&engine),
        known: results.known(),
    };
    let progress = Progress::begin(args.quiet, size, &clock);
    let ended = Run::begin(rows, feeder, results, progress)
        .until_finished()
        .await?;

    let summary = Summary::new(&ended, &engine, clock.monotonic().since(started));
    if ended.in_flight == 0 {
        close(&engine).await;
    }
    workers.abort();
    summary.print(global, args, &ended);
    let complete = ended.counts.failed == 0 && ended.stop.is_none();
    Ok(ExitCode::from(if complete { 0 } else { SOME_FAILED }))
}
