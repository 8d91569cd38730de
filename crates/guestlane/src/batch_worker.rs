//! The batch worker of one process: claims rows from the database as fast as the platform takes
//! sessions, and stores their results.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use guestlane_runtime::{FailPoint, Timestamp};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tracing::{info, warn};

use guestlane_genesys::{AttemptLog, Priority};

use crate::{Error, admission_control::AdmissionController, engine::SessionEngine};
use guestlane_core::session::LEASE_RENEW_INTERVAL;
use guestlane_store::{
    StoreError,
    batch::{ClaimedRow, RowFailure, RowLease, RowOutcome},
};

/// How often the worker polls for rows, when the store sends no notification.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Largest number of rows in one claim. A slow process thus leaves rows to other nodes.
const MAX_CLAIM: usize = 200;

/// Smallest number of rows in one claim, if that many are due.
const MIN_CLAIM: usize = 8;

/// First backoff of a row whose failure is retryable. It doubles with each attempt.
const INITIAL_BACKOFF: Duration = Duration::from_secs(5);

/// Longest backoff of a row.
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// A row fails for good after this many attempts.
const MAX_ATTEMPTS: u32 = 50;

/// The batch worker of one process.
#[derive(Debug)]
pub struct BatchWorker {
    engine: Arc<SessionEngine>,
    intake: Arc<AdmissionController>,
    held: Arc<Mutex<HashSet<RowLease>>>,
    ended: mpsc::Sender<(RowLease, RowOutcome)>,
}

impl BatchWorker {
    /// Runs until `stop` completes. Rows that have begun are then finished, and claimed rows that
    /// have not begun are released.
    ///
    /// # Errors
    /// Returns an error at once if the store is not shared or fails.
    pub async fn run(
        engine: Arc<SessionEngine>,
        intake: Arc<AdmissionController>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), Error> {
        engine
            .store()
            .batches()?
            .claim_rows(0, engine.clock().now())
            .await?;
        let (ended, ends) = mpsc::channel(1024);
        let work = Arc::new(Self {
            engine,
            intake,
            held: Arc::default(),
            ended,
        });
        let (done, all_written) = oneshot::channel();
        let mut beside = JoinSet::new(); // These tasks are aborted when this function returns.
        beside.spawn(complete_rows(
            Arc::clone(&work.engine),
            Arc::clone(&work.held),
            ends,
            done,
        ));
        beside.spawn(renew(Arc::clone(&work.engine), Arc::clone(&work.held)));
        let mut rows = VecDeque::new();
        tokio::select! {
            () = work.claim_loop(&mut rows) => {}
            () = stop => {}
        }
        work.release(rows).await;
        drop(work); // The last row drops the last sender, which ends `complete_rows`.
        let _ = all_written.await;
        Ok(())
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashSet<RowLease>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Releases rows that have not begun, so that other nodes can claim them.
    async fn release(&self, rows: VecDeque<ClaimedRow>) {
        let places: Vec<_> = rows.into_iter().map(|row| row.place).collect();
        self.held().retain(|held| !places.contains(held));
        let now = self.engine.clock().now();
        let released = async {
            let batches = self.engine.store().batches()?;
            batches.release_rows(places, now).await
        };
        if let Err(error) = released.await {
            guestlane_store::log_failure(
                &error,
                "failed to release batch rows; they can be claimed again when their leases end",
            );
        }
    }

    /// Claims rows and starts them; never returns.
    async fn claim_loop(self: &Arc<Self>, rows: &mut VecDeque<ClaimedRow>) {
        let mut changes = self.engine.store().changes();
        loop {
            let queue = match rows.front().map(|row| &row.request) {
                Some(Ok(request)) => request.queue,
                Some(Err(_)) => {
                    self.spawn_row(rows.pop_front(), ());
                    continue;
                }
                None => {
                    match self.claim().await {
                        Ok(taken) if taken.is_empty() => tokio::select! {
                            () = changes.next() => {}
                            () = self.engine.clock().sleep(POLL_INTERVAL) => {}
                        },
                        Ok(taken) => rows.extend(taken),
                        Err(error) => {
                            guestlane_store::log_failure(
                                &error,
                                "failed to claim batch rows; retrying",
                            );
                            self.engine.clock().sleep(POLL_INTERVAL).await;
                        }
                    }
                    continue;
                }
            };
            match self.intake.acquire(queue, |_| ()).await {
                Ok(begun) => self.spawn_row(rows.pop_front(), begun),
                Err(outage) => {
                    warn!(
                        seconds = outage.0.as_secs(),
                        "the platform has been unavailable for too long; releasing batch rows until it recovers"
                    );
                    self.release(std::mem::take(rows)).await;
                    self.engine.clock().sleep(MAX_BACKOFF / 10).await;
                    self.engine.probe_platform(queue).await;
                }
            }
        }
    }

    /// Claims as many rows as are in flight now. That is about a second of work, or less.
    async fn claim(&self) -> Result<Vec<ClaimedRow>, StoreError> {
        let limit = self.intake.begun().clamp(MIN_CLAIM, MAX_CLAIM);
        let taken = self
            .engine
            .store()
            .batches()?
            .claim_rows(u32::try_from(limit).unwrap_or(1), self.engine.clock().now())
            .await?;
        self.held().extend(taken.iter().map(|row| row.place));
        if !taken.is_empty() {
            self.engine
                .saga
                .fail_points
                .hit(FailPoint::RowsClaimed)
                .await;
        }
        Ok(taken)
    }

    /// Starts a row in its own task. The task holds `begun` until the row has ended.
    fn spawn_row(self: &Arc<Self>, row: Option<ClaimedRow>, begun: impl Send + 'static) {
        let work = Arc::clone(self);
        // Signing a token keeps a core busy; separate tasks use all cores.
        tokio::spawn(async move {
            if let Some(row) = row {
                work.create(row).await;
            }
            drop(begun);
        });
    }

    async fn create(&self, row: ClaimedRow) {
        let created = match row.request {
            Ok(request) => {
                Box::pin(self.engine.create_with(
                    request,
                    Priority::Background,
                    AttemptLog::default(),
                ))
                .await
            }
            Err(error) => Err(error.into()),
        };
        let end = match created {
            Ok(opened) => {
                let replayed = opened.replayed && opened.session.admitted_at < row.since;
                RowOutcome::Open {
                    session: opened.session.id,
                    replayed,
                }
            }
            Err(error) => {
                let failure = (self.engine.diagnose)(&error).into();
                let may_retry = error.code().is_retryable();
                failed(failure, may_retry, row.attempts, self.engine.clock().now())
            }
        };
        let _ = self.ended.send((row.place, end)).await;
    }
}

/// The outcome of a row whose session failed: retried after a backoff, or failed for good.
fn failed(failure: RowFailure, may_retry: bool, attempts: u32, now: Timestamp) -> RowOutcome {
    if !may_retry || attempts + 1 >= MAX_ATTEMPTS {
        return RowOutcome::Failed(failure);
    }
    let rest = INITIAL_BACKOFF
        .saturating_mul(1 << attempts.min(8))
        .min(MAX_BACKOFF);
    RowOutcome::Retry(now + rest, failure)
}

/// Stores the outcomes of rows in groups. If a write fails, the leases expire and a node claims the
/// rows again; it then finds the sessions open.
async fn complete_rows(
    engine: Arc<SessionEngine>,
    held: Arc<Mutex<HashSet<RowLease>>>,
    mut ends: mpsc::Receiver<(RowLease, RowOutcome)>,
    done: oneshot::Sender<()>,
) {
    while let Some(first) = ends.recv().await {
        let mut ended = vec![first];
        while let Ok(next) = ends.try_recv() {
            ended.push(next);
        }
        engine.saga.fail_points.hit(FailPoint::RowsEnded).await;
        let places: Vec<_> = ended.iter().map(|(place, _)| *place).collect();
        let now = engine.clock().now();
        let recorded = async { engine.store().batches()?.complete_rows(ended, now).await };
        if let Err(error) = recorded.await {
            guestlane_store::log_failure(
                &error,
                "failed to record the results of batch rows; they are processed again when their leases end",
            );
        }
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        for place in &places {
            held.remove(place);
        }
    }
    info!("completed the batch rows in progress");
    let _ = done.send(());
}

/// Renews the leases of the rows that this process holds.
async fn renew(engine: Arc<SessionEngine>, held: Arc<Mutex<HashSet<RowLease>>>) {
    loop {
        engine.clock().sleep(LEASE_RENEW_INTERVAL).await;
        let places: Vec<_> = held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .copied()
            .collect();
        if places.is_empty() {
            continue;
        }
        let now = engine.clock().now();
        let renewed = async { engine.store().batches()?.renew_rows(places, now).await };
        if let Err(error) = renewed.await {
            guestlane_store::log_failure(
                &error,
                "failed to renew the leases of batch rows; another process may claim the rows",
            );
        }
    }
}
