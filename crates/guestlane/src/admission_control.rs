//! Admission control: decides when a session or a batch row may begin, from the rate limit and the
//! observed latency of the platform. Operators need not guess a concurrency limit.
//!
//! Batch rows wait until they may begin (back-pressure). Interactive sessions are accepted or shed
//! at once; the service answers a shed request with HTTP 429.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use guestlane_genesys::Priority;
use guestlane_runtime::Timestamp;
use tokio::sync::Notify;

use crate::engine::SessionEngine;
use guestlane_core::request::QueueId;

/// Admits batch rows one after another, and accepts or sheds interactive sessions.
///
/// A row that waits for a response or for its backoff costs nothing; a row that waits for the rate
/// limiter only ages. So the controller admits as many rows as keep the rate limit used, and as the
/// platform serves without queueing them.
#[derive(Debug)]
pub struct AdmissionController {
    engine: Arc<SessionEngine>,
    ceiling: usize,
    create_many: Mutex<BurstDetector>,
    shared: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    begun: AtomicUsize,
    ended: Notify,
}

/// How many sessions may be ready to make a call at the same time.
#[derive(Debug, Clone, Copy)]
struct QueueLimits {
    for_long: usize,
    in_a_burst: usize,
}

/// Distinguishes a burst, which is accepted, from an overload, by how long the queue stays long. In
/// an overload, accepting more would make all accepted sessions wait.
#[derive(Debug, Default)]
struct BurstDetector {
    since: Option<Timestamp>,
    strict_until: Option<Timestamp>,
}

impl BurstDetector {
    /// A queue that stays long for more than this time is an overload.
    const BURST: Duration = Duration::from_millis(500);

    /// For this time after an overload, only `for_long` sessions may wait.
    const STEADY_WINDOW: Duration = Duration::from_secs(5);

    /// Whether one more session is accepted while `waiting` sessions are ready to make a call.
    fn admit(&mut self, waiting: usize, room: QueueLimits, now: Timestamp) -> bool {
        if waiting < room.for_long {
            self.since = None;
            return true;
        }
        let since = *self.since.get_or_insert(now);
        let strict =
            now.since(since) > Self::BURST || self.strict_until.is_some_and(|until| now < until);
        if strict {
            self.strict_until = Some(now + Self::STEADY_WINDOW);
        }
        !strict && waiting < room.in_a_burst
    }
}

/// Counts one running row or session until it is dropped.
#[derive(Debug)]
pub struct Permit(Arc<Queue>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.begun.fetch_sub(1, Ordering::Relaxed);
        self.0.ended.notify_one();
    }
}

/// The circuit breaker is open, and the controller does not wait any longer. The value is the time
/// since the first failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the platform has not responded for {} s", .0.as_secs())]
pub struct PlatformOutage(pub Duration);

/// State changes that [`AdmissionController::acquire`] reports while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseEvent {
    /// The circuit breaker is open, and the platform is probed. The value is the time since the
    /// first failure.
    Paused(Duration),
    /// The circuit breaker is closed again.
    Resumed,
}

impl AdmissionController {
    /// Default limit of concurrent rows. It is far more than a rate limit needs, and its number of
    /// connections is small enough for any platform.
    pub const MAX_CONCURRENCY: usize = 256;

    /// How long calls may have been failing before [`acquire`](Self::acquire) gives up, if the
    /// platform has responded before.
    const OUTAGE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

    /// Longest interval between two probes while the circuit breaker is open. The interval has
    /// jitter.
    const PROBE_INTERVAL: Duration = Duration::from_secs(2);

    /// Creates a controller that admits at most `ceiling` batch rows or interactive sessions at
    /// once, and at least one.
    pub fn new(engine: Arc<SessionEngine>, ceiling: usize) -> Self {
        Self {
            engine,
            ceiling: ceiling.max(1),
            create_many: Mutex::default(),
            shared: Arc::default(),
        }
    }

    /// How many rows may be ready to make a call, beyond those that await the platform. The second
    /// value says whether a rate limit protects the platform from overload. The calls of a fifth of
    /// a second keep the rate limit used.
    fn rows(&self) -> (usize, bool) {
        const MAX: f64 = 64.0;
        let quota = self.engine.saga.platform.calls_in_a_second();
        (
            quota.map_or(MAX, |calls| (calls / 5.0).clamp(4.0, MAX)) as usize,
            quota.is_some(),
        )
    }

    /// How many interactive sessions may be ready to make a call: in steady state, and in a burst.
    ///
    /// With a rate limit, these are the sessions that it serves in a quarter of a second, and in
    /// two seconds. Without one, sessions wait for the local processor only, and more of them would
    /// only delay each other.
    fn interactive_limits(&self) -> QueueLimits {
        let calls_each = if self.engine.surface.is_public_api() {
            5.0
        } else {
            2.0
        };
        match self.engine.saga.platform.calls_in_a_second() {
            Some(calls) => QueueLimits {
                for_long: (calls / calls_each / 4.0).max(4.0) as usize,
                in_a_burst: (calls / calls_each * 2.0).max(8.0) as usize,
            },
            None => QueueLimits {
                for_long: 6,
                in_a_burst: 64,
            },
        }
    }

    /// The number of rows and sessions that have begun and not ended.
    pub fn begun(&self) -> usize {
        self.shared.begun.load(Ordering::Relaxed)
    }

    /// Counts a session that begins. Returns `None` if so many sessions are waiting that it would
    /// wait long; the caller must shed the request.
    pub fn try_acquire(&self) -> Option<Permit> {
        let pulse = self.engine.saga.platform.pulse();
        let mut begun = self.begun();
        let elsewhere = pulse.awaiting_response(Priority::Interactive);
        // Without a rate limit, the concurrency limit shows how many calls the platform takes.
        // Calls beyond it are waiting, so they count as ready.
        let paced = self.engine.saga.platform.calls_in_a_second().is_some();
        let ready = begun.saturating_sub(if paced {
            elsewhere
        } else {
            elsewhere.min(pulse.limit())
        });
        let now = self.engine.clock().monotonic();
        if !self
            .create_many
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .admit(ready, self.interactive_limits(), now)
        {
            return None;
        }
        loop {
            if begun >= self.ceiling {
                return None;
            }
            match self.shared.begun.compare_exchange_weak(
                begun,
                begun + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(Permit(Arc::clone(&self.shared))),
                Err(now) => begun = now,
            }
        }
    }

    /// Waits until the next row may begin, and counts it.
    ///
    /// While the circuit breaker is open, no row begins, because it would fail. The method then
    /// calls `holding` and probes the platform with `queue` every one to two seconds.
    ///
    /// # Errors
    /// Returns [`PlatformOutage`] if the circuit breaker is open and calls have been failing for
    /// more than 15 minutes. It does not wait for a platform on which no call has ever succeeded.
    pub async fn acquire(
        &self,
        queue: QueueId,
        mut holding: impl FnMut(PauseEvent),
    ) -> Result<Permit, PlatformOutage> {
        let mut held = false;
        loop {
            let pulse = self.engine.saga.platform.pulse();
            if let Some(lasted) = pulse.open_for() {
                if lasted > Self::OUTAGE_TIMEOUT || !pulse.ever_succeeded() {
                    return Err(PlatformOutage(lasted));
                }
                held = true;
                holding(PauseEvent::Paused(lasted));
                self.engine
                    .clock()
                    .sleep(Self::PROBE_INTERVAL.mul_f64(0.5 + fastrand::f64() / 2.0))
                    .await;
                if pulse.open_for().is_some() {
                    self.engine.probe_platform(queue).await;
                }
                continue;
            }
            if std::mem::take(&mut held) {
                holding(PauseEvent::Resumed);
            }
            let begun = self.begun();
            let ready = begun.saturating_sub(pulse.awaiting_response(Priority::Background));
            let (most, paced) = self.rows();
            let room = paced || pulse.in_flight() < pulse.limit();
            if begun < self.ceiling && ready < most && room {
                self.shared.begun.fetch_add(1, Ordering::Relaxed);
                return Ok(Permit(Arc::clone(&self.shared)));
            }
            tokio::select! {
                () = pulse.changed() => {}
                () = self.shared.ended.notified() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: QueueLimits = QueueLimits {
        for_long: 6,
        in_a_burst: 64,
    };

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_micros(millis * 1000)
    }

    #[test]
    fn burst_is_admitted_and_overload_is_not() {
        let mut create_many = BurstDetector::default();
        assert!(
            (0..64).all(|waiting| create_many.admit(waiting, ROOM, at(0))),
            "64 at once"
        );
        assert!(!create_many.admit(64, ROOM, at(0)));
        assert!(create_many.admit(30, ROOM, at(400)));
        assert!(
            !create_many.admit(30, ROOM, at(600)),
            "it has stayed too long"
        );
        assert!(create_many.admit(5, ROOM, at(610)));
        assert!(
            !create_many.admit(6, ROOM, at(620)),
            "and what follows an overload is none of a burst"
        );
    }

    #[test]
    fn burst_is_admitted_again_after_a_quiet_period() {
        let mut create_many = BurstDetector::default();
        assert!(create_many.admit(10, ROOM, at(0)) && !create_many.admit(10, ROOM, at(501)));
        assert!(!create_many.admit(10, ROOM, at(4000)) && create_many.admit(2, ROOM, at(4001)));
        assert!(!create_many.admit(10, ROOM, at(8999)));
        assert!(create_many.admit(2, ROOM, at(9000)) && create_many.admit(10, ROOM, at(14_000)));
    }

    #[test]
    fn frequent_short_bursts_are_admitted() {
        let mut create_many = BurstDetector::default();
        for burst in 0..100 {
            assert!(create_many.admit(0, ROOM, at(burst * 1000)));
            assert!(
                create_many.admit(60, ROOM, at(burst * 1000 + 1))
                    && create_many.admit(60, ROOM, at(burst * 1000 + 400))
            );
        }
    }
}
