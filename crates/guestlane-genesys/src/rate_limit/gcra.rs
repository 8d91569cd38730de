//! GCRA rate limiter: computes when the next call may be sent. It has no clock and does not wait.
//!
//! Two rules apply together. GCRA (the generic cell rate algorithm) spreads calls evenly and allows
//! a short burst after a pause. A log of the last calls makes the limit exact: no span of a
//! window's length, wherever it begins, holds more calls than are allowed. This holds whether the
//! platform's windows are fixed or sliding; no source says which (docs/platform.md#rate-limits).

use std::{collections::VecDeque, time::Duration};

use crate::rate::Rate;
use guestlane_runtime::Timestamp;

/// Rate limiter for the calls of one OAuth client, or of one endpoint with a lower limit.
#[derive(Debug)]
pub(crate) struct GcraLimiter {
    rate: Rate,
    /// Whether the rate is a rate-limit lease. The lease is granted with headroom already
    /// subtracted, and excludes the calls of other processes.
    slice: bool,
    /// Calls per window that are left unused. The platform counts a call later than the moment it
    /// is sent.
    margin: u32,
    margin_changed: Timestamp,
    /// Calls per window that other programs make with the same client.
    foreign: f64,
    foreign_seen: Timestamp,
    /// GCRA's theoretical arrival time of the next call.
    even: Timestamp,
    /// When the last calls were sent, oldest first.
    sent: VecDeque<Timestamp>,
}

impl GcraLimiter {
    pub(crate) fn new(rate: Rate) -> Self {
        let epoch = Timestamp::from_unix_micros(0);
        Self {
            rate,
            slice: false,
            margin: min_headroom(rate),
            margin_changed: epoch,
            foreign: 0.0,
            foreign_seen: epoch,
            even: epoch,
            sent: VecDeque::new(),
        }
    }

    /// Sets the rate limit. A change resets the headroom.
    pub(crate) fn set_rate(&mut self, rate: Rate) {
        if rate != self.rate {
            self.rate = rate;
            self.margin = self.min_headroom();
        }
    }

    /// Returns the configured or leased rate limit.
    pub(crate) fn rate(&self) -> Rate {
        self.rate
    }

    /// Limits the rate to a rate-limit lease of `calls` per window.
    pub(crate) fn set_slice(&mut self, calls: u32) {
        if !self.slice {
            (self.slice, self.margin, self.foreign) = (true, 0, 0.0);
        }
        self.rate = self.rate.with_calls(calls);
    }

    fn min_headroom(&self) -> u32 {
        if self.slice {
            0
        } else {
            min_headroom(self.rate)
        }
    }

    /// Returns the calls per window that this process may currently send.
    fn limit(&self) -> u32 {
        let calls = self.rate.calls();
        // Keep at least half of the rate: without requests there are no rate-limit headers, and the
        // limiter would never notice that other load ended.
        let ours = (f64::from(calls) - self.foreign).max(f64::from(calls) / 2.0);
        (ours as u32).saturating_sub(self.margin).max(1)
    }

    fn interval(&self) -> Duration {
        self.rate.window() / self.limit()
    }

    /// Returns how far a call may be ahead of an even pace.
    ///
    /// After a pause, a tenth of a window's calls may go at once, so that a single session never
    /// waits. In a busy stream only two may: bursts of calls would fall into the platform's windows
    /// as bursts, and it is unknown when those windows begin.
    fn burst_tolerance(&self, now: Timestamp) -> Duration {
        let idle = self.used(now) * 2 < self.limit();
        let calls = if idle { (self.limit() / 10).max(2) } else { 2 };
        self.interval() * calls.min(self.limit()).saturating_sub(1)
    }

    /// Returns when the next call may be sent, `now` or later.
    pub(crate) fn next_allowed_at(&self, now: Timestamp) -> Timestamp {
        let evenly = self.even - self.burst_tolerance(now);
        let limit = self.limit() as usize;
        let in_window = self
            .sent
            .len()
            .checked_sub(limit)
            .map(|oldest| self.sent[oldest] + self.rate.window());
        now.max(evenly).max(in_window.unwrap_or(now))
    }

    /// Returns how far the theoretical arrival time is ahead of `now`. A smaller value means more
    /// capacity.
    pub(crate) fn utilization(&self, now: Timestamp) -> Duration {
        self.even.since(now)
    }

    /// Records that a call is sent.
    pub(crate) fn record_call(&mut self, now: Timestamp) {
        self.decay_external_usage(now);
        self.even = self.even.max(now) + self.interval();
        self.sent.push_back(now);
        if self.sent.len() > self.rate.calls() as usize {
            self.sent.pop_front();
        }
    }

    /// Lets the learned headroom and the estimate of other load decay over time.
    fn decay_external_usage(&mut self, now: Timestamp) {
        const PATIENT: u32 = 10;
        let window = self.rate.window();
        let excess = self.margin.saturating_sub(self.min_headroom());
        if excess > 0 && now.since(self.margin_changed) > window * PATIENT {
            self.margin -= excess.div_ceil(2);
            self.margin_changed = now;
        }
        if self.foreign > 0.0 && now.since(self.foreign_seen) > window {
            self.foreign /= 2.0;
            self.foreign_seen = now;
            if self.foreign < 1.0 {
                self.foreign = 0.0;
            }
        }
    }

    /// Learns from the rate limit headers of a response whose request was sent at `sent_at`.
    /// `reset` is in whole seconds, rounded up. Returns how long to wait if no call is left in the
    /// window.
    pub(crate) fn observed(
        &mut self,
        (count, allowed): (u32, u32),
        reset: Duration,
        sent_at: Timestamp,
        now: Timestamp,
    ) -> Option<Duration> {
        const COARSE: Duration = Duration::from_secs(1);
        // Assume the earliest moment at which the platform's window can have begun. Of its count,
        // at most the calls sent since then came from this limiter.
        let began = (sent_at + reset.saturating_sub(COARSE)) - self.rate.window();
        let ours = self.sent.len() - self.sent.partition_point(|at| *at < began);
        // Other programs may use what the platform allows beyond this limiter's rate, so do not
        // subtract it.
        let others =
            f64::from(count) - ours as f64 - f64::from(allowed.saturating_sub(self.rate.calls()));
        // Ignore a difference within the headroom: the platform may count a call of the previous
        // window late.
        if !self.slice && others > f64::from(self.margin) && others > self.foreign {
            self.foreign = others;
            self.foreign_seen = now;
        }
        // Whole seconds are too coarse for a window that ends within one second. GCRA's own pace is
        // more precise there.
        (count >= allowed && reset > COARSE).then_some(reset)
    }

    /// Reduces the rate slightly after an unexpected 429: raises the headroom by 2 % of the rate.
    /// It then decays.
    pub(crate) fn on_throttled(&mut self, now: Timestamp) {
        if now.since(self.margin_changed) > self.rate.window() {
            self.margin = (self.margin + self.rate.calls().div_ceil(50)).min(self.rate.calls() / 2);
            self.margin_changed = now;
        }
    }

    /// Returns the number of calls sent in the window that ends now.
    pub(crate) fn used(&self, now: Timestamp) -> u32 {
        let first = self
            .sent
            .partition_point(|at| *at + self.rate.window() <= now);
        u32::try_from(self.sent.len() - first).unwrap_or(u32::MAX)
    }
}

/// Returns the minimum headroom: 98 of 100 calls per second are used, and 298 of 300 per minute.
pub(super) fn min_headroom(rate: Rate) -> u32 {
    match rate.calls() {
        0..10 => 0,
        10..50 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_unix_micros(1_000_000_000);

    fn send(meter: &mut GcraLimiter, now: Timestamp) -> Timestamp {
        let at = meter.next_allowed_at(now);
        meter.record_call(at);
        at
    }

    proptest! {
        /// No span of a window's length holds more calls than the rate, whatever the gaps between
        /// calls.
        #[test]
        fn no_window_holds_more_calls_than_the_rate(
            calls in 1_u32..300, minute: bool, gaps in prop::collection::vec(0_u64..40_000, 1..800),
        ) {
            let unit = if minute { "min" } else { "s" };
            let rate: Rate = format!("{calls}/{unit}").parse().unwrap();
            let mut meter = GcraLimiter::new(rate);
            let window = rate.window();
            let mut now = START;
            let mut sent = Vec::new();
            for gap in gaps {
                now = now + Duration::from_micros(gap);
                sent.push(send(&mut meter, now));
                now = now.max(*sent.last().unwrap());
            }
            for (i, first) in sent.iter().enumerate() {
                let in_window = sent[i..].iter().take_while(|at| at.since(*first) < window).count();
                prop_assert!(in_window <= calls as usize, "{in_window} calls in a window of {calls}");
            }
        }
    }

    #[test]
    fn saturated_limiter_uses_at_least_97_percent_of_its_rate() {
        for (rate, calls, at_most) in [
            ("100/s", 3_000, 30.0 / 0.97),
            ("300/min", 9_000, 30.0 * 60.0 / 0.99),
        ] {
            let mut meter = GcraLimiter::new(rate.parse().unwrap());
            let last = (0..calls).fold(START, |now, _| send(&mut meter, now));
            assert!(
                last.since(START).as_secs_f64() <= at_most,
                "{rate}: {:?}",
                last.since(START)
            );
        }
    }

    #[test]
    fn first_seven_calls_of_an_idle_limiter_do_not_wait() {
        for rate in ["100/s", "300/min"] {
            let mut meter = GcraLimiter::new(rate.parse().unwrap());
            assert!((0..7).all(|_| send(&mut meter, START) == START), "{rate}");
        }
    }

    #[test]
    fn limiter_yields_to_other_load_and_reclaims_it_later() {
        let mut meter = GcraLimiter::new(Rate::PLATFORM_DEFAULT);
        let minute = Duration::from_secs(60);
        let mut now = START;
        // Another program makes 100 calls.
        for n in 0..20 {
            now = send(&mut meter, now);
            meter.observed((100 + n + 1, 300), Duration::from_secs(30), now, now);
        }
        assert!((190..=200).contains(&meter.limit()), "{}", meter.limit());
        // From here on, all counted calls come from this limiter.
        for _ in 0..20 {
            now = now + minute;
            meter.record_call(now);
            meter.observed((1, 300), minute, now, now);
        }
        assert_eq!(meter.limit(), 298);
    }

    #[test]
    fn late_headers_do_not_make_own_calls_count_as_other_load() {
        let mut meter = GcraLimiter::new(Rate::REST);
        let mut now = START;
        let mut sent = Vec::new();
        for _ in 0..500 {
            now = send(&mut meter, now);
            sent.push(now);
        }
        // A platform whose windows begin with each whole second after the first call. The counts
        // arrive 300 ms after the calls were sent.
        for at in &sent {
            let began = START + Duration::from_secs(at.since(START).as_secs());
            let count = sent
                .iter()
                .filter(|other| **other >= began && *other <= at)
                .count() as u32;
            meter.observed(
                (count, 100),
                Duration::from_secs(1),
                *at,
                *at + Duration::from_millis(300),
            );
        }
        assert_eq!(meter.limit(), 98);
    }

    #[test]
    fn response_429_lowers_the_limit_temporarily() {
        let mut meter = GcraLimiter::new(Rate::REST);
        let mut now = START;
        meter.on_throttled(now);
        meter.on_throttled(now); // a second 429 at the same moment has no further effect
        assert_eq!(meter.limit(), 96);
        for _ in 0..5 {
            now = now + Duration::from_secs(11);
            meter.record_call(now);
        }
        assert_eq!(meter.limit(), 98);
    }

    #[test]
    fn low_configured_rate_is_fully_used_beside_other_load() {
        let mut meter = GcraLimiter::new("100/min".parse().unwrap());
        let mut now = START;
        let mut sent = Vec::new();
        for _ in 0..300 {
            now = send(&mut meter, now);
            sent.push(now);
            // Another program uses 200 of the 300 calls that the platform allows per minute.
            let into = Duration::from_secs(now.since(START).as_secs() % 60);
            let ours = sent
                .iter()
                .filter(|at| {
                    **at >= START + Duration::from_secs(now.since(START).as_secs() / 60 * 60)
                })
                .count();
            let told = (200 + u32::try_from(ours).unwrap(), 300);
            assert_eq!(
                meter.observed(told, Duration::from_secs(60) - into, now, now),
                None
            );
        }
        assert_eq!(meter.limit(), 98);
    }
}
