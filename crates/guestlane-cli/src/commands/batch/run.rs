//! One run over the rows of a batch: rows are started as they are admitted, and each result is
//! counted and written.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context;
use guestlane::{
    AttemptLog, CreatedSession, Priority, SessionEngine,
    admission_control::{Permit, PlatformOutage},
};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    counts::Counts,
    feed::{FeedEvent, Feeder},
    progress::Progress,
    results::Results,
    rows::{Place, Row, RowError},
    signals::Signals,
};
use crate::{
    output,
    report::{self, ErrorJson},
};

/// Why no more rows are started.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stop {
    Interrupted,
    Outage(PlatformOutage),
}

impl Stop {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Interrupted => "interrupted",
            Self::Outage(_) => "outage",
        }
    }
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

/// The end of a run.
pub(super) struct Ended {
    pub(super) counts: Counts,
    pub(super) stop: Option<Stop>,
    /// The number of sessions that were in flight when the run was stopped. They are recorded in
    /// the store.
    pub(super) in_flight: usize,
}

/// The state of a run.
pub(super) struct Run {
    feeder: Feeder,
    feed: mpsc::Receiver<FeedEvent>,
    /// Whether the feed has no more rows.
    exhausted: bool,
    running: JoinSet<(Place, RowResult)>,
    /// Rows with a retryable error, until the second attempt. Rows without a second attempt are
    /// reported with their first error.
    failed: BTreeMap<u64, Failed>,
    /// Whether failed rows are in their second attempt.
    second: bool,
    stop: Option<Stop>,
    counts: Counts,
    results: Results,
    progress: Progress,
}

impl Run {
    pub(super) fn begin(
        rows: mpsc::Receiver<Result<Row, RowError>>,
        feeder: Feeder,
        results: Results,
        progress: Progress,
    ) -> Self {
        Self {
            feed: feeder.begin(rows),
            feeder,
            exhausted: false,
            running: JoinSet::new(),
            failed: BTreeMap::new(),
            second: false,
            stop: None,
            counts: Counts::default(),
            results,
            progress,
        }
    }

    /// Runs until all rows are finished, the platform fails for too long, or a signal stops it.
    pub(super) async fn until_finished(mut self) -> anyhow::Result<Ended> {
        let mut signals = Signals::listen()?;
        let clock = self.feeder.engine.clock().clone();
        while self.has_more() {
            tokio::select! {
                () = signals.next() => {
                    if self.stop.is_some() {
                        break;
                    }
                    self.interrupt();
                }
                fed = self.feed.recv(), if !self.exhausted => self.on_fed(fed)?,
                Some(ended) = self.running.join_next() => {
                    let (place, result) = ended.context("the task of a row failed")?;
                    self.on_ended(place, result)?;
                }
                () = Progress::due(&clock) => {}
            }
            self.progress.show(&self.counts, &self.feeder.engine);
        }
        self.finish()
    }

    /// Whether a row is to be started or runs. When the first attempts are done, the rows with a
    /// retryable error are fed once more.
    fn has_more(&mut self) -> bool {
        if !self.exhausted || !self.running.is_empty() {
            return true;
        }
        if self.stop.is_some() || self.failed.is_empty() || self.second {
            return false;
        }
        self.second = true;
        self.feed_again();
        true
    }

    fn feed_again(&mut self) {
        let rows = self.failed.len() as u64;
        self.counts.begun -= rows;
        output::stderr_line(format!(
            "{} failed with a retryable error; retrying once.",
            output::count(rows, "row")
        ));
        let (sender, receiver) = mpsc::channel(self.failed.len());
        for (_, row) in self.failed.values() {
            // The channel has room for all rows.
            let _ = sender.try_send(Ok(row.clone()));
        }
        self.feed = self.feeder.begin(receiver);
        self.exhausted = false;
    }

    fn interrupt(&mut self) {
        self.stop = Some(Stop::Interrupted);
        self.exhausted = true;
        self.feed.close();
        output::stderr_line(format!(
            "Finishing {}; press Ctrl-C again to stop at once.",
            output::count(self.running.len() as u64, "session")
        ));
    }

    fn on_fed(&mut self, fed: Option<FeedEvent>) -> anyhow::Result<()> {
        match fed {
            Some(FeedEvent::Row(row, permit)) => {
                self.counts.begin(row.place);
                let engine = Arc::clone(&self.feeder.engine);
                // Each row is a separate task, because signing is CPU-bound and can use several
                // cores.
                self.running.spawn(create(engine, row, permit));
            }
            Some(FeedEvent::AlreadyDone(place)) => {
                self.counts.begin(place);
                self.count(place, RowResult::Known)?;
            }
            Some(FeedEvent::Invalid(bad)) => {
                self.counts.begin(bad.place);
                self.count(bad.place, RowResult::Bad(bad))?;
            }
            Some(FeedEvent::Stopped(outage)) => {
                self.stop = Some(Stop::Outage(outage));
                self.exhausted = true;
            }
            None => self.exhausted = true,
        }
        Ok(())
    }

    fn on_ended(&mut self, place: Place, result: RowResult) -> anyhow::Result<()> {
        self.failed.remove(&place.row());
        match result {
            RowResult::Failed(ended)
                if !self.second
                    && ended.0.code().is_retryable()
                    && self.failed.len() < MAX_RETRIED_ROWS =>
            {
                self.failed.insert(place.row(), *ended);
                Ok(())
            }
            result => self.count(place, result),
        }
    }

    fn count(&mut self, place: Place, result: RowResult) -> anyhow::Result<()> {
        let (counts, results) = (&mut self.counts, &mut self.results);
        counts.rows += 1;
        match result {
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

    fn finish(mut self) -> anyhow::Result<Ended> {
        let in_flight = self.running.len();
        self.running.detach_all();
        // After a second interrupt, this includes rows in their second attempt.
        for (_, ended) in std::mem::take(&mut self.failed) {
            self.count(ended.1.place, RowResult::Failed(Box::new(ended)))?;
        }
        self.progress.end();
        self.results.finish()?;
        Ok(Ended {
            counts: self.counts,
            stop: self.stop,
            in_flight,
        })
    }
}

async fn create(engine: Arc<SessionEngine>, row: Row, permit: Permit) -> (Place, RowResult) {
    let created = engine
        .create_with(
            row.request.clone(),
            Priority::Background,
            AttemptLog::default(),
        )
        .await;
    drop(permit);
    match created {
        Ok(opened) => (row.place, RowResult::Opened(Box::new(opened))),
        Err(error) => (row.place, RowResult::Failed(Box::new((error, row)))),
    }
}
