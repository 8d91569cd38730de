//! A process's part of the batches in the database: takes rows as fast as the platform takes sessions, and writes down what came of each.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use guestlane_genesys::{FailPoint, Timestamp};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tracing::{info, warn};

use crate::{
    admission_control::AdmissionController,
    engine::SessionEngine,
    error::{Error, display_chain},
    session::LEASE_RENEW_INTERVAL,
    store::{
        StoreError,
        batch::{ClaimedRow, RowFailure, RowLease, RowOutcome},
    },
};

/// How often rows are looked for, when nobody told that there are some.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Rows that are taken at once, at the most: a process that is slow leaves the rest to others.
const MAX_CLAIM: usize = 200;

/// And at the least, where so many are there.
const MIN_CLAIM: usize = 8;

/// A row that failed for no fault of its own rests so long, and twice as long each time.
const REST: Duration = Duration::from_secs(5);

/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(300);

/// A row is tried so often.
const MAX_ATTEMPTS: u32 = 50;

/// One process's work on batches.
#[derive(Debug)]
pub struct BatchWorker {
    engine: Arc<SessionEngine>,
    intake: Arc<AdmissionController>,
    held: Arc<Mutex<HashSet<RowLease>>>,
    ended: mpsc::Sender<(RowLease, RowOutcome)>,
}

impl BatchWorker {
    /// Works until `stop` is done; then what was begun is ended, and the rest given back. Without a shared store, an error at once.
    pub async fn run(
        engine: Arc<SessionEngine>,
        intake: Arc<AdmissionController>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), Error> {
        engine.store().claim_rows(0, engine.clock().now()).await?;
        let (ended, ends) = mpsc::channel(1024);
        let work = Arc::new(Self { engine, intake, held: Arc::default(), ended });
        let (done, all_written) = oneshot::channel();
        let mut beside = JoinSet::new(); // which ends with this
        beside.spawn(complete_rows(Arc::clone(&work.engine), Arc::clone(&work.held), ends, done));
        beside.spawn(renew(Arc::clone(&work.engine), Arc::clone(&work.held)));
        let mut rows = VecDeque::new();
        tokio::select! {
            () = work.claim_loop(&mut rows) => {}
            () = stop => {}
        }
        work.release(rows).await;
        drop(work); // when the last row has ended, nobody writes any more
        let _ = all_written.await;
        Ok(())
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashSet<RowLease>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows that were not begun are anybody's.
    async fn release(&self, rows: VecDeque<ClaimedRow>) {
        let places: Vec<_> = rows.into_iter().map(|row| row.place).collect();
        self.held().retain(|held| !places.contains(held));
        if let Err(error) = self.engine.store().release_rows(places, self.engine.clock().now()).await {
            crate::store::log_failure(&error, "rows could not be given back; they are taken again when their leases end");
        }
    }

    /// Takes rows and begins them, for ever.
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
                            () = self.engine.clock().sleep(LOOK_EVERY) => {}
                        },
                        Ok(taken) => rows.extend(taken),
                        Err(error) => {
                            crate::store::log_failure(&error, "rows of batches could not be taken; it is tried again");
                            self.engine.clock().sleep(LOOK_EVERY).await;
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
                        "the platform has been away for long; rows are left to be taken when it is back"
                    );
                    self.release(std::mem::take(rows)).await;
                    self.engine.clock().sleep(LONGEST_REST / 10).await;
                    self.engine.probe_platform(queue).await;
                }
            }
        }
    }

    /// As many as are under way now: that is about a second's work, or less.
    async fn claim(&self) -> Result<Vec<ClaimedRow>, StoreError> {
        let limit = self.intake.begun().clamp(MIN_CLAIM, MAX_CLAIM);
        let taken = self.engine.store().claim_rows(u32::try_from(limit).unwrap_or(1), self.engine.clock().now()).await?;
        self.held().extend(taken.iter().map(|row| row.place));
        if !taken.is_empty() {
            self.engine.fail_points.hit(FailPoint::RowsTaken).await;
        }
        Ok(taken)
    }

    /// Holds `begun` until the row has ended.
    fn spawn_row(self: &Arc<Self>, row: Option<ClaimedRow>, begun: impl Send + 'static) {
        let work = Arc::clone(self);
        // A task of its own: signing keeps a core busy, and there is more than one.
        tokio::spawn(async move {
            if let Some(row) = row {
                work.create(row).await;
            }
            drop(begun);
        });
    }

    async fn create(&self, row: ClaimedRow) {
        let created = match row.request {
            Ok(request) => Box::pin(self.engine.create_in_background(request)).await,
            Err(error) => Err(error.into()),
        };
        let end = match created {
            Ok(opened) => {
                let replayed = opened.replayed && opened.session.admitted_at < row.since;
                RowOutcome::Open { session: opened.session.id, replayed }
            }
            Err(error) => failed(&error, row.tries, self.engine.clock().now()),
        };
        let _ = self.ended.send((row.place, end)).await;
    }
}

/// What becomes of a row that failed.
fn failed(error: &Error, tries: u32, now: Timestamp) -> RowOutcome {
    let advice = error.advice();
    let failure =
        RowFailure { code: advice.code.name().to_owned(), message: display_chain(error), cause: advice.cause, fix: advice.fix };
    if !advice.code.is_retryable() || tries + 1 >= MAX_ATTEMPTS {
        return RowOutcome::Failed(failure);
    }
    let rest = REST.saturating_mul(1 << tries.min(8)).min(LONGEST_REST);
    RowOutcome::Retry(now + rest, failure)
}

/// Writes together whatever has ended. What cannot be written is done again by somebody, who finds the session open.
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
        engine.fail_points.hit(FailPoint::RowsEnded).await;
        let places: Vec<_> = ended.iter().map(|(place, _)| *place).collect();
        if let Err(error) = engine.store().complete_rows(ended, engine.clock().now()).await {
            crate::store::log_failure(&error, "what came of rows could not be written; they are looked at again");
        }
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        for place in &places {
            held.remove(place);
        }
    }
    info!("what was begun of batches is done");
    let _ = done.send(());
}

/// A process that lives keeps its rows.
async fn renew(engine: Arc<SessionEngine>, held: Arc<Mutex<HashSet<RowLease>>>) {
    loop {
        engine.clock().sleep(LEASE_RENEW_INTERVAL).await;
        let places: Vec<_> = held.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        if places.is_empty() {
            continue;
        }
        if let Err(error) = engine.store().renew_rows(places, engine.clock().now()).await {
            crate::store::log_failure(&error, "leases of rows could not be renewed; another process may take them");
        }
    }
}
