//! Health of the platform as its responses show it: a circuit breaker and an adaptive concurrency
//! limiter.
//!
//! The circuit breaker opens after a series of failed calls and closes with the first success. The
//! concurrency limiter derives a number of calls in flight from latency: it grows while responses
//! are as fast as on an idle platform, and shrinks when they slow down.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::{error::Operation, priority::Priority};
use guestlane_runtime::{Clock, Outage, Timestamp};

/// Circuit breaker and concurrency limiter of the platform. It measures; callers hold calls back.
#[derive(Debug)]
pub struct PlatformHealth {
    clock: Clock,
    in_flight_by_priority: PriorityCounts,
    in_backoff: PriorityCounts,
    beat: Mutex<State>,
    /// Logs the beginning and the end of an outage.
    logged: Outage,
    changed: Notify,
}

/// One counter per priority.
#[derive(Debug, Default)]
struct PriorityCounts([AtomicUsize; 2]);

impl PriorityCounts {
    fn of(&self, priority: Priority) -> &AtomicUsize {
        let [interactive, background] = &self.0;
        match priority {
            Priority::Interactive => interactive,
            Priority::Background => background,
        }
    }

    fn sum(&self) -> usize {
        self.0
            .iter()
            .map(|number| number.load(Ordering::Relaxed))
            .sum()
    }
}

#[derive(Debug)]
struct State {
    /// Number of consecutive failed attempts.
    failures: u32,
    was_well: bool,
    first_failure: Timestamp,
    room: f64,
    tempo: BTreeMap<Operation, LatencyWindow>,
}

/// Latency of one operation, averaged over a number of responses.
#[derive(Debug)]
struct LatencyWindow {
    answers: u32,
    waited: Duration,
    least: MinLatency,
}

/// The shortest mean latency of the last 30 to 60 seconds: the latency without load.
#[derive(Debug)]
struct MinLatency {
    before: Duration,
    now: Duration,
    since: Timestamp,
}

/// Counts a call until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlightGuard<'a> {
    pulse: &'a PlatformHealth,
    among: &'a AtomicUsize,
}

impl<'a> InFlightGuard<'a> {
    fn new(pulse: &'a PlatformHealth, among: &'a AtomicUsize) -> Self {
        among.fetch_add(1, Ordering::Relaxed);
        pulse.changed.notify_one();
        Self { pulse, among }
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.among.fetch_sub(1, Ordering::Relaxed);
        self.pulse.changed.notify_one();
    }
}

impl State {
    /// Number of consecutive failures, and the minimum time they span, that open the circuit
    /// breaker. Fewer may be the failure of a single connection.
    const OUTAGE: (u32, Duration) = (10, Duration::from_secs(1));

    /// Initial limit of calls in flight. It is low enough that even a small platform shows its
    /// latency without load.
    const INITIAL_LIMIT: f64 = 8.0;

    const MIN_LIMIT: f64 = 4.0;
    const MAX_LIMIT: f64 = 4096.0;

    /// Minimum number of responses for a mean. A mean of fewer is not significant.
    const ENOUGH: f64 = 32.0;

    /// Added to the tolerated latency, which is twice the latency without load. Smaller differences
    /// are noise.
    const NOISE: Duration = Duration::from_millis(10);

    /// Adapts the limit to a response that arrived after `waited`, with `under_way` calls in
    /// flight. The limit grows while latency stays low and shrinks when latency rises.
    fn answered(
        &mut self,
        operation: Operation,
        waited: Duration,
        under_way: usize,
        now: Timestamp,
    ) {
        let tempo = self
            .tempo
            .entry(operation)
            .or_insert_with(|| LatencyWindow::new(now));
        tempo.answers += 1;
        tempo.waited += waited;
        if f64::from(tempo.answers) < self.room.max(Self::ENOUGH) {
            return;
        }
        let mean = tempo.waited / tempo.answers;
        (tempo.answers, tempo.waited) = (0, Duration::ZERO);
        let tolerated = tempo.least.with(mean, now) * 2 + Self::NOISE;
        if mean > tolerated {
            self.room =
                (self.room * tolerated.div_duration_f64(mean).max(0.5)).max(Self::MIN_LIMIT);
        } else if under_way as f64 * 2.0 >= self.room {
            self.room = (self.room + (self.room / 4.0).max(4.0)).min(Self::MAX_LIMIT);
        }
    }
}

impl LatencyWindow {
    fn new(now: Timestamp) -> Self {
        Self {
            answers: 0,
            waited: Duration::ZERO,
            least: MinLatency {
                before: Duration::MAX,
                now: Duration::MAX,
                since: now,
            },
        }
    }
}

impl MinLatency {
    const REMEMBERED: Duration = Duration::from_secs(30);

    fn with(&mut self, mean: Duration, now: Timestamp) -> Duration {
        if now.since(self.since) > Self::REMEMBERED {
            (self.before, self.now, self.since) = (self.now, mean, now);
        }
        self.now = self.now.min(mean);
        self.now.min(self.before)
    }
}

impl PlatformHealth {
    pub(crate) fn new(clock: Clock) -> Self {
        let epoch = Timestamp::from_unix_micros(0);
        let beat = State {
            failures: 0,
            was_well: false,
            first_failure: epoch,
            room: State::INITIAL_LIMIT,
            tempo: BTreeMap::new(),
        };
        Self {
            clock,
            in_flight_by_priority: PriorityCounts::default(),
            in_backoff: PriorityCounts::default(),
            beat: Mutex::new(beat),
            logged: Outage::of("platform".into()),
            changed: Notify::new(),
        }
    }

    fn beat(&self) -> MutexGuard<'_, State> {
        self.beat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call in flight until the guard is dropped.
    pub(crate) fn call(&self, priority: Priority) -> InFlightGuard<'_> {
        InFlightGuard::new(self, self.in_flight_by_priority.of(priority))
    }

    /// Counts a call in backoff until the guard is dropped.
    pub(crate) fn backoff(&self, priority: Priority) -> InFlightGuard<'_> {
        InFlightGuard::new(self, self.in_backoff.of(priority))
    }

    /// Records the latency of a response of any status.
    pub(crate) fn answered(&self, operation: Operation, waited: Duration) {
        let under_way = self.in_flight();
        self.beat()
            .answered(operation, waited, under_way, self.clock.monotonic());
    }

    /// Records that the platform responded, with a success or a rejection. Closes the circuit
    /// breaker.
    pub fn record_success(&self) {
        let mut beat = self.beat();
        beat.failures = 0;
        beat.was_well = true;
        drop(beat);
        self.logged.well(self.clock.monotonic());
    }

    /// Records that the platform gave no response, or failed.
    pub(crate) fn record_failure(&self) {
        let now = self.clock.monotonic();
        let mut beat = self.beat();
        if beat.failures == 0 {
            beat.first_failure = now;
        }
        beat.failures = beat.failures.saturating_add(1);
        let failures = beat.failures;
        drop(beat);
        if self.open_for().is_some() {
            self.logged
                .failed(&format!("{failures} consecutive calls failed"), now);
        }
    }

    /// Returns how long the circuit breaker has been open, or `None` if it is closed. The time
    /// counts from the first failure.
    pub fn open_for(&self) -> Option<Duration> {
        let (failures, span) = State::OUTAGE;
        let beat = self.beat();
        let lasted = self.clock.monotonic().since(beat.first_failure);
        (beat.failures >= failures && lasted >= span).then_some(lasted)
    }

    /// Returns the number of calls in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight_by_priority.sum()
    }

    /// Returns the number of calls of this priority that are in flight or in backoff. Such calls
    /// need no work of the local machine.
    pub fn awaiting_response(&self, priority: Priority) -> usize {
        let number = |numbers: &PriorityCounts| numbers.of(priority).load(Ordering::Relaxed);
        number(&self.in_flight_by_priority) + number(&self.in_backoff)
    }

    /// Whether any call has ever succeeded.
    pub fn ever_succeeded(&self) -> bool {
        self.beat().was_well
    }

    /// Returns the number of calls in backoff.
    pub fn backing_off(&self) -> usize {
        self.in_backoff.sum()
    }

    /// Returns the limit of calls in flight that does not overload the platform, as far as latency
    /// shows.
    pub fn limit(&self) -> usize {
        self.beat().room as usize
    }

    /// Waits until a call begins or ends. Only one caller may wait at a time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guestlane_runtime::ManualClock;

    fn pulse() -> (ManualClock, PlatformHealth) {
        let clock = ManualClock::new(Timestamp::from_unix_micros(1_000_000_000));
        (clock.clone(), PlatformHealth::new(clock.into()))
    }

    /// Simulates a platform that responds within 50 ms up to `capacity` calls in flight, and more
    /// slowly beyond it.
    fn ended_at(capacity: f64) -> usize {
        let (clock, pulse) = pulse();
        for _ in 0..20_000 {
            let room = pulse.limit();
            let waited = Duration::from_millis(50).mul_f64((room as f64 / capacity).max(1.0));
            clock.advance(Duration::from_millis(1));
            pulse
                .beat()
                .answered(Operation::Contact, waited, room, clock.now());
        }
        pulse.limit()
    }

    #[test]
    fn concurrency_limit_settles_near_the_platform_capacity() {
        for capacity in [20.0, 200.0, 1000.0] {
            let room = ended_at(capacity) as f64;
            assert!(
                room >= capacity && room <= capacity * 3.2,
                "{room} of {capacity}"
            );
        }
    }

    /// Neither operations of different speed nor varying latency lower the limit.
    #[test]
    fn latency_variance_does_not_lower_the_concurrency_limit() {
        let mut random = fastrand::Rng::with_seed(7);
        for spread in [false, true] {
            let (clock, pulse) = pulse();
            for n in 0..20_000 {
                let room = pulse.limit();
                let (operation, usual) = if n % 2 == 0 {
                    (Operation::Queue, 20.0)
                } else {
                    (Operation::Contact, 200.0)
                };
                // Exponential distribution: a few values are ten times the mean.
                let waited = if spread {
                    -usual * random.f64().max(1e-9).ln()
                } else {
                    usual
                };
                clock.advance(Duration::from_millis(5));
                pulse.beat().answered(
                    operation,
                    Duration::from_secs_f64(waited / 1000.0),
                    room,
                    clock.now(),
                );
            }
            assert!(
                pulse.limit() >= 256,
                "{} with spread {spread}",
                pulse.limit()
            );
        }
    }

    #[test]
    fn sustained_failures_open_circuit_breaker_and_success_closes_it() {
        let (clock, pulse) = pulse();
        (0..9).for_each(|_| pulse.record_failure());
        clock.advance(Duration::from_secs(60));
        assert_eq!(pulse.open_for(), None);
        pulse.record_failure();
        assert_eq!(pulse.open_for(), Some(Duration::from_secs(60)));
        pulse.record_success();
        assert_eq!(pulse.open_for(), None);
        (0..100).for_each(|_| pulse.record_failure());
        assert_eq!(pulse.open_for(), None, "at the same moment");
    }
}
