//! The threads that serve reads, and writes without audit records. Each thread has its own
//! connection, opened on first use.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use guestlane_runtime::{Clock, FailPoint, FailPoints};
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::error::SqlState;

use super::{
    connection::{Connection, DbResult},
    migrations,
};
use crate::{PostgresUrl, ReadLimits, StoreError};

type ReadQuery = Box<dyn FnOnce(&mut Connection) + Send>;

/// How much longer the connection waits than the server's time limit, so that the server's error
/// for a slow statement arrives.
const MARGIN: Duration = Duration::from_secs(2);

/// Returns the time limit as a server setting. The server also ends statements whose caller is
/// gone.
fn settings(limits: ReadLimits) -> String {
    format!("SET statement_timeout = {}", limits.timeout.as_millis())
}

/// Replaces the server's error with [`StoreError::ReadTimeout`] where the time limit was the cause.
fn in_time(error: StoreError, limits: ReadLimits) -> StoreError {
    match &error {
        StoreError::Postgres {
            code: Some(code), ..
        } if code == SqlState::QUERY_CANCELED.code() => StoreError::ReadTimeout(limits.timeout),
        _ => error,
    }
}

/// A handle for sending work to the threads.
#[derive(Debug, Clone)]
pub(super) struct ConnectionPool {
    questions: mpsc::Sender<ReadQuery>,
    limits: ReadLimits,
    clock: Clock,
    fail_points: FailPoints,
}

impl ConnectionPool {
    pub(super) fn start(
        url: &PostgresUrl,
        threads: usize,
        limits: ReadLimits,
        clock: Clock,
        fail_points: FailPoints,
    ) -> DbResult<Self> {
        let (questions, receiver) = mpsc::channel::<ReadQuery>(limits.waiting);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..threads {
            let mut connection =
                Connection::new(url.clone(), settings(limits), limits.timeout + MARGIN)?;
            let receiver = Arc::clone(&receiver);
            let next = move || {
                receiver
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .blocking_recv()
            };
            let work = move || {
                while let Some(question) = next() {
                    question(&mut connection);
                }
            };
            let spawned = thread::Builder::new()
                .name("guestlane-ask".to_owned())
                .spawn(work);
            spawned.map_err(|error| StoreError::Open("guestlane-ask".into(), error))?;
        }
        Ok(Self {
            questions,
            limits,
            clock,
            fail_points,
        })
    }

    /// Runs a read, and repeats it after a transient error.
    pub(super) async fn read<T, F>(&self, mut question: F) -> DbResult<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Connection) -> DbResult<T> + Send + 'static,
    {
        self.on_a_connection(move |connection| connection.repeated(&mut question))
            .await
    }

    /// Runs a write in a transaction, and repeats it after a transient error. An in-doubt commit is
    /// repeated too, so `write` must be idempotent.
    pub(super) async fn write<T, F>(&self, mut write: F) -> DbResult<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Connection) -> DbResult<T> + Send + 'static,
    {
        let fail_points = self.fail_points.clone();
        self.on_a_connection(move |connection| {
            let written = connection.transaction(|tx| {
                tx.query("SELECT expect_format($1)", &[&migrations::known_number()])?;
                let value = write(tx)?;
                fail_points.hit_blocking(FailPoint::RowsWritten);
                fail_points.hit_blocking(FailPoint::RecordsWritten);
                Ok(value)
            })?;
            fail_points.hit_blocking(FailPoint::Committed);
            Ok(written)
        })
        .await
    }

    /// Runs `work` on a thread of the pool. Waits for room in the queue without blocking a runtime
    /// thread, and skips the work of a caller that is gone.
    async fn on_a_connection<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> DbResult<T> + Send + 'static,
    ) -> DbResult<T> {
        let _busy = self.clock.pause_auto_advance();
        let (answer, answered) = oneshot::channel();
        let (asked_at, limits) = (Clock::system().monotonic(), self.limits);
        let question: ReadQuery = Box::new(move |connection| {
            if !answer.is_closed() {
                connection.asked_at(asked_at);
                let _ = answer.send(work(connection).map_err(|error| in_time(error, limits)));
            }
        });
        limits.enqueue(&self.questions, question).await?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}
