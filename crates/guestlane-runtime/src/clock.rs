//! The only module that reads the time and waits.
//!
//! All other code takes a [`Clock`] or a [`Timestamp`], so that tests can compute expiries, retries
//! and leases. A [`ManualClock`] moves when a test advances it. It can also advance itself whenever
//! no [`Busy`] guard exists: a test that waits an hour then takes a millisecond, although its
//! sockets and files are real.

mod manual;
mod timestamp;

use std::{
    future::Future,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

pub use manual::ManualClock;
pub use timestamp::{InvalidTimestamp, Timestamp};

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

#[cfg(test)]
mod tests;
