//! Whether the node takes requests, from what the process knows already: a probe must not wait for a store that hangs.

use std::time::Duration;

use guestlane::Timestamp;

use crate::service::Service;

/// How old the last successful read may be. The store is read every second.
const MAX_READ_AGE: Duration = Duration::from_secs(5);

/// How old the last successful commit may be. Without other commits one is made every [`PROBE_INTERVAL`].
const MAX_WRITE_AGE: Duration = Duration::from_secs(15);

/// How often a store that nothing is written to is probed.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Between two looks whether a probe is due.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of a probe while commits succeed.
const PROBE_BYTES: usize = 512;

/// Bytes of a probe while commits fail: more than a session has, so that it succeeds only once there is room for sessions.
const RECOVERY_PROBE_BYTES: usize = 64 * 1024;

/// Why the node takes no requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotReadyReason {
    ShuttingDown,
    Unreadable,
    Unwritable,
    KeysStale,
}

impl NotReadyReason {
    /// In words that name no host.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::ShuttingDown => "the service is ending",
            Self::Unreadable => "the store does not answer",
            Self::Unwritable => "the store takes no writes",
            Self::KeysStale => "the API keys could not be read for 30 seconds",
        }
    }
}

/// Whether the node takes requests.
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

/// Whether the store answered lately.
pub(crate) fn is_readable(service: &Service) -> bool {
    age(service, service.snapshot().borrow().read_at) <= MAX_READ_AGE
}

/// Whether the last commit succeeded, and lately. Before the first one nothing is known, and nothing speaks against it.
pub(crate) fn is_writable(service: &Service) -> bool {
    let last = service.engine().store().last_writes();
    last.failing_since.is_none() && last.succeeded_at.is_none_or(|at| age(service, at) <= MAX_WRITE_AGE)
}

fn age(service: &Service, at: Timestamp) -> Duration {
    service.clock().monotonic().since(at)
}

/// Commits something where nothing else does, so that a full disk is found before a caller finds it, and its end as soon as possible.
pub(crate) async fn probe_writes(service: &Service) {
    let store = service.engine().store();
    loop {
        service.clock().sleep(LOOK_INTERVAL).await;
        let last = store.last_writes();
        if last.failing_since.is_some() {
            store.probe_write(RECOVERY_PROBE_BYTES).await;
        } else if last.succeeded_at.is_none_or(|at| age(service, at) >= PROBE_INTERVAL) {
            store.probe_write(PROBE_BYTES).await;
        }
    }
}
