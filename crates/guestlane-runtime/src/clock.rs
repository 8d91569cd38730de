//! The only module that reads the time and waits.
//!
//! All other code takes a [`Clock`] or a [`Timestamp`], so that tests can compute expiries, retries
//! and leases. A [`ManualClock`] moves when a test advances it. It can also advance itself whenever
//! no [`Busy`] guard exists: a test that waits an hour then takes a millisecond, although its
//! sockets and files are real.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt,
    future::Future,
    str::FromStr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::oneshot;

/// A moment in UTC, in microseconds since 1970-01-01.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Creates a timestamp from microseconds since the Unix epoch.
    pub const fn from_unix_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Returns the microseconds since the Unix epoch.
    pub const fn unix_micros(self) -> i64 {
        self.0
    }

    /// Returns whole seconds since the Unix epoch, as in JWT's NumericDate (RFC 7519, section 2).
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Returns how much later `self` is than `earlier`, or zero if it is not later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Timestamp {
    /// Formats the timestamp as RFC 3339 with milliseconds, as the platform does.
    pub fn to_millis(self) -> String {
        let whole = Self(self.0 - self.0.rem_euclid(1000)).to_string();
        whole
            .strip_suffix("000Z")
            .map_or(whole.clone(), |millis| format!("{millis}Z"))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros))
    }
}

/// Formats the timestamp as RFC 3339 with microseconds, in UTC: `2026-11-22T15:23:49.123456Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(moment) => write!(f, "{moment:.6}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

/// The text is not a moment in RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a timestamp like 2026-11-22T15:23:49Z")]
pub struct InvalidTimestamp;

/// Parses RFC 3339 with any offset.
impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let moment: jiff::Timestamp = text.parse().map_err(|_| InvalidTimestamp)?;
        Ok(Self(moment.as_microsecond()))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The timeout expired before the work was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no response within {0:?}")]
pub struct TimedOut(pub Duration);

/// A clock: returns the time and waits. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    System,
    Manual(ManualClock),
    Following(Arc<Following>),
}

/// The time since the machine booted, including suspend, and an identifier of that boot. Within one
/// boot it measures elapsed time independently of the wall clock, also between two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Identifies the boot.
    pub id: u128,
    /// Time since the boot.
    pub elapsed: Duration,
}

impl Boot {
    /// Reads `CLOCK_BOOTTIME` (clock_gettime(2)) and `/proc/sys/kernel/random/boot_id` (random(4)).
    /// Where the kernel has no such file, each process counts as a boot of its own.
    fn of_this_machine() -> Self {
        static ID: OnceLock<u128> = OnceLock::new();
        let read = || std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let id = ID.get_or_init(|| {
            let known = read().and_then(|text| uuid::Uuid::try_parse(text.trim()).ok());
            known.unwrap_or_else(uuid::Uuid::new_v4).as_u128()
        });
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or(0));
        Self {
            id: *id,
            elapsed: seconds + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0)),
        }
    }
}

/// A clock that shows the time of a reference, such as the database that the nodes of a fleet
/// share. All nodes then compare times of one clock. Between two measurements it advances with the
/// monotonic clock, so that a jump of the wall clock has no effect.
#[derive(Clone, Debug)]
pub struct ReferenceClock(Arc<Following>);

#[derive(Debug)]
struct Following {
    base: Clock,
    is_set: AtomicBool,
    /// The reference's time minus the base's monotonic time, in microseconds.
    offset: AtomicI64,
}

impl ReferenceClock {
    /// Creates a clock that shows the time of `base` until it is [set](Self::set).
    pub fn new(base: Clock) -> Self {
        Self(Arc::new(Following {
            base,
            is_set: AtomicBool::new(false),
            offset: AtomicI64::new(0),
        }))
    }

    /// Records a measurement: the reference showed `reference` when the base's
    /// [monotonic](Clock::monotonic) clock showed `at`.
    pub fn set(&self, reference: Timestamp, at: Timestamp) {
        self.0.offset.store(reference.0 - at.0, Ordering::SeqCst);
        self.0.is_set.store(true, Ordering::SeqCst);
    }

    /// Returns how far the wall clock is ahead of the reference in microseconds, negative if it is
    /// behind. Returns `None` before the first measurement.
    pub fn wall_clock_offset(&self) -> Option<i64> {
        self.0
            .is_set
            .load(Ordering::SeqCst)
            .then(|| self.0.base.now().0 - self.0.now().0)
    }

    /// Returns the clock that shows the reference's time.
    pub fn clock(&self) -> Clock {
        Clock(Kind::Following(Arc::clone(&self.0)))
    }
}

impl Following {
    fn now(&self) -> Timestamp {
        if self.is_set.load(Ordering::SeqCst) {
            Timestamp(self.base.monotonic().0 + self.offset.load(Ordering::SeqCst))
        } else {
            self.base.now()
        }
    }
}

impl Clock {
    /// Returns the machine's clock.
    pub const fn system() -> Self {
        Self(Kind::System)
    }

    /// Whether this clock may be compared with another machine's clock. The system clock may be,
    /// and a manual clock if the test says so.
    pub fn is_comparable(&self) -> bool {
        match &self.0 {
            Kind::System => true,
            Kind::Manual(manual) => manual.0.comparable.load(Ordering::SeqCst),
            Kind::Following(following) => following.base.is_comparable(),
        }
    }

    /// Returns the time since the machine booted.
    pub fn boot(&self) -> Boot {
        match &self.0 {
            Kind::System => Boot::of_this_machine(),
            Kind::Manual(manual) => {
                let state = manual.state();
                Boot {
                    id: state.boot,
                    elapsed: state.now.since(Timestamp::default()),
                }
            }
            Kind::Following(following) => following.base.boot(),
        }
    }

    /// Returns the current wall clock time.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Kind::System => {
                #[expect(clippy::disallowed_methods, reason = "this is the place")]
                let now = std::time::SystemTime::now();
                let micros = now
                    .duration_since(std::time::UNIX_EPOCH)
                    .map_or(0, |age| age.as_micros());
                Timestamp(i64::try_from(micros).unwrap_or(i64::MAX))
            }
            Kind::Manual(manual) => manual.now(),
            Kind::Following(following) => following.now(),
        }
    }

    /// Returns a time that only increases, at the rate of real time, independently of changes to
    /// the wall clock. It begins with the wall clock time of its first use and is meaningful only
    /// in this process.
    pub fn monotonic(&self) -> Timestamp {
        static FIRST: OnceLock<(std::time::Instant, Timestamp)> = OnceLock::new();
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "this is the place")]
            Kind::System => {
                let (began, then) = FIRST.get_or_init(|| (std::time::Instant::now(), self.now()));
                *then + began.elapsed()
            }
            Kind::Manual(manual) => manual.state().now,
            Kind::Following(following) => following.base.monotonic(),
        }
    }

    /// Waits for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            Kind::System => {
                #[expect(clippy::disallowed_methods, reason = "this is the place")]
                tokio::time::sleep(duration).await;
            }
            Kind::Manual(manual) => manual.sleep(duration).await,
            Kind::Following(following) => Box::pin(following.base.sleep(duration)).await,
        }
    }

    /// Waits until `moment`; returns immediately if it has passed.
    pub async fn sleep_until(&self, moment: Timestamp) {
        self.sleep(moment.since(self.now())).await;
    }

    /// Runs `work` for at most `limit`. When the limit expires, `work` is dropped.
    ///
    /// # Errors
    ///
    /// Returns [`TimedOut`] if `work` did not complete in time.
    pub async fn timeout<F: Future>(
        &self,
        limit: Duration,
        work: F,
    ) -> Result<F::Output, TimedOut> {
        let work = std::pin::pin!(work);
        tokio::select! {
            biased;
            output = work => Ok(output),
            () = self.sleep(limit) => Err(TimedOut(limit)),
        }
    }

    /// Returns a guard for real work (a socket, a file). While it exists, a manual clock does not
    /// advance automatically.
    pub fn pause_auto_advance(&self) -> Busy {
        Busy(match &self.0 {
            Kind::System => None,
            Kind::Following(following) => return following.base.pause_auto_advance(),
            Kind::Manual(manual) => {
                manual.0.busy.fetch_add(1, Ordering::SeqCst);
                Some(manual.clone())
            }
        })
    }
}

impl From<ManualClock> for Clock {
    fn from(manual: ManualClock) -> Self {
        Self(Kind::Manual(manual))
    }
}

/// Guard returned by [`Clock::pause_auto_advance`].
#[derive(Debug)]
pub struct Busy(Option<ManualClock>);

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(manual) = &self.0 {
            manual.0.busy.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// A clock for tests that moves only when a test advances it.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<ManualClockInner>);

#[derive(Debug)]
struct ManualClockInner {
    state: Mutex<State>,
    busy: AtomicUsize,
    comparable: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// Elapsed time.
    now: Timestamp,
    /// Offset of the displayed wall clock time, in microseconds.
    stepped: i64,
    /// Number of the simulated boot.
    boot: u128,
    sleepers: BinaryHeap<Reverse<Sleeper>>,
    seq: u64,
}

#[derive(Debug)]
struct Sleeper {
    wake_at: Timestamp,
    seq: u64,
    wake: oneshot::Sender<()>,
}

impl PartialEq for Sleeper {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Sleeper {}
impl PartialOrd for Sleeper {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Sleeper {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.wake_at, self.seq).cmp(&(other.wake_at, other.seq))
    }
}

impl ManualClock {
    /// Creates a clock that stands at `now` until it is advanced.
    pub fn new(now: Timestamp) -> Self {
        let state = State {
            now,
            stepped: 0,
            boot: 1,
            sleepers: BinaryHeap::new(),
            seq: 0,
        };
        Self(Arc::new(ManualClockInner {
            state: Mutex::new(state),
            busy: AtomicUsize::new(0),
            comparable: AtomicBool::new(false),
        }))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the displayed wall clock time.
    pub fn now(&self) -> Timestamp {
        let state = self.state();
        Timestamp(state.now.0 + state.stepped)
    }

    /// Steps the wall clock by `seconds`. Sleepers wait as long as before.
    pub fn set_wall_clock(&self, seconds: i64) {
        self.state().stepped += seconds * 1_000_000;
    }

    /// Allows comparing this clock with other machines' clocks, such as a database's.
    pub fn compare_with_others(&self) {
        self.0.comparable.store(true, Ordering::SeqCst);
    }

    /// Simulates a reboot: the time since boot belongs to another boot from now on.
    pub fn reboot(&self) {
        self.state().boot += 1;
    }

    /// Advances by `duration` and wakes in order all sleepers whose time comes.
    pub fn advance(&self, duration: Duration) {
        let target = self.state().now + duration;
        while self.wake_next(Some(target)) {}
        let mut state = self.state();
        state.now = state.now.max(target);
    }

    /// Advances to the earliest wake time (not past `limit`) and wakes its sleeper. Returns false
    /// if there is none.
    fn wake_next(&self, limit: Option<Timestamp>) -> bool {
        let mut state = self.state();
        while let Some(Reverse(next)) = state.sleepers.peek() {
            if limit.is_some_and(|limit| next.wake_at > limit) {
                return false;
            }
            let Some(Reverse(sleeper)) = state.sleepers.pop() else {
                return false;
            };
            if sleeper.wake.is_closed() {
                continue; // the future was dropped; skip its wake time
            }
            state.now = state.now.max(sleeper.wake_at);
            let _ = sleeper.wake.send(());
            return true;
        }
        false
    }

    async fn sleep(&self, duration: Duration) {
        if duration.is_zero() {
            return;
        }
        let (wake, woken) = oneshot::channel();
        {
            let mut state = self.state();
            state.seq += 1;
            let sleeper = Sleeper {
                wake_at: state.now + duration,
                seq: state.seq,
                wake,
            };
            state.sleepers.push(Reverse(sleeper));
        }
        let _ = woken.await;
    }

    /// Advances automatically to the next wake time whenever no [`Busy`] guard exists, for as long
    /// as the runtime lives. Use it on a single-threaded runtime, where the busy count cannot
    /// change meanwhile.
    pub fn auto_advance(&self) {
        const TURNS: u32 = 64;
        let clock = self.clone();
        tokio::spawn(async move {
            loop {
                let mut idle = true;
                for _ in 0..TURNS {
                    tokio::task::yield_now().await;
                    idle &= clock.0.busy.load(Ordering::SeqCst) == 0;
                }
                if !(idle && clock.wake_next(None)) {
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "gives real sockets and files a moment"
                    )]
                    tokio::time::sleep(Duration::from_micros(100)).await;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests;
