//! Retention: deletes old sessions and batches in small transactions, in the background.

use std::time::Duration;

use tracing::info;

use crate::engine::SessionEngine;
use guestlane_store::{Pruned, StoreError};

/// The shortest retention of sessions: the platform remembers an idempotency key for 24 hours
/// (requirement R6, docs/requirements.md). If the store forgot a key earlier than the platform, the
/// key could be reused for another session. A retry would then be rejected, or create a second
/// session.
pub(crate) const MIN_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// How many sessions one transaction examines. Callers wait for that transaction: 200 sessions in a
/// store of a million took 70 ms on a busy machine.
const BATCH_SIZE: u32 = 100;

/// Pause between two transactions, so that callers can write.
const BATCH_PAUSE: Duration = Duration::from_millis(100);

/// Wait between the end of a pass and the next pass.
const IDLE_INTERVAL: Duration = Duration::from_secs(300);

impl SessionEngine {
    /// Deletes the sessions and batches whose retention is over, until none is left. Without a
    /// retention, it only records the elapsed time, on which a retention that is set later relies.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn prune(&self) -> Result<Pruned, StoreError> {
        let mut sum = Pruned::default();
        let Some(until) = self
            .saga
            .store
            .advance_retention(self.keep_sessions)
            .await?
        else {
            return Ok(sum);
        };
        while self.saga.store.prune_batches(until).await? > 0 {
            self.saga.clock.sleep(BATCH_PAUSE).await;
        }
        loop {
            sum += self.saga.store.prune(sum.next, until, BATCH_SIZE).await?;
            if sum.next.is_none() {
                return Ok(sum);
            }
            self.saga.clock.sleep(BATCH_PAUSE).await;
        }
    }

    /// Runs [`prune`](Self::prune) periodically; never returns.
    pub(crate) async fn prune_loop(&self) {
        loop {
            match self.prune().await {
                Ok(Pruned { sessions: 0, .. }) => {}
                Ok(Pruned {
                    sessions, events, ..
                }) => info!(
                    sessions,
                    events, "deleted sessions past their retention period"
                ),
                Err(error) => guestlane_store::log_failure(
                    &error,
                    "retention failed; retrying in five minutes",
                ),
            }
            self.saga.clock.sleep(IDLE_INTERVAL).await;
        }
    }
}
