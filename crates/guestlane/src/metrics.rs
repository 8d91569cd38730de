//! Error counters (requirement R12, docs/requirements.md) and session metrics (requirement R13).
//!
//! Error counters survive restarts: the counts of this process are added to the store with its
//! transitions. Session metrics cover this process only.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use guestlane_genesys::{ClientMetrics, ErrorCounts};
use guestlane_runtime::{Histogram, HistogramSnapshot, Timestamp};

use crate::error::{Diagnosis, ErrorCode};
use guestlane_core::session::SessionRecord;

/// Upper bounds of the histogram of session latency, in seconds. Each is about a fifth larger than
/// the one before, from a millisecond to two minutes.
const SESSION_BOUNDS: &[f64] = &[
    0.001, 0.0012, 0.0015, 0.0018, 0.0022, 0.0027, 0.0033, 0.0039, 0.0047, 0.0056, 0.0068, 0.0082,
    0.01, 0.012, 0.015, 0.018, 0.022, 0.027, 0.033, 0.039, 0.047, 0.056, 0.068, 0.082, 0.1, 0.12,
    0.15, 0.18, 0.22, 0.27, 0.33, 0.39, 0.47, 0.56, 0.68, 0.82, 1.0, 1.2, 1.5, 1.8, 2.2, 2.7, 3.3,
    3.9, 4.7, 5.6, 6.8, 8.2, 10.0, 15.0, 22.0, 33.0, 47.0, 60.0, 90.0, 120.0,
];

/// Latencies and failures of the sessions of this process.
#[derive(Debug)]
pub struct SessionMetrics {
    latency: Histogram,
    problems: Mutex<BTreeMap<ErrorCode, FailureCount>>,
}

/// Count of one kind of failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureCount {
    /// Number of occurrences.
    pub count: u64,
    /// Time of the last occurrence.
    pub last_at: Timestamp,
    /// Cause and fix of the last occurrence.
    pub diagnosis: Diagnosis,
}

impl Default for SessionMetrics {
    fn default() -> Self {
        Self {
            latency: Histogram::new(SESSION_BOUNDS),
            problems: Mutex::default(),
        }
    }
}

impl SessionMetrics {
    pub(crate) fn opened(&self, session: &SessionRecord) {
        self.latency.observe(session.latency.unwrap_or_default());
    }

    /// Counts a failure that was returned to a caller.
    pub(crate) fn failed(&self, diagnosis: Diagnosis, now: Timestamp) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        let count = problems
            .get(&diagnosis.code)
            .map_or(0, |problem| problem.count)
            + 1;
        problems.insert(
            diagnosis.code,
            FailureCount {
                count,
                last_at: now,
                diagnosis,
            },
        );
    }

    /// Latency of the sessions that were opened (requirement R13, docs/requirements.md).
    pub fn latency(&self) -> HistogramSnapshot {
        self.latency.snapshot()
    }

    /// Failures by code.
    pub fn failures_by_code(&self) -> BTreeMap<ErrorCode, FailureCount> {
        self.problems
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The error counters of this process on top of those in the store.
#[derive(Debug)]
pub(crate) struct ErrorCounters {
    before: ErrorCounts,
    stats: Arc<ClientMetrics>,
    written: Mutex<ErrorCounts>,
}

impl ErrorCounters {
    pub(crate) fn new(before: ErrorCounts, stats: Arc<ClientMetrics>) -> Self {
        Self {
            before,
            stats,
            written: Mutex::default(),
        }
    }

    /// Returns the errors since the last call. The caller must store them.
    pub(crate) fn take(&self) -> ErrorCounts {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.stats.errors();
        let new = now.since(&written);
        *written = now;
        new
    }

    /// The sum of the errors of this process and of those before it.
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
