//! Fixed-window rate limits: the arithmetic of every rate limit in the simulator.

use std::time::Duration;

use guestlane_genesys::Rate;
use guestlane_runtime::Timestamp;

/// A rate-limit window. It begins with the first call after the previous window has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    began: Timestamp,
    calls: u32,
}

/// The rate limit as the platform reports it in each response.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RateHeaders {
    pub(crate) count: u32,
    pub(crate) allowed: u32,
    pub(crate) reset: u64,
}

impl RateHeaders {
    /// The names of the rate-limit headers.
    pub(crate) const NAMES: [&str; 3] = [
        "inin-ratelimit-count",
        "inin-ratelimit-allowed",
        "inin-ratelimit-reset",
    ];
}

impl Window {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            began: now,
            calls: 0,
        }
    }

    /// Counts a call if the limit allows it, and reports whether it did.
    pub(crate) fn take(&mut self, rate: Rate, now: Timestamp) -> (RateHeaders, bool) {
        self.take_of(rate.calls(), rate.window(), now)
    }

    /// The same for `allowed` calls in a minute.
    pub(crate) fn take_of_minute(&mut self, allowed: u32, now: Timestamp) -> (RateHeaders, bool) {
        self.take_of(allowed, Duration::from_secs(60), now)
    }

    /// The same for `allowed` calls in `span`.
    pub(crate) fn take_of(
        &mut self,
        allowed: u32,
        span: Duration,
        now: Timestamp,
    ) -> (RateHeaders, bool) {
        if now.since(self.began) >= span {
            *self = Self::new(now);
        }
        let room = self.calls < allowed;
        self.calls += u32::from(room);
        (self.headers(allowed, span, now), room)
    }

    /// Returns the rate-limit values without counting a call.
    pub(crate) fn look(mut self, rate: Rate, now: Timestamp) -> RateHeaders {
        if now.since(self.began) >= rate.window() {
            self = Self::new(now);
        }
        self.headers(rate.calls(), rate.window(), now)
    }

    fn headers(&self, allowed: u32, span: Duration, now: Timestamp) -> RateHeaders {
        let left = span.saturating_sub(now.since(self.began));
        let reset = left
            .max(Duration::from_micros(1))
            .as_micros()
            .div_ceil(1_000_000);
        RateHeaders {
            count: self.calls,
            allowed,
            reset: u64::try_from(reset).unwrap_or(1),
        }
    }
}
