//! When the next call is due: arithmetic alone, no clock and no waiting.
//!
//! Two rules together. GCRA (the generic cell rate algorithm) spreads calls evenly and lets a few
//! go at once after a pause. A log of the last calls makes the limit exact: no span of a window's
//! length, wherever it begins, holds more calls than are allowed, whether the platform's windows
//! slide or stand; no source says which (docs/platform.md#rate-limits).

use std::{collections::VecDeque, time::Duration};

use crate::{clock::Timestamp, rate::Rate};

/// The calls of one OAuth client, or of one of its endpoints that allows less.
#[derive(Debug)]
pub(crate) struct GcraLimiter {
    rate: Rate,
    /// Whether the rate is a slice of a quota that others use, too: the margin is taken from the whole, and what others use is theirs.
    slice: bool,
    /// Calls of a window that are left unused, because what we send and what the platform counts are not the same moment.
    margin: u32,
    margin_changed: Timestamp,
    /// Calls of a window that somebody else makes with the same client.
    foreign: f64,
    foreign_seen: Timestamp,
    /// When GCRA has the next call in mind.
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
            margin: least_margin(rate),
            margin_changed: epoch,
            foreign: 0.0,
            foreign_seen: epoch,
            even: epoch,
            sent: VecDeque::new(),
        }
    }

    /// The platform allows something else than was thought.
    pub(crate) fn set_rate(&mut self, rate: Rate) {
        if rate != self.rate {
            self.rate = rate;
            self.margin = self.min_headroom();
        }
    }

    /// What may be sent.
    pub(crate) fn rate(&self) -> Rate {
        self.rate
    }

    /// From now on a slice of a quota is what there is.
    pub(crate) fn set_slice(&mut self, calls: u32) {
        if !self.slice {
            (self.slice, self.margin, self.foreign) = (true, 0, 0.0);
        }
        self.rate = self.rate.with_calls(calls);
    }

    fn min_headroom(&self) -> u32 {
        if self.slice { 0 } else { least_margin(self.rate) }
    }

    /// Calls that we may send in a window, as things are.
    fn limit(&self) -> u32 {
        let calls = self.rate.calls();
        // Somebody else's share may be all but this: who never sends never learns that the other one has ended.
        let ours = (f64::from(calls) - self.foreign).max(f64::from(calls) / 2.0);
        (ours as u32).saturating_sub(self.margin).max(1)
    }

    fn interval(&self) -> Duration {
        self.rate.window() / self.limit()
    }

    /// How far ahead of an even pace calls may be: after a pause a tenth of a window's calls at once, so that one session by itself never
    /// waits. In a busy stream two: calls that come in bursts would meet the platform's windows in bursts, and those begin when they like.
    fn burst_tolerance(&self, now: Timestamp) -> Duration {
        let idle = self.used(now) * 2 < self.limit();
        let calls = if idle { (self.limit() / 10).max(2) } else { 2 };
        self.interval() * calls.min(self.limit()).saturating_sub(1)
    }

    /// When the next call may be sent, `now` or later.
    pub(crate) fn next_allowed_at(&self, now: Timestamp) -> Timestamp {
        let evenly = self.even - self.burst_tolerance(now);
        let limit = self.limit() as usize;
        let in_window = self.sent.len().checked_sub(limit).map(|oldest| self.sent[oldest] + self.rate.window());
        now.max(evenly).max(in_window.unwrap_or(now))
    }

    /// How much of an even pace is used up: the smaller, the more room.
    pub(crate) fn utilization(&self, now: Timestamp) -> Duration {
        self.even.since(now)
    }

    /// A call is sent.
    pub(crate) fn record_call(&mut self, now: Timestamp) {
        self.decay_external_usage(now);
        self.even = self.even.max(now) + self.interval();
        self.sent.push_back(now);
        if self.sent.len() > self.rate.calls() as usize {
            self.sent.pop_front();
        }
    }

    /// What was learnt of others and of lateness fades.
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

    /// What the platform says of its own count in the answer to a call that was sent at `sent_at`; `reset` is in whole seconds, rounded up.
    /// Says how long to wait when no call is left.
    pub(crate) fn observed(
        &mut self,
        (count, allowed): (u32, u32),
        reset: Duration,
        sent_at: Timestamp,
        now: Timestamp,
    ) -> Option<Duration> {
        const COARSE: Duration = Duration::from_secs(1);
        // The earliest moment at which the platform's window can have begun: so, of its count, at most these are ours.
        let began = (sent_at + reset.saturating_sub(COARSE)) - self.rate.window();
        let ours = self.sent.len() - self.sent.partition_point(|at| *at < began);
        // What the platform allows beyond our own quota is theirs anyway.
        let others = f64::from(count) - ours as f64 - f64::from(allowed.saturating_sub(self.rate.calls()));
        // One or two may be ours yet: a call takes its time.
        if !self.slice && others > f64::from(self.margin) && others > self.foreign {
            self.foreign = others;
            self.foreign_seen = now;
        }
        // Whole seconds say nothing of a window that ends within one: there our own pace is the better clock.
        (count >= allowed && reset > COARSE).then_some(reset)
    }

    /// The platform said 429 although we thought that there was room: from now on a little less is used, and bit by bit more again.
    pub(crate) fn on_throttled(&mut self, now: Timestamp) {
        if now.since(self.margin_changed) > self.rate.window() {
            self.margin = (self.margin + self.rate.calls().div_ceil(50)).min(self.rate.calls() / 2);
            self.margin_changed = now;
        }
    }

    /// Calls sent in the window that ends now.
    pub(crate) fn used(&self, now: Timestamp) -> u32 {
        let first = self.sent.partition_point(|at| *at + self.rate.window() <= now);
        u32::try_from(self.sent.len() - first).unwrap_or(u32::MAX)
    }
}

/// 98 of 100 calls a second are used, and 298 of 300 a minute.
pub(super) fn least_margin(rate: Rate) -> u32 {
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
        /// Whatever the gaps between callers, no span of a window's length holds more calls than the rate.
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
    fn a_busy_client_uses_98_of_100_calls_a_second_and_298_of_300_a_minute() {
        for (rate, calls, at_most) in [("100/s", 3_000, 30.0 / 0.97), ("300/min", 9_000, 30.0 * 60.0 / 0.99)] {
            let mut meter = GcraLimiter::new(rate.parse().unwrap());
            let last = (0..calls).fold(START, |now, _| send(&mut meter, now));
            assert!(last.since(START).as_secs_f64() <= at_most, "{rate}: {:?}", last.since(START));
        }
    }

    #[test]
    fn one_session_by_itself_does_not_wait_for_its_own_pace() {
        for rate in ["100/s", "300/min"] {
            let mut meter = GcraLimiter::new(rate.parse().unwrap());
            assert!((0..7).all(|_| send(&mut meter, START) == START), "{rate}");
        }
    }

    #[test]
    fn what_somebody_else_uses_is_left_to_them_and_taken_back_when_they_end() {
        let mut meter = GcraLimiter::new(Rate::CLOUD);
        let minute = Duration::from_secs(60);
        let mut now = START;
        // 100 calls that we did not make.
        for n in 0..20 {
            now = send(&mut meter, now);
            meter.observed((100 + n + 1, 300), Duration::from_secs(30), now, now);
        }
        assert!((190..=200).contains(&meter.limit()), "{}", meter.limit());
        // All that we see is ours.
        for _ in 0..20 {
            now = now + minute;
            meter.record_call(now);
            meter.observed((1, 300), minute, now, now);
        }
        assert_eq!(meter.limit(), 298);
    }

    #[test]
    fn our_own_calls_are_not_taken_for_somebody_elses_however_late_the_answers_come() {
        let mut meter = GcraLimiter::new(Rate::REST);
        let mut now = START;
        let mut sent = Vec::new();
        for _ in 0..500 {
            now = send(&mut meter, now);
            sent.push(now);
        }
        // As a platform counts whose windows begin with each whole second after the first call, told 300 ms after the calls were sent.
        for at in &sent {
            let began = START + Duration::from_secs(at.since(START).as_secs());
            let count = sent.iter().filter(|other| **other >= began && *other <= at).count() as u32;
            meter.observed((count, 100), Duration::from_secs(1), *at, *at + Duration::from_millis(300));
        }
        assert_eq!(meter.limit(), 98);
    }

    #[test]
    fn a_429_costs_a_little_of_the_pace_for_a_while() {
        let mut meter = GcraLimiter::new(Rate::REST);
        let mut now = START;
        meter.on_throttled(now);
        meter.on_throttled(now); // of the same moment
        assert_eq!(meter.limit(), 96);
        for _ in 0..5 {
            now = now + Duration::from_secs(11);
            meter.record_call(now);
        }
        assert_eq!(meter.limit(), 98);
    }

    #[test]
    fn a_quota_below_what_the_platform_allows_is_used_beside_another_program() {
        let mut meter = GcraLimiter::new("100/min".parse().unwrap());
        let mut now = START;
        let mut sent = Vec::new();
        for _ in 0..300 {
            now = send(&mut meter, now);
            sent.push(now);
            // Of 300 that the platform allows in each of its minutes, another program uses 200.
            let into = Duration::from_secs(now.since(START).as_secs() % 60);
            let ours = sent.iter().filter(|at| **at >= START + Duration::from_secs(now.since(START).as_secs() / 60 * 60)).count();
            let told = (200 + u32::try_from(ours).unwrap(), 300);
            assert_eq!(meter.observed(told, Duration::from_secs(60) - into, now, now), None);
        }
        assert_eq!(meter.limit(), 98);
    }
}
