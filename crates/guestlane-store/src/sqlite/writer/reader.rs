//! The reader thread: queries with a time limit, beside the writer.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use guestlane_runtime::Clock;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use super::{super::sqlite_code, spawn};
use crate::{ReadLimits, StoreError};

type ReadQuery = Box<dyn FnOnce(&Connection) + Send>;

/// Handle to a reader thread.
#[derive(Debug, Clone)]
pub(in crate::sqlite) struct Reader {
    questions: mpsc::Sender<ReadQuery>,
    limits: ReadLimits,
    clock: Clock,
}

/// Number of instructions of SQLite's virtual machine between two checks of the time limit: about a
/// millisecond.
const INSTRUCTIONS_PER_LOOK: i32 = 20_000;

impl Reader {
    pub(crate) fn start(
        mut connection: Connection,
        limits: ReadLimits,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        let (questions, mut receiver) = mpsc::channel::<ReadQuery>(limits.waiting);
        let real = Clock::system();
        let until = Arc::new(AtomicI64::new(i64::MAX));
        let limit = Arc::clone(&until);
        let is_late =
            move || Clock::system().monotonic().unix_micros() > limit.load(Ordering::Relaxed);
        connection.progress_handler(INSTRUCTIONS_PER_LOOK, Some(is_late))?;
        spawn("guestlane-read", move || {
            while let Some(question) = receiver.blocking_recv() {
                until.store(
                    (real.monotonic() + limits.timeout).unix_micros(),
                    Ordering::Relaxed,
                );
                question(&connection);
            }
        })?;
        Ok(Self {
            questions,
            limits,
            clock,
        })
    }

    /// Runs `question` on the reader thread. Waiting for queue capacity blocks no thread of the
    /// runtime. A read whose caller has gone away is skipped.
    pub(crate) async fn read<T, F>(&self, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let _busy = self.clock.pause_auto_advance();
        let (answer, answered) = oneshot::channel();
        let limits = self.limits;
        let question: ReadQuery = Box::new(move |connection| {
            if !answer.is_closed() {
                let _ = answer.send(question(connection).map_err(|error| in_time(error, limits)));
            }
        });
        limits.enqueue(&self.questions, question).await?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

/// Maps an interrupted query to [`StoreError::ReadTimeout`].
fn in_time(error: StoreError, limits: ReadLimits) -> StoreError {
    if sqlite_code(&error) == Some(ErrorCode::OperationInterrupted) {
        StoreError::ReadTimeout(limits.timeout)
    } else {
        error
    }
}
