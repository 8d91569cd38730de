//! Limits of a group of reads: how many may wait, and how long each may take.

use std::time::Duration;

use tokio::sync::mpsc;

use super::StoreError;

/// Limits of a group of reads. The constants define the groups.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    /// Maximum number of reads that wait for a connection.
    pub waiting: usize,
    /// Time limit of one read.
    pub timeout: Duration,
    /// Whether a read fails with [`StoreError::Busy`] when the maximum is waiting. Otherwise its
    /// caller waits for room.
    pub rejects_when_full: bool,
}

impl ReadLimits {
    /// Reads of the engine and its background work. A statement may read millions of rows.
    pub const ENGINE: Self = Self {
        waiting: 1024,
        timeout: Duration::from_secs(300),
        rejects_when_full: false,
    };

    /// Reads on behalf of HTTP callers. Few may wait, and none takes long.
    pub const CALLERS: Self = Self {
        waiting: 64,
        timeout: Duration::from_secs(5),
        rejects_when_full: true,
    };

    /// Reads of a whole table, such as the verification of an audit log.
    pub const BULK: Self = Self {
        waiting: 16,
        timeout: Duration::from_secs(300),
        rejects_when_full: false,
    };

    /// Sends a read to the reading threads. Waits for room without blocking a runtime thread, or
    /// fails with [`StoreError::Busy`].
    pub(super) async fn enqueue<Q>(
        self,
        questions: &mpsc::Sender<Q>,
        question: Q,
    ) -> Result<(), StoreError> {
        if !self.rejects_when_full {
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
