//! Who drives which session: a lease that is renewed while its driver lives.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::record::{SessionId, SessionRecord};

/// How long a driver that died holds a session back.
pub const LEASE_TTL: Duration = Duration::from_secs(4);

/// By how much the clocks of two machines may differ, twice: a lease that ends later than that after the longest one was given by a clock
/// that was set back since.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(4);

/// How far a node's wall clock may be off the database's: beyond, the node claims nothing and deletes nothing.
pub const MAX_CLOCK_OFFSET: Duration = Duration::from_secs(2);

/// How often a living driver renews its leases.
pub const LEASE_RENEW_INTERVAL: Duration = Duration::from_secs(1);

/// The sessions that this process drives now, with their epochs.
#[derive(Debug, Clone, Default)]
pub struct LeaseRegistry(Arc<Mutex<HashMap<SessionId, u32>>>);

impl LeaseRegistry {
    /// From now on this process drives `session`, until the guard is dropped: also when the caller goes away in between.
    pub fn start(&self, session: &SessionRecord) -> LeaseGuard {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(session.id, session.epoch);
        LeaseGuard { driving: self.clone(), id: session.id }
    }

    /// What must be renewed.
    pub fn leases(&self) -> Vec<(SessionId, u32)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(id, epoch)| (*id, *epoch)).collect()
    }
}

/// See [`Driving::start`].
#[derive(Debug)]
#[must_use]
pub struct LeaseGuard {
    driving: LeaseRegistry,
    id: SessionId,
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        self.driving.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
