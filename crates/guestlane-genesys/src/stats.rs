//! Counts of what the calls to the platform came to. Plain atomics: who persists or exports them takes the difference.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{CallError, Category, Operation};

/// Counters of one client. All are totals since it was made.
#[derive(Debug, Default)]
pub struct CallStats {
    calls: AtomicU64,
    token_requests: AtomicU64,
    throttled: AtomicU64,
    unknown_frames: AtomicU64,
    errors: ErrorCounts<AtomicU64>,
}

/// Errors by R12's categories.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCounts<N = u64> {
    /// All of them.
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
    /// The share of token validation errors among all, with four decimals; `0.0000` when nothing failed.
    pub fn token_validation_rate(&self) -> String {
        let rate = if self.total == 0 { 0.0 } else { self.token_validation as f64 / self.total as f64 };
        format!("{rate:.4}")
    }

    /// What has come since `earlier`.
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

impl CallStats {
    pub(crate) fn sent(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn token_requested(&self) {
        self.token_requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn unknown_frame(&self) {
        self.unknown_frames.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, error: &CallError, operation: Operation) {
        if error.is_throttled() {
            self.throttled.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(category) = error.category(operation) {
            self.count(category);
        }
    }

    /// Counts an error that is not of a call (a guest token that does not verify).
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

    /// Calls sent, token requests included.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Calls to the token endpoint.
    pub fn token_requests(&self) -> u64 {
        self.token_requests.load(Ordering::Relaxed)
    }

    /// Calls answered 429.
    pub fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    /// Frames of the guest socket whose class nobody here knows.
    pub fn unknown_frames(&self) -> u64 {
        self.unknown_frames.load(Ordering::Relaxed)
    }

    /// Failed attempts by category.
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
    fn the_rate_has_four_decimals_and_is_zero_when_nothing_failed() {
        assert_eq!(ErrorCounts::default().token_validation_rate(), "0.0000");
        let counts = ErrorCounts { total: 3, token_validation: 1, ..ErrorCounts::default() };
        assert_eq!(counts.token_validation_rate(), "0.3333");
    }
}
