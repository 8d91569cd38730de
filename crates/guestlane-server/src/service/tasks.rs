//! Background tasks of the service: API keys and platform probes.

use std::{collections::HashMap, sync::PoisonError, time::Duration};

use guestlane_core::{api_key::ApiKeySet, request::QueueId};
use guestlane_runtime::Timestamp;
use guestlane_store::log_failure;
use uuid::Uuid;

use super::Service;

/// Interval at which the API keys are read again, so that keys created or revoked by another
/// process take effect.
const LOOK_AT_KEYS: Duration = Duration::from_secs(1);

/// Interval of probe calls while the platform is failing.
const LOOK_AT_PLATFORM: Duration = Duration::from_secs(15);

impl Service {
    /// Probes the platform while its circuit breaker is open. So an outage ends without user
    /// traffic.
    pub(crate) async fn probe_platform(&self) {
        loop {
            self.clock().sleep(LOOK_AT_PLATFORM).await;
            if self.engine.platform_down_for().is_some() {
                self.engine
                    .probe_platform(self.queue.unwrap_or(QueueId(Uuid::nil())))
                    .await;
            }
        }
    }

    /// Reads the API keys again at each change in the store, and at least every
    /// [`LOOK_AT_KEYS`].
    pub(crate) async fn reload_api_keys(&self) {
        let mut changes = self.engine.store().changes();
        loop {
            tokio::select! {
                () = changes.next() => {}
                () = self.clock().sleep(LOOK_AT_KEYS) => {}
            }
            // The age counts from the start of the read: changes during the read may be missing
            // from its result.
            let asked_at = self.clock().monotonic();
            match self.engine.store().api_keys().await {
                Ok(keys) => self.keep_keys(ApiKeySet::new(self.hash_key.clone(), keys), asked_at),
                Err(error) => log_failure(
                    &error,
                    "failed to reload the API keys; rejecting every request after 30 seconds \
                     without a reload",
                ),
            }
        }
    }

    /// Writes when keys were used. It is a task of its own because a write may wait, and a revoked
    /// key must not stay accepted meanwhile.
    pub(crate) async fn store_key_usage(&self) {
        let mut written: HashMap<String, Timestamp> = HashMap::new();
        loop {
            self.clock().sleep(LOOK_AT_KEYS).await;
            let used = self
                .used
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let new: Vec<_> = used
                .iter()
                .filter(|(id, at)| written.get(*id) != Some(at))
                .map(|(id, at)| (id.clone(), *at))
                .collect();
            if new.is_empty() {
                continue;
            }
            match self.engine.store().touch_api_keys(new).await {
                Ok(()) => written = used,
                Err(error) => {
                    log_failure(&error, "failed to write the last use of API keys; retrying")
                }
            }
        }
    }
}
