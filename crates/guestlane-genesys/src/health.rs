//! How the platform does, as the calls show it: how many are under way, how long they take, and whether any goes well.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    clock::{Clock, Timestamp},
    error::Operation,
    outage::Outage,
    priority::Priority,
};

/// How the platform does.
#[derive(Debug)]
pub struct PlatformHealth {
    clock: Clock,
    under_way: PriorityCounts,
    resting: PriorityCounts,
    beat: Mutex<State>,
    /// What the log says of it.
    logged: Outage,
    changed: Notify,
}

/// How many there are of each priority.
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
        self.0.iter().map(|number| number.load(Ordering::Relaxed)).sum()
    }
}

#[derive(Debug)]
struct State {
    /// Attempts that failed one after another.
    failures: u32,
    was_well: bool,
    first_failure: Timestamp,
    room: f64,
    tempo: BTreeMap<Operation, LatencyWindow>,
}

/// How fast the answers to one operation come.
#[derive(Debug)]
struct LatencyWindow {
    answers: u32,
    waited: Duration,
    least: MinLatency,
}

/// The shortest mean wait of the last minute or so: what an answer takes when nothing is crowded.
#[derive(Debug)]
struct MinLatency {
    before: Duration,
    now: Duration,
    since: Timestamp,
}

/// Counted until this is dropped.
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
    /// So many failures in a row, over so long a time, are an outage: fewer may be one connection's.
    const OUTAGE: (u32, Duration) = (10, Duration::from_secs(1));

    /// Calls under way at the start: few enough that even a small platform shows how fast it is when nothing is crowded.
    const INITIAL_LIMIT: f64 = 8.0;

    const MIN_LIMIT: f64 = 4.0;
    const MAX_LIMIT: f64 = 4096.0;

    /// A mean of fewer answers would be chance.
    const ENOUGH: f64 = 32.0;

    /// Answers may take twice as long as when nothing is crowded, and this much more: below it, a difference is noise.
    const NOISE: Duration = Duration::from_millis(10);

    /// An answer came after `waited`, with so many calls under way. More are allowed while answers come as fast as ever; fewer when they do not.
    fn answered(&mut self, operation: Operation, waited: Duration, under_way: usize, now: Timestamp) {
        let tempo = self.tempo.entry(operation).or_insert_with(|| LatencyWindow::new(now));
        tempo.answers += 1;
        tempo.waited += waited;
        if f64::from(tempo.answers) < self.room.max(Self::ENOUGH) {
            return;
        }
        let mean = tempo.waited / tempo.answers;
        (tempo.answers, tempo.waited) = (0, Duration::ZERO);
        let tolerated = tempo.least.with(mean, now) * 2 + Self::NOISE;
        if mean > tolerated {
            self.room = (self.room * tolerated.div_duration_f64(mean).max(0.5)).max(Self::MIN_LIMIT);
        } else if under_way as f64 * 2.0 >= self.room {
            self.room = (self.room + (self.room / 4.0).max(4.0)).min(Self::MAX_LIMIT);
        }
    }
}

impl LatencyWindow {
    fn new(now: Timestamp) -> Self {
        Self { answers: 0, waited: Duration::ZERO, least: MinLatency { before: Duration::MAX, now: Duration::MAX, since: now } }
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
        let beat =
            State { failures: 0, was_well: false, first_failure: epoch, room: State::INITIAL_LIMIT, tempo: BTreeMap::new() };
        Self {
            clock,
            under_way: PriorityCounts::default(),
            resting: PriorityCounts::default(),
            beat: Mutex::new(beat),
            logged: Outage::of("platform".into()),
            changed: Notify::new(),
        }
    }

    fn beat(&self) -> MutexGuard<'_, State> {
        self.beat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins.
    pub(crate) fn call(&self) -> InFlightGuard<'_> {
        InFlightGuard::new(self, self.under_way.of(Priority::current()))
    }

    /// A call waits for the moment to be tried again.
    pub(crate) fn rest(&self) -> InFlightGuard<'_> {
        InFlightGuard::new(self, self.resting.of(Priority::current()))
    }

    /// An answer of whatever kind came after `waited`.
    pub(crate) fn answered(&self, operation: Operation, waited: Duration) {
        let under_way = self.in_flight();
        self.beat().answered(operation, waited, under_way, self.clock.monotonic());
    }

    /// The platform did something, or refused to.
    pub fn record_success(&self) {
        let mut beat = self.beat();
        beat.failures = 0;
        beat.was_well = true;
        drop(beat);
        self.logged.well(self.clock.monotonic());
    }

    /// It gave no answer, or failed.
    pub(crate) fn failed(&self) {
        let now = self.clock.monotonic();
        let mut beat = self.beat();
        if beat.failures == 0 {
            beat.first_failure = now;
        }
        beat.failures = beat.failures.saturating_add(1);
        let failures = beat.failures;
        drop(beat);
        if self.open_for().is_some() {
            self.logged.failed(&format!("{failures} calls failed one after another"), now);
        }
    }

    /// How long nothing has gone well, if that is long enough to be called an outage.
    pub fn open_for(&self) -> Option<Duration> {
        let (failures, span) = State::OUTAGE;
        let beat = self.beat();
        let lasted = self.clock.monotonic().since(beat.first_failure);
        (beat.failures >= failures && lasted >= span).then_some(lasted)
    }

    /// Calls that are under way now.
    pub fn in_flight(&self) -> usize {
        self.under_way.sum()
    }

    /// Calls of that priority which are under way, or wait for the moment to be tried again: this machine has nothing to do for them.
    pub fn awaiting_response(&self, priority: Priority) -> usize {
        let number = |numbers: &PriorityCounts| numbers.of(priority).load(Ordering::Relaxed);
        number(&self.under_way) + number(&self.resting)
    }

    /// Whether anything has ever gone well.
    pub fn ever_succeeded(&self) -> bool {
        self.beat().was_well
    }

    /// Calls that wait for the moment to be tried again.
    pub fn backing_off(&self) -> usize {
        self.resting.sum()
    }

    /// Calls that may be under way without crowding the platform, as far as its answers show.
    pub fn limit(&self) -> usize {
        self.beat().room as usize
    }

    /// Waits until a call begins or ends; for one caller at a time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn pulse() -> (ManualClock, PlatformHealth) {
        let clock = ManualClock::new(Timestamp::from_unix_micros(1_000_000_000));
        (clock.clone(), PlatformHealth::new(clock.into()))
    }

    /// A platform that answers in 50 ms as long as no more than `capacity` calls are under way, and the more slowly the more there are beyond.
    fn ended_at(capacity: f64) -> usize {
        let (clock, pulse) = pulse();
        for _ in 0..20_000 {
            let room = pulse.limit();
            let waited = Duration::from_millis(50).mul_f64((room as f64 / capacity).max(1.0));
            clock.advance(Duration::from_millis(1));
            pulse.beat().answered(Operation::Contact, waited, room, clock.now());
        }
        pulse.limit()
    }

    #[test]
    fn as_many_calls_are_under_way_as_the_platform_answers_without_a_queue() {
        for capacity in [20.0, 200.0, 1000.0] {
            let room = ended_at(capacity) as f64;
            assert!(room >= capacity && room <= capacity * 3.2, "{room} of {capacity}");
        }
    }

    /// Operations of different speed, and answers that take now shorter and now longer, are no crowd.
    #[test]
    fn answers_that_differ_for_other_reasons_leave_room() {
        let mut random = fastrand::Rng::with_seed(7);
        for spread in [false, true] {
            let (clock, pulse) = pulse();
            for n in 0..20_000 {
                let room = pulse.limit();
                let (operation, usual) = if n % 2 == 0 { (Operation::Queue, 20.0) } else { (Operation::Contact, 200.0) };
                // Exponential: now and then ten times the mean.
                let waited = if spread { -usual * random.f64().max(1e-9).ln() } else { usual };
                clock.advance(Duration::from_millis(5));
                pulse.beat().answered(operation, Duration::from_secs_f64(waited / 1000.0), room, clock.now());
            }
            assert!(pulse.limit() >= 256, "{} with spread {spread}", pulse.limit());
        }
    }

    #[test]
    fn a_few_failures_are_no_outage_and_one_success_ends_it() {
        let (clock, pulse) = pulse();
        (0..9).for_each(|_| pulse.failed());
        clock.advance(Duration::from_secs(60));
        assert_eq!(pulse.open_for(), None);
        pulse.failed();
        assert_eq!(pulse.open_for(), Some(Duration::from_secs(60)));
        pulse.record_success();
        assert_eq!(pulse.open_for(), None);
        (0..100).for_each(|_| pulse.failed());
        assert_eq!(pulse.open_for(), None, "at the same moment");
    }
}
