//! Logs an outage of a dependency: one line when it begins and one when it ends.

use std::{
    borrow::Cow,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tracing::{debug, info, warn};

use crate::Timestamp;

/// Outage state of a dependency (the database, the platform, a webhook receiver, the trace
/// collector). All code that calls the dependency reports to one value, so that one cause produces
/// one log line however many callers fail.
#[derive(Debug)]
pub struct Outage {
    dependency: Cow<'static, str>,
    began: Mutex<Option<Began>>,
    /// Whether `began` has a value. Successful calls read it without taking the lock.
    is_on: AtomicBool,
    failures: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Began {
    /// Time of the first failure, by the monotonic clock.
    at: Timestamp,
    failures: u64,
}

impl Outage {
    /// Creates the state of an available dependency. Its name appears in the log.
    pub const fn of(dependency: Cow<'static, str>) -> Self {
        let began = Mutex::new(None);
        Self {
            dependency,
            began,
            is_on: AtomicBool::new(false),
            failures: AtomicU64::new(0),
        }
    }

    /// Records a failed call at `now` of the monotonic clock. The first failure of an outage is
    /// logged as a warning, further ones at `debug`. `reason` must not contain secrets or personal
    /// data.
    pub fn failed(&self, reason: &str, now: Timestamp) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let mut began = self.began();
        if began.is_some() {
            debug!(dependency = %self.dependency, reason, "the outage continues");
            return;
        }
        *began = Some(Began { at: now, failures });
        self.is_on.store(true, Ordering::Release);
        warn!(dependency = %self.dependency, reason, "an outage began; retrying calls until it ends");
    }

    /// Records a successful call at `now` of the monotonic clock.
    pub fn well(&self, now: Timestamp) {
        if !self.is_on.load(Ordering::Acquire) {
            return;
        }
        let Some(began) = self.began().take() else {
            return;
        };
        self.is_on.store(false, Ordering::Release);
        let (seconds, failures) = (
            now.since(began.at).as_secs_f64(),
            self.failures() - began.failures + 1,
        );
        info!(dependency = %self.dependency, seconds, failures, "the outage ended");
    }

    /// Whether the last call failed.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// Returns the number of calls that failed since the process started.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    fn began(&self) -> MutexGuard<'_, Option<Began>> {
        self.began.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_lasts_from_the_first_failure_to_the_first_success() {
        let outage = Outage::of("database".into());
        let at = |seconds: i64| Timestamp::from_unix_micros(seconds * 1_000_000);
        outage.well(at(0));
        assert!(!outage.is_on());
        outage.failed("refused", at(1));
        outage.failed("refused", at(2));
        assert!(outage.is_on() && outage.failures() == 2);
        outage.well(at(3));
        assert!(!outage.is_on() && outage.failures() == 2);
        outage.failed("refused", at(4));
        assert!(outage.is_on());
    }
}
