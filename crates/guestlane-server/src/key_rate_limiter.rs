//! The rate limit of each API key.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use guestlane::Rate;
use guestlane_runtime::{Clock, Timestamp};

/// The rate limit of each API key, as one GCRA per key. Its burst is the number of requests in one
/// window.
#[derive(Debug)]
pub(crate) struct KeyRateLimiter {
    rate: Option<Rate>,
    /// The theoretical arrival time of each key: when its requests so far would end if they were
    /// spread evenly. By the monotonic clock.
    spread_until: Mutex<HashMap<String, Timestamp>>,
}

impl KeyRateLimiter {
    pub(crate) fn new(rate: Option<Rate>) -> Self {
        Self {
            rate,
            spread_until: Mutex::default(),
        }
    }

    /// Takes one request from the key's rate limit.
    ///
    /// # Errors
    /// The number of seconds until the next request is allowed.
    pub(super) fn take(&self, key: &str, clock: &Clock) -> Result<(), u64> {
        let Some(rate) = self.rate else { return Ok(()) };
        let now = clock.monotonic();
        let each = rate.window() / rate.calls();
        let mut spread = self
            .spread_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let until = spread.get(key).copied().unwrap_or(now).max(now);
        let ahead = until.since(now) + each;
        if ahead > rate.window() {
            return Err((ahead - rate.window()).as_secs() + 1);
        }
        match spread.get_mut(key) {
            Some(known) => *known = until + each,
            None => drop(spread.insert(key.to_owned(), until + each)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use guestlane_runtime::ManualClock;

    use super::*;

    #[test]
    fn key_rate_limiter_allows_a_burst_of_one_window_then_paces() {
        let hands = ManualClock::new(Timestamp::from_unix_micros(0));
        let clock = Clock::from(hands.clone());
        let allowance = KeyRateLimiter::new(Some("10/s".parse().unwrap()));
        for _ in 0..10 {
            assert_eq!(allowance.take("ann", &clock), Ok(()));
        }
        assert_eq!(allowance.take("ann", &clock), Err(1));
        assert_eq!(
            allowance.take("bob", &clock),
            Ok(()),
            "another key has its own"
        );
        hands.advance(Duration::from_millis(100));
        assert_eq!(
            (allowance.take("ann", &clock), allowance.take("ann", &clock)),
            (Ok(()), Err(1))
        );
    }
}
