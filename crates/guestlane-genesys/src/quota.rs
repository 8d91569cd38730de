//! Paces calls before they are sent, so that the platform has nothing to refuse (R9).
//!
//! The arithmetic is GCRA (the generic cell rate algorithm): one number, the moment at which the next call is due.

use std::{
    fmt,
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::clock::{Clock, Timestamp};

/// How many calls one OAuth client may make in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    calls: u32,
    window: Duration,
}

/// Not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a rate; write 100/s, 300/min or off")]
pub struct InvalidRate(String);

impl Rate {
    /// The brief's limit of the `rest` surface.
    pub const REST: Self = Self { calls: 100, window: Duration::from_secs(1) };

    /// The public platform's limit of one access token (reference, section 3.2).
    pub const CLOUD: Self = Self { calls: 300, window: Duration::from_secs(60) };

    /// `off` is `None`.
    pub fn parse(text: &str) -> Result<Option<Self>, InvalidRate> {
        if text == "off" { Ok(None) } else { text.parse().map(Some) }
    }

    /// Calls in a [window](Self::window).
    pub fn calls(self) -> u32 {
        self.calls
    }

    /// Calls in a minute.
    pub fn in_a_minute(self) -> u64 {
        u64::from(self.calls) * 60 / self.window.as_secs().max(1)
    }

    /// A second or a minute.
    pub fn window(self) -> Duration {
        self.window
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidRate(text.to_owned());
        let (calls, unit) = text.split_once('/').ok_or_else(invalid)?;
        let calls = calls.parse().ok().filter(|calls| *calls > 0).ok_or_else(invalid)?;
        let window = match unit {
            "s" => Duration::from_secs(1),
            "min" => Duration::from_secs(60),
            _ => return Err(invalid()),
        };
        Ok(Self { calls, window })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.calls, if self.window.as_secs() == 1 { "s" } else { "min" })
    }
}

/// The pace of one OAuth client.
#[derive(Debug)]
pub(crate) struct Quota {
    clock: Clock,
    pace: Option<Pace>,
    schedule: Mutex<Schedule>,
}

/// In every window `burst` calls may come at once and the rest one by one: together never more than the rate allows.
#[derive(Debug, Clone, Copy)]
struct Pace {
    interval: Duration,
    burst: Duration,
}

impl Pace {
    const BURST: u32 = 2;

    fn new(rate: Rate) -> Self {
        let burst = Self::BURST.min(rate.calls.div_ceil(2));
        let steady = (rate.calls - burst).max(1);
        let interval = rate.window / steady;
        Self { interval, burst: interval * (burst - 1) }
    }
}

#[derive(Debug)]
struct Schedule {
    next_due: Timestamp,
    closed_until: Timestamp,
}

impl Schedule {
    /// Takes the next place and says when it is; `None`, with no place taken, when that is after `deadline`.
    fn reserve(&mut self, pace: Pace, now: Timestamp, deadline: Timestamp) -> Option<Timestamp> {
        let due = self.next_due.max(now);
        let at = (due - pace.burst).max(self.closed_until).max(now);
        if at >= deadline {
            return None;
        }
        self.next_due = due.max(at) + pace.interval;
        Some(at)
    }
}

impl Quota {
    pub(crate) fn new(rate: Option<Rate>, clock: Clock) -> Self {
        let epoch = Timestamp::from_unix_micros(0);
        let schedule = Mutex::new(Schedule { next_due: epoch, closed_until: epoch });
        Self { clock, pace: rate.map(Pace::new), schedule }
    }

    /// Waits for the moment at which a call may be sent. False when that is after `deadline`. The pace is kept by a clock that nobody sets.
    pub(crate) async fn acquire(&self, deadline: Timestamp) -> bool {
        let Some(pace) = self.pace else { return true };
        loop {
            let now = self.clock.monotonic();
            let deadline = now + deadline.since(self.clock.now());
            let at = self.schedule.lock().unwrap_or_else(PoisonError::into_inner).reserve(pace, now, deadline);
            let Some(at) = at else { return false };
            self.clock.sleep(at.since(now)).await;
            // While we waited, a 429 may have closed the way for everybody.
            if self.schedule.lock().unwrap_or_else(PoisonError::into_inner).closed_until <= self.clock.monotonic() {
                return true;
            }
        }
    }

    /// What the platform says of its own count: who has no call left waits for the next window (`inin-ratelimit-…`, reference, section 3.2).
    pub(crate) fn observed(&self, count: u32, allowed: u32, reset: Duration) {
        // Whole seconds say nothing of a window that ends within one: there our own pace is the better clock.
        const COARSE: Duration = Duration::from_secs(1);
        if allowed > 0 && count >= allowed && reset > COARSE {
            self.throttled(reset);
        }
    }

    /// The platform said 429: nobody sends anything for that long.
    pub(crate) fn throttled(&self, retry_after: Duration) {
        /// The one call that was told to wait longer does; the others find out for themselves.
        const LONGEST: Duration = Duration::from_secs(60);
        let retry_after = retry_after.min(LONGEST);
        let mut schedule = self.schedule.lock().unwrap_or_else(PoisonError::into_inner);
        schedule.closed_until = schedule.closed_until.max(self.clock.monotonic() + retry_after);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_unix_micros(1_000_000_000);
    const NEVER: Timestamp = Timestamp::from_unix_micros(i64::MAX);

    #[test]
    fn a_rate_is_read_and_written_the_same() {
        for text in ["100/s", "300/min", "1/s"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for text in ["", "100", "0/s", "-1/s", "100/h", "x/s", "100/s/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        assert_eq!(Rate::parse("off").unwrap(), None);
    }

    proptest! {
        /// Whatever the gaps between callers, no window of the platform sees more calls than the rate.
        #[test]
        fn no_window_holds_more_calls_than_the_rate(calls in 1_u32..300, gaps in prop::collection::vec(0_u64..40_000, 1..800)) {
            let window = Duration::from_secs(1);
            let pace = Pace::new(Rate { calls, window });
            let mut schedule = Schedule { next_due: START, closed_until: START };
            let mut now = START;
            let mut sent = Vec::new();
            for gap in gaps {
                now = now + Duration::from_micros(gap);
                sent.push(schedule.reserve(pace, now, NEVER).unwrap());
            }
            let most = (calls as usize).max(2);
            for (i, first) in sent.iter().enumerate() {
                let in_window = sent[i..].iter().take_while(|at| at.since(*first) < window).count();
                prop_assert!(in_window <= most, "{in_window} calls in a window of {calls}");
            }
        }
    }

    #[test]
    fn a_busy_client_uses_98_of_100_calls_a_second() {
        let pace = Pace::new(Rate::REST);
        let mut schedule = Schedule { next_due: START, closed_until: START };
        let last = (0..3000).map(|_| schedule.reserve(pace, START, NEVER).unwrap()).last().unwrap();
        assert!(last.since(START) <= Duration::from_secs_f64(30.0 / 0.97));
    }

    #[tokio::test]
    async fn a_window_that_is_used_up_is_waited_for() {
        let manual = crate::clock::ManualClock::new(START);
        manual.run_by_itself();
        let quota = Quota::new(Some(Rate::CLOUD), manual.clone().into());
        quota.observed(299, 300, Duration::from_secs(40));
        assert!(quota.acquire(NEVER).await);
        assert!(manual.now().since(START) < Duration::from_secs(1));
        quota.observed(300, 300, Duration::from_secs(40));
        assert!(quota.acquire(NEVER).await);
        assert!(manual.now().since(START) >= Duration::from_secs(40));
    }

    #[tokio::test]
    async fn a_429_holds_everybody_back() {
        let manual = crate::clock::ManualClock::new(START);
        manual.run_by_itself();
        let quota = Quota::new(Some(Rate::REST), manual.clone().into());
        quota.throttled(Duration::from_secs(7));
        assert!(quota.acquire(NEVER).await);
        assert!(manual.now().since(START) >= Duration::from_secs(7));
        quota.throttled(Duration::from_secs(7));
        assert!(!quota.acquire(manual.now() + Duration::from_secs(3)).await, "the deadline is nearer");
    }
}
