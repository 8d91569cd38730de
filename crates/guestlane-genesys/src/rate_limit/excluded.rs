//! OAuth clients that a call does not use again.

use std::sync::atomic::{AtomicU64, Ordering};

/// The OAuth clients that a call must not use. A client that failed for this call is not tried
/// again while there are others. Each field is a bit set with one bit per client.
#[derive(Debug)]
pub(crate) struct ExcludedClients {
    /// Clients that may make the call at all.
    of: u64,
    /// Clients that the platform rejected.
    pub(super) refused: AtomicU64,
    /// Clients that were skipped without a fault of their own: they were throttled, or their token
    /// request got no response.
    pub(super) passed: AtomicU64,
    /// Clients whose access token was refreshed for this call.
    renewed: AtomicU64,
}

impl Default for ExcludedClients {
    fn default() -> Self {
        Self {
            of: u64::MAX,
            refused: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            renewed: AtomicU64::new(0),
        }
    }
}

impl ExcludedClients {
    /// Restricts a call to one client.
    pub(crate) fn only(client: usize) -> Self {
        Self {
            of: 1 << client,
            ..Self::default()
        }
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Returns the clients that the call must not use.
    pub(super) fn excluded(&self) -> u64 {
        !self.of | self.refused() | self.passed.load(Ordering::Relaxed)
    }

    /// Marks the client's token as refreshed for this call. Returns whether it was refreshed
    /// before, and whether another client's token was.
    pub(crate) fn try_refresh(&self, client: usize) -> (bool, bool) {
        let before = self.renewed.fetch_or(1 << client, Ordering::Relaxed);
        (before & 1 << client != 0, before & !(1 << client) != 0)
    }
}
