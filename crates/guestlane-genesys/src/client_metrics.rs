//! Counters of calls to the platform. They only increase; a reader that stores or exports them
//! subtracts two readings.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::error::{AttemptError, Category, Operation};
use guestlane_runtime::{Histogram, HistogramSnapshot};

/// Number of retry counters; later retries count in the last one.
const ATTEMPTS: usize = 8;

/// Durations of calls with the same operation and status.
#[derive(Debug, Clone, PartialEq)]
pub struct LatencySample {
    /// The operation.
    pub operation: Operation,
    /// The response status, or `None` if there was no response.
    pub status: Option<u16>,
    /// Histogram of the durations.
    pub took: HistogramSnapshot,
}

/// Key of a duration histogram: the operation and the response status.
type Kind = (Operation, Option<u16>);

/// Counters of one client. Each is a total since the client was created.
#[derive(Debug, Default)]
pub struct ClientMetrics {
    calls: AtomicU64,
    token_requests: AtomicU64,
    throttled: AtomicU64,
    unknown_frames: AtomicU64,
    retries: [AtomicU64; ATTEMPTS],
    timed: Mutex<BTreeMap<Kind, Arc<Histogram>>>,
    errors: ErrorCounts<AtomicU64>,
}

/// Errors by the categories of requirement R12 (docs/requirements.md).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCounts<N = u64> {
    /// All errors.
    pub total: N,
    /// [`Category::TokenValidation`]
    pub token_validation: N,
    /// [`Category::RateLimit`]
    pub rate_limit: N,
    /// [`Category::Auth`]
    pub auth: N,
    /// [`Category::Network`]
    pub network: N,
}

impl ErrorCounts {
    /// Returns the share of token validation errors among all errors, with four decimals; `0.0000`
    /// without errors.
    pub fn token_validation_rate(&self) -> String {
        let rate = if self.total == 0 {
            0.0
        } else {
            self.token_validation as f64 / self.total as f64
        };
        format!("{rate:.4}")
    }

    /// Returns the errors that were counted after `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            total: self.total - earlier.total,
            token_validation: self.token_validation - earlier.token_validation,
            rate_limit: self.rate_limit - earlier.rate_limit,
            auth: self.auth - earlier.auth,
            network: self.network - earlier.network,
        }
    }
}

impl ClientMetrics {
    pub(crate) fn sent(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a retry. `attempt` is the attempt's number, from 2.
    pub(crate) fn repeated(&self, attempt: u32) {
        let index = (attempt as usize).saturating_sub(2).min(ATTEMPTS - 1);
        self.retries[index].fetch_add(1, Ordering::Relaxed);
    }

    /// Records the duration of one call.
    pub(crate) fn timed(&self, operation: Operation, status: Option<u16>, took: Duration) {
        let histogram = {
            let mut timed = self.timed.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(
                timed
                    .entry((operation, status))
                    .or_insert_with(|| Arc::new(Histogram::new(Histogram::HTTP_BOUNDS))),
            )
        };
        histogram.observe(took);
    }

    /// Returns the number of second attempts, third attempts and so on; the last counter includes
    /// all later ones.
    pub fn retries(&self) -> [u64; ATTEMPTS] {
        self.retries
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed))
    }

    /// Returns the durations of calls by operation and status.
    pub fn durations(&self) -> Vec<LatencySample> {
        let timed = self.timed.lock().unwrap_or_else(PoisonError::into_inner);
        timed
            .iter()
            .map(|((operation, status), took)| LatencySample {
                operation: *operation,
                status: *status,
                took: took.snapshot(),
            })
            .collect()
    }

    pub(crate) fn token_requested(&self) {
        self.token_requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn unknown_frame(&self) {
        self.unknown_frames.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, error: &AttemptError, operation: Operation) {
        if error.is_throttled() {
            self.throttled.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(category) = error.category(operation) {
            self.count(category);
        }
    }

    /// Counts an error that does not belong to a call, such as a guest token that does not verify.
    pub fn count(&self, category: Category) {
        let counters = &self.errors;
        counters.total.fetch_add(1, Ordering::Relaxed);
        match category {
            Category::TokenValidation => counters.token_validation.fetch_add(1, Ordering::Relaxed),
            Category::RateLimit => counters.rate_limit.fetch_add(1, Ordering::Relaxed),
            Category::Auth => counters.auth.fetch_add(1, Ordering::Relaxed),
            Category::Network => counters.network.fetch_add(1, Ordering::Relaxed),
            Category::Other => 0,
        };
    }

    /// Returns the number of calls sent, including token requests.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Returns the number of calls to the token endpoint.
    pub fn token_requests(&self) -> u64 {
        self.token_requests.load(Ordering::Relaxed)
    }

    /// Returns the number of calls answered with 429.
    pub fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    /// Returns the number of guest socket frames with an unknown class.
    pub fn unknown_frames(&self) -> u64 {
        self.unknown_frames.load(Ordering::Relaxed)
    }

    /// Returns the failed attempts by category.
    pub fn errors(&self) -> ErrorCounts {
        let counters = &self.errors;
        ErrorCounts {
            total: counters.total.load(Ordering::Relaxed),
            token_validation: counters.token_validation.load(Ordering::Relaxed),
            rate_limit: counters.rate_limit.load(Ordering::Relaxed),
            auth: counters.auth.load(Ordering::Relaxed),
            network: counters.network.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_validation_rate_is_formatted_with_four_decimals() {
        assert_eq!(ErrorCounts::default().token_validation_rate(), "0.0000");
        let counts = ErrorCounts {
            total: 3,
            token_validation: 1,
            ..ErrorCounts::default()
        };
        assert_eq!(counts.token_validation_rate(), "0.3333");
    }
}
