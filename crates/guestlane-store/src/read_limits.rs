//! Bounds of a group of reads: how many may wait, and how long each may take.

use std::time::Duration;

use tokio::sync::mpsc;

use super::StoreError;

/// See the constants.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    /// Reads that wait for a connection.
    pub waiting: usize,
    /// How long one read may take.
    pub timeout: Duration,
    /// Whether a read is refused ([`StoreError::Busy`]) when as many wait; else its caller waits for room.
    pub refuses: bool,
}

impl ReadLimits {
    /// Reads of the engine and its background work. A statement may look through millions of rows.
    pub const ENGINE: Self = Self {
        waiting: 1024,
        timeout: Duration::from_secs(300),
        refuses: false,
    };

    /// Reads on behalf of HTTP callers: few wait, and none takes long.
    pub const CALLERS: Self = Self {
        waiting: 64,
        timeout: Duration::from_secs(5),
        refuses: true,
    };

    /// A read of a whole table, such as the verification of an audit log.
    pub const BULK: Self = Self {
        waiting: 16,
        timeout: Duration::from_secs(300),
        refuses: false,
    };

    /// Gives a question to the threads that read. Waits for room without a thread of the runtime, or refuses.
    pub(super) async fn enqueue<Q>(
        self,
        questions: &mpsc::Sender<Q>,
        question: Q,
    ) -> Result<(), StoreError> {
        if !self.refuses {
            return questions
                .send(question)
                .await
                .map_err(|_| StoreError::Closed);
        }
        questions.try_send(question).map_err(|full| match full {
            mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
        })
    }
}
