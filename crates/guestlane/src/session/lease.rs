//! Leases of sessions. The process that runs a session's saga renews its lease until it is done.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::record::{SessionId, SessionRecord};

/// How long a lease lasts without renewal. A session of a process that died is blocked this long.
pub const LEASE_TTL: Duration = Duration::from_secs(4);

/// The largest tolerated skew between two clocks: twice [`MAX_CLOCK_OFFSET`].
///
/// An expiry beyond `LEASE_TTL + MAX_CLOCK_SKEW` was written before the wall clock moved backwards.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(4);

/// The largest tolerated offset between a node's wall clock and the database's clock.
///
/// Beyond it the node claims nothing and deletes nothing.
pub const MAX_CLOCK_OFFSET: Duration = Duration::from_secs(2);

/// How often a live process renews its leases.
pub const LEASE_RENEW_INTERVAL: Duration = Duration::from_secs(1);

/// The sessions whose sagas this process runs now, each with the epoch of its lease.
#[derive(Debug, Clone, Default)]
pub struct LeaseRegistry(Arc<Mutex<HashMap<SessionId, u32>>>);

impl LeaseRegistry {
    /// Registers `session` for lease renewal until the returned guard is dropped.
    ///
    /// The guard also ends the renewal when the caller's future is dropped before the saga ends.
    pub fn start(&self, session: &SessionRecord) -> LeaseGuard {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(session.id, session.epoch);
        LeaseGuard {
            driving: self.clone(),
            id: session.id,
        }
    }

    /// Returns the leases that must be renewed: session IDs with their epochs.
    pub fn leases(&self) -> Vec<(SessionId, u32)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(id, epoch)| (*id, *epoch))
            .collect()
    }
}

/// Keeps a session in the [`LeaseRegistry`] while it lives; see [`LeaseRegistry::start`].
#[derive(Debug)]
#[must_use]
pub struct LeaseGuard {
    driving: LeaseRegistry,
    id: SessionId,
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        self.driving
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
    }
}
