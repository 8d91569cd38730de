//! Readiness of the node, from what the process already knows: a probe must not wait for a store
//! that hangs.

use std::time::Duration;

use guestlane_runtime::Timestamp;

use crate::service::Service;

/// Maximum age of the last successful read. The sampler reads the store every second.
const MAX_READ_AGE: Duration = Duration::from_secs(5);

/// Maximum age of the last successful commit. Without other commits, a probe commits every
/// [`PROBE_INTERVAL`].
const MAX_WRITE_AGE: Duration = Duration::from_secs(15);

/// Interval of write probes to a store without other commits.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Interval at which the probe task checks whether a probe is due.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Size of a probe while commits succeed, in bytes.
const PROBE_BYTES: usize = 512;

/// Size of a probe while commits fail, in bytes. It is larger than a session, so that the probe
/// succeeds only once there is room for sessions.
const RECOVERY_PROBE_BYTES: usize = 64 * 1024;

/// Why the node is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotReadyReason {
    ShuttingDown,
    Unreadable,
    Unwritable,
    KeysStale,
}

impl NotReadyReason {
    /// The reason as text, without host names.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::ShuttingDown => "the service is shutting down",
            Self::Unreadable => "the store does not respond",
            Self::Unwritable => "the store does not accept writes",
            Self::KeysStale => "the API keys could not be read for 30 seconds",
        }
    }
}

/// Checks whether the node accepts requests.
///
/// # Errors
/// The reason why it does not.
pub(crate) fn check(service: &Service) -> Result<(), NotReadyReason> {
    if service.is_draining() {
        return Err(NotReadyReason::ShuttingDown);
    }
    if !is_readable(service) {
        return Err(NotReadyReason::Unreadable);
    }
    if !is_writable(service) {
        return Err(NotReadyReason::Unwritable);
    }
    if service.keys_are_stale() {
        return Err(NotReadyReason::KeysStale);
    }
    Ok(())
}

/// Whether the store has answered a read within [`MAX_READ_AGE`].
pub(crate) fn is_readable(service: &Service) -> bool {
    age(service, service.snapshot().borrow().read_at) <= MAX_READ_AGE
}

/// Whether the last commit succeeded, at most [`MAX_WRITE_AGE`] ago. Before the first commit, the
/// store counts as writable.
pub(crate) fn is_writable(service: &Service) -> bool {
    let last = service.engine().store().last_writes();
    last.failing_since.is_none()
        && last
            .succeeded_at
            .is_none_or(|at| age(service, at) <= MAX_WRITE_AGE)
}

fn age(service: &Service, at: Timestamp) -> Duration {
    service.clock().monotonic().since(at)
}

/// Commits a probe when nothing else has been committed for [`PROBE_INTERVAL`], or when the last
/// commit failed. So a full disk is detected before a request fails, and its end as soon as
/// possible.
pub(crate) async fn probe_writes(service: &Service) {
    let store = service.engine().store();
    loop {
        service.clock().sleep(LOOK_INTERVAL).await;
        let last = store.last_writes();
        if last.failing_since.is_some() {
            store.probe_write(RECOVERY_PROBE_BYTES).await;
        } else if last
            .succeeded_at
            .is_none_or(|at| age(service, at) >= PROBE_INTERVAL)
        {
            store.probe_write(PROBE_BYTES).await;
        }
    }
}
