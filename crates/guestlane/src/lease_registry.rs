//! The leases that this process renews.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use guestlane_core::session::SessionId;

/// The sessions whose sagas this process runs now, each with the epoch of its lease.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeaseRegistry(Arc<Mutex<HashMap<SessionId, u32>>>);

impl LeaseRegistry {
    /// Registers a session for lease renewal until the returned guard is dropped.
    ///
    /// The guard also ends the renewal when the caller's future is dropped before the saga ends.
    pub(crate) fn start(&self, id: SessionId, epoch: u32) -> LeaseGuard {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, epoch);
        LeaseGuard {
            registry: self.clone(),
            id,
        }
    }

    /// Returns the leases that must be renewed: session IDs with their epochs.
    pub(crate) fn leases(&self) -> Vec<(SessionId, u32)> {
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
pub(crate) struct LeaseGuard {
    registry: LeaseRegistry,
    id: SessionId,
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        self.registry
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
    }
}
