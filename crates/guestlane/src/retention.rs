//! Forgetting what is old, in small steps, beside everything else that a process does.

use std::time::Duration;

use tracing::info;

use crate::{
    engine::SessionEngine,
    store::{Pruned, StoreError},
};

/// The shortest time for which sessions are kept: the platform remembers a key so long (requirement
/// R6, docs/requirements.md). A key that was forgotten here and not there yet could be used for
/// another session, and a caller who repeats a wish would be refused or get a second one.
pub const MIN_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// How many sessions are looked at in one transaction. Callers wait for it: 200 of a store of a million took 70 ms on a busy machine.
const BATCH_SIZE: u32 = 100;

/// Between two steps, so that there is room for callers.
const PAUSE: Duration = Duration::from_millis(100);

/// Between the end of what is old and the next look.
const IDLE_INTERVAL: Duration = Duration::from_secs(300);

impl SessionEngine {
    /// Deletes the sessions and batches whose time is over, until there is none. Without a retention it only records the time, which
    /// a retention that is set later will trust.
    pub async fn prune(&self) -> Result<Pruned, StoreError> {
        let mut sum = Pruned::default();
        let Some(until) = self.store.advance_retention(self.keep_sessions).await? else { return Ok(sum) };
        while self.store.prune_batches(until).await? > 0 {
            self.clock.sleep(PAUSE).await;
        }
        loop {
            sum += self.store.prune(sum.next, until, BATCH_SIZE).await?;
            if sum.next.is_none() {
                return Ok(sum);
            }
            self.clock.sleep(PAUSE).await;
        }
    }

    /// Does so for ever.
    pub(crate) async fn prune_loop(&self) {
        loop {
            match self.prune().await {
                Ok(Pruned { sessions: 0, .. }) => {}
                Ok(Pruned { sessions, events, .. }) => info!(sessions, events, "deleted sessions whose retention is over"),
                Err(error) => crate::store::log_failure(&error, "retention failed; it is tried again in five minutes"),
            }
            self.clock.sleep(IDLE_INTERVAL).await;
        }
    }
}
