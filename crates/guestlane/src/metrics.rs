//! The counters of requirement R12 (docs/requirements.md), kept across processes: what this process
//! counts is added to the store with its transitions. And what sessions came to in this process
//! (requirement R13).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use guestlane_genesys::{ClientMetrics, ErrorCounts, Histogram, HistogramSnapshot, Timestamp};

use crate::{
    error::{Code, Diagnosis, Error},
    session::SessionRecord,
};

/// Upper bounds of what a session takes, in seconds: a fifth more each time, from a millisecond to two minutes.
const SESSION_BOUNDS: &[f64] = &[
    0.001, 0.0012, 0.0015, 0.0018, 0.0022, 0.0027, 0.0033, 0.0039, 0.0047, 0.0056, 0.0068, 0.0082, 0.01, 0.012, 0.015, 0.018,
    0.022, 0.027, 0.033, 0.039, 0.047, 0.056, 0.068, 0.082, 0.1, 0.12, 0.15, 0.18, 0.22, 0.27, 0.33, 0.39, 0.47, 0.56, 0.68,
    0.82, 1.0, 1.2, 1.5, 1.8, 2.2, 2.7, 3.3, 3.9, 4.7, 5.6, 6.8, 8.2, 10.0, 15.0, 22.0, 33.0, 47.0, 60.0, 90.0, 120.0,
];

/// What sessions came to in this process.
#[derive(Debug)]
pub struct SessionMetrics {
    latency: Histogram,
    problems: Mutex<BTreeMap<Code, FailureCount>>,
}

/// A kind of failure that came up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureCount {
    /// How often.
    pub count: u64,
    /// The last time.
    pub last_at: Timestamp,
    /// Cause and fix, as they were the last time.
    pub advice: Diagnosis,
}

impl Default for SessionMetrics {
    fn default() -> Self {
        Self { latency: Histogram::new(SESSION_BOUNDS), problems: Mutex::default() }
    }
}

impl SessionMetrics {
    pub(crate) fn opened(&self, session: &SessionRecord) {
        self.latency.observe(session.latency.unwrap_or_default());
    }

    /// Whoever asked was told this.
    pub(crate) fn failed(&self, error: &Error, now: Timestamp) {
        let advice = error.advice().for_others();
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        let count = problems.get(&advice.code).map_or(0, |problem| problem.count) + 1;
        problems.insert(advice.code, FailureCount { count, last_at: now, advice });
    }

    /// How long sessions took that were opened (requirement R13, docs/requirements.md).
    pub fn latency(&self) -> HistogramSnapshot {
        self.latency.snapshot()
    }

    /// Failures by kind.
    pub fn failures_by_code(&self) -> BTreeMap<Code, FailureCount> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The error counts of this process on top of those in the store.
#[derive(Debug)]
pub(crate) struct ErrorCounters {
    before: ErrorCounts,
    stats: Arc<ClientMetrics>,
    written: Mutex<ErrorCounts>,
}

impl ErrorCounters {
    pub(crate) fn new(before: ErrorCounts, stats: Arc<ClientMetrics>) -> Self {
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
