//! Retry budget: a token bucket that bounds retries to about one per ten calls, so that retries do
//! not overload a failing platform.

use std::sync::{Mutex, PoisonError};

use guestlane_runtime::{Clock, Timestamp};

/// Token bucket that pays for calls that are retried because the platform failed.
///
/// Each first attempt deposits a tenth of a retry. A reserve and one retry per second on top ensure
/// that a single session has its retries at low load (requirement R8, docs/requirements.md).
#[derive(Debug)]
pub struct RetryBudget {
    clock: Clock,
    purse: Mutex<BucketState>,
}

#[derive(Debug)]
struct BucketState {
    repetitions: f64,
    filled: Timestamp,
}

impl RetryBudget {
    /// Retries that each first attempt deposits.
    const DEPOSIT_RATIO: f64 = 0.1;

    /// Initial and maximum number of retries in the bucket.
    const RESERVE: f64 = 100.0;

    /// Retries that are added per second.
    const REFILL_PER_SECOND: f64 = 1.0;

    pub(crate) fn new(clock: Clock) -> Self {
        let purse = BucketState {
            repetitions: Self::RESERVE,
            filled: clock.monotonic(),
        };
        Self {
            clock,
            purse: Mutex::new(purse),
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut f64) -> T) -> T {
        let mut purse = self.purse.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.monotonic();
        let came = now.since(purse.filled).as_secs_f64() * Self::REFILL_PER_SECOND;
        purse.repetitions = (purse.repetitions + came).min(Self::RESERVE);
        purse.filled = now;
        let changed = change(&mut purse.repetitions);
        purse.repetitions = purse.repetitions.min(Self::RESERVE);
        changed
    }

    /// Deposits the share of a retry that each first attempt earns.
    pub(crate) fn deposit(&self) {
        self.change(|repetitions| *repetitions += Self::DEPOSIT_RATIO);
    }

    /// Withdraws up to `wanted` retries and returns the number withdrawn.
    pub fn withdraw(&self, wanted: u32) -> u32 {
        self.change(|repetitions| {
            let taken = (*repetitions as u32).min(wanted);
            *repetitions -= f64::from(taken);
            taken
        })
    }

    /// Returns retries to the budget that were not needed or did not reach a failing platform.
    pub fn refund(&self, unused: u32) {
        self.change(|repetitions| *repetitions += f64::from(unused));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use guestlane_runtime::ManualClock;

    #[test]
    fn budget_refills_with_calls_and_time_up_to_its_capacity() {
        let clock = ManualClock::new(Timestamp::from_unix_micros(0));
        let budget = RetryBudget::new(clock.clone().into());
        assert_eq!(budget.withdraw(1000), 100);
        assert_eq!(budget.withdraw(1), 0);
        (0..1000).for_each(|_| budget.deposit());
        let earned = budget.withdraw(1000);
        assert!((99..=100).contains(&earned), "{earned}");
        clock.advance(Duration::from_secs(7));
        assert_eq!(budget.withdraw(1000), 7);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(budget.withdraw(1000), 100);
        budget.refund(3);
        assert_eq!(budget.withdraw(1000), 3);
    }
}
