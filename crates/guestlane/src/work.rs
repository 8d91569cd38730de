//! A process's part of the batches in the database: takes rows as fast as the platform takes sessions, and writes down what came of each.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use guestlane_genesys::{Seam, Timestamp};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tracing::{info, warn};

use crate::{
    error::{Error, chain},
    intake::Intake,
    lane::Lane,
    ledger::RENEW_EVERY,
    store::{
        StoreError,
        batch::{RowEnd, RowFailure, RowPlace, TakenRow},
    },
};

/// How often rows are looked for, when nobody told that there are some.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Rows that are taken at once, at the most: a process that is slow leaves the rest to others.
const MOST_TAKEN: usize = 200;

/// And at the least, where so many are there.
const LEAST_TAKEN: usize = 8;

/// A row that failed for no fault of its own rests so long, and twice as long each time.
const REST: Duration = Duration::from_secs(5);

/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(300);

/// A row is tried so often.
const MOST_TRIES: u32 = 50;

/// One process's work on batches.
#[derive(Debug)]
pub struct Work {
    lane: Arc<Lane>,
    intake: Arc<Intake>,
    held: Arc<Mutex<HashSet<RowPlace>>>,
    ended: mpsc::Sender<(RowPlace, RowEnd)>,
}

impl Work {
    /// Works until `stop` is done; then what was begun is ended, and the rest given back. Without a shared store, an error at once.
    pub async fn run(lane: Arc<Lane>, intake: Arc<Intake>, stop: impl Future<Output = ()> + Send) -> Result<(), Error> {
        lane.store().take_rows(0, lane.clock().now()).await?;
        let (ended, ends) = mpsc::channel(1024);
        let work = Arc::new(Self { lane, intake, held: Arc::default(), ended });
        let (done, all_written) = oneshot::channel();
        let mut beside = JoinSet::new(); // which ends with this
        beside.spawn(write_ends(Arc::clone(&work.lane), Arc::clone(&work.held), ends, done));
        beside.spawn(renew(Arc::clone(&work.lane), Arc::clone(&work.held)));
        let mut rows = VecDeque::new();
        tokio::select! {
            () = work.take_all(&mut rows) => {}
            () = stop => {}
        }
        work.give_back(rows).await;
        drop(work); // when the last row has ended, nobody writes any more
        let _ = all_written.await;
        Ok(())
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashSet<RowPlace>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows that were not begun are anybody's.
    async fn give_back(&self, rows: VecDeque<TakenRow>) {
        let places: Vec<_> = rows.into_iter().map(|row| row.place).collect();
        self.held().retain(|held| !places.contains(held));
        if let Err(error) = self.lane.store().give_back_rows(places, self.lane.clock().now()).await {
            crate::store::log_failure(&error, "rows could not be given back; they are taken again when their leases end");
        }
    }

    /// Takes rows and begins them, for ever.
    async fn take_all(self: &Arc<Self>, rows: &mut VecDeque<TakenRow>) {
        let mut changes = self.lane.store().changes();
        loop {
            let queue = match rows.front().map(|row| &row.request) {
                Some(Ok(request)) => request.queue,
                Some(Err(_)) => {
                    self.begin(rows.pop_front(), ());
                    continue;
                }
                None => {
                    match self.take().await {
                        Ok(taken) if taken.is_empty() => tokio::select! {
                            () = changes.next() => {}
                            () = self.lane.clock().sleep(LOOK_EVERY) => {}
                        },
                        Ok(taken) => rows.extend(taken),
                        Err(error) => {
                            crate::store::log_failure(&error, "rows of batches could not be taken; it is tried again");
                            self.lane.clock().sleep(LOOK_EVERY).await;
                        }
                    }
                    continue;
                }
            };
            match self.intake.next(queue, |_| ()).await {
                Ok(begun) => self.begin(rows.pop_front(), begun),
                Err(outage) => {
                    warn!(
                        seconds = outage.0.as_secs(),
                        "the platform has been away for long; rows are left to be taken when it is back"
                    );
                    self.give_back(std::mem::take(rows)).await;
                    self.lane.clock().sleep(LONGEST_REST / 10).await;
                    self.lane.look_whether_it_is_back(queue).await;
                }
            }
        }
    }

    /// As many as are under way now: that is about a second's work, or less.
    async fn take(&self) -> Result<Vec<TakenRow>, StoreError> {
        let limit = self.intake.begun().clamp(LEAST_TAKEN, MOST_TAKEN);
        let taken = self.lane.store().take_rows(u32::try_from(limit).unwrap_or(1), self.lane.clock().now()).await?;
        self.held().extend(taken.iter().map(|row| row.place));
        if !taken.is_empty() {
            self.lane.seams.pass(Seam::RowsTaken).await;
        }
        Ok(taken)
    }

    /// Holds `begun` until the row has ended.
    fn begin(self: &Arc<Self>, row: Option<TakenRow>, begun: impl Send + 'static) {
        let work = Arc::clone(self);
        // A task of its own: signing keeps a core busy, and there is more than one.
        tokio::spawn(async move {
            if let Some(row) = row {
                work.create(row).await;
            }
            drop(begun);
        });
    }

    async fn create(&self, row: TakenRow) {
        let created = match row.request {
            Ok(request) => Box::pin(self.lane.create_in_background(request)).await,
            Err(error) => Err(error.into()),
        };
        let end = match created {
            Ok(opened) => {
                let replayed = opened.replayed && opened.session.admitted_at < row.since;
                RowEnd::Open { session: opened.session.id, replayed }
            }
            Err(error) => failed(&error, row.tries, self.lane.clock().now()),
        };
        let _ = self.ended.send((row.place, end)).await;
    }
}

/// What becomes of a row that failed.
fn failed(error: &Error, tries: u32, now: Timestamp) -> RowEnd {
    let advice = error.advice();
    let failure = RowFailure { code: advice.code.name().to_owned(), message: chain(error), cause: advice.cause, fix: advice.fix };
    if !advice.code.is_retryable() || tries + 1 >= MOST_TRIES {
        return RowEnd::Failed(failure);
    }
    let rest = REST.saturating_mul(1 << tries.min(8)).min(LONGEST_REST);
    RowEnd::Again(now + rest, failure)
}

/// Writes together whatever has ended. What cannot be written is done again by somebody, who finds the session open.
async fn write_ends(
    lane: Arc<Lane>,
    held: Arc<Mutex<HashSet<RowPlace>>>,
    mut ends: mpsc::Receiver<(RowPlace, RowEnd)>,
    done: oneshot::Sender<()>,
) {
    while let Some(first) = ends.recv().await {
        let mut ended = vec![first];
        while let Ok(next) = ends.try_recv() {
            ended.push(next);
        }
        lane.seams.pass(Seam::RowsEnded).await;
        let places: Vec<_> = ended.iter().map(|(place, _)| *place).collect();
        if let Err(error) = lane.store().end_rows(ended, lane.clock().now()).await {
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
async fn renew(lane: Arc<Lane>, held: Arc<Mutex<HashSet<RowPlace>>>) {
    loop {
        lane.clock().sleep(RENEW_EVERY).await;
        let places: Vec<_> = held.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        if places.is_empty() {
            continue;
        }
        if let Err(error) = lane.store().renew_rows(places, lane.clock().now()).await {
            crate::store::log_failure(&error, "leases of rows could not be renewed; another process may take them");
        }
    }
}
