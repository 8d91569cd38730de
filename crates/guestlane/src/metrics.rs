//! R12's counters, kept across processes: what this process counts is added to the store with its transitions.

use std::sync::{Arc, Mutex, PoisonError};

use guestlane_genesys::{CallStats, ErrorCounts};

/// The error counts of this process on top of those in the store.
#[derive(Debug)]
pub(crate) struct ErrorTally {
    before: ErrorCounts,
    stats: Arc<CallStats>,
    written: Mutex<ErrorCounts>,
}

impl ErrorTally {
    pub(crate) fn new(before: ErrorCounts, stats: Arc<CallStats>) -> Self {
        Self { before, stats, written: Mutex::default() }
    }

    /// What has come since the last time, to be written by whoever takes it.
    pub(crate) fn take(&self) -> ErrorCounts {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.stats.errors();
        let new = now.since(&written);
        *written = now;
        new
    }

    /// All errors, of this process and of those before it.
    pub(crate) fn totals(&self) -> ErrorCounts {
        let (before, now) = (&self.before, self.stats.errors());
        ErrorCounts {
            total: before.total + now.total,
            token_validation: before.token_validation + now.token_validation,
            rate_limit: before.rate_limit + now.rate_limit,
            auth: before.auth + now.auth,
            network: before.network + now.network,
        }
    }
}
