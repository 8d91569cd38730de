//! When the next row of a batch may begin: from the quota and from how the platform answers, not from a number that somebody must guess.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::{lane::Lane, request::QueueId};

/// Lets rows begin, one after another.
///
/// A row that waits for an answer, or for the moment to try again, costs nothing; one that waits for its turn in the quota only grows old. So as
/// many are begun as keep the quota busy, and as the platform answers without a queue of its own.
#[derive(Debug)]
pub struct Intake {
    lane: Arc<Lane>,
    ceiling: usize,
    callers: bool,
    shared: Arc<Rows>,
}

#[derive(Debug, Default)]
struct Rows {
    begun: AtomicUsize,
    ended: Notify,
}

/// A row that has begun, until this is dropped.
#[derive(Debug)]
pub struct Begun(Arc<Rows>);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.begun.fetch_sub(1, Ordering::Relaxed);
        self.0.ended.notify_one();
    }
}

/// The platform does not answer, and waiting for it has been long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the platform has not answered for {} s", .0.as_secs())]
pub struct Outage(pub Duration);

/// What [`Intake::next`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// Nothing goes well; it is looked whether the platform is back.
    Outage(Duration),
    /// It is back.
    Over,
}

impl Intake {
    /// Rows at once, when nobody says how many at the most: far more than a quota needs, and few enough connections for any platform.
    pub const CEILING: usize = 256;

    /// How long a platform that has answered before may be silent.
    const PATIENCE: Duration = Duration::from_secs(15 * 60);

    /// How often it is looked whether it is back.
    const LOOK_EVERY: Duration = Duration::from_secs(2);

    /// For the rows of a batch: at most `ceiling` at once.
    pub fn new(lane: Arc<Lane>, ceiling: usize) -> Self {
        Self { lane, ceiling: ceiling.max(1), callers: false, shared: Arc::default() }
    }

    /// For sessions that somebody waits for.
    pub fn for_callers(lane: Arc<Lane>, ceiling: usize) -> Self {
        Self { callers: true, ..Self::new(lane, ceiling) }
    }

    /// How many may be ready to make a call, beyond those that wait for the platform; and whether a quota keeps the platform from being crowded.
    /// Of rows a fifth of a second's calls keep the quota busy. Of callers as many may wait as the quota serves in two seconds, so that a burst is
    /// taken and an overload is not. Without a quota they wait for this machine alone: more would only make each other wait.
    fn ready(&self) -> (usize, bool) {
        const ROWS: f64 = 64.0;
        const CALLERS: f64 = 24.0;
        let quota = self.lane.platform.calls_in_a_second();
        let calls_each = if self.lane.surface.is_official() { 5.0 } else { 2.0 };
        let ready = match (quota, self.callers) {
            (Some(calls), true) => (2.0 * calls / calls_each).max(8.0),
            (Some(calls), false) => (calls / 5.0).clamp(4.0, ROWS),
            (None, true) => CALLERS,
            (None, false) => ROWS,
        };
        (ready as usize, quota.is_some())
    }

    /// Rows that have begun and not ended.
    pub fn begun(&self) -> usize {
        self.shared.begun.load(Ordering::Relaxed)
    }

    /// Counts a session that begins, unless so many wait already that it would wait long.
    pub fn try_next(&self) -> Option<Begun> {
        let (pulse, (most, _)) = (self.lane.platform.pulse(), self.ready());
        let mut begun = self.begun();
        loop {
            let ready = begun.saturating_sub(pulse.under_way() + pulse.resting());
            if begun >= self.ceiling || ready >= most {
                return None;
            }
            match self.shared.begun.compare_exchange_weak(begun, begun + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(Begun(Arc::clone(&self.shared))),
                Err(now) => begun = now,
            }
        }
    }

    /// Waits until the next row may begin, and counts it. While nothing goes well no row begins, for they would only fail: `holding` is told, and
    /// the platform is asked for `queue` now and then. One that never answered is not waited for.
    pub async fn next(&self, queue: QueueId, mut holding: impl FnMut(Holding)) -> Result<Begun, Outage> {
        let mut held = false;
        loop {
            let pulse = self.lane.platform.pulse();
            if let Some(lasted) = pulse.outage() {
                if lasted > Self::PATIENCE || !pulse.was_well() {
                    return Err(Outage(lasted));
                }
                held = true;
                holding(Holding::Outage(lasted));
                self.lane.clock.sleep(Self::LOOK_EVERY.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                if pulse.outage().is_some() {
                    self.lane.look_whether_it_is_back(queue).await;
                }
                continue;
            }
            if std::mem::take(&mut held) {
                holding(Holding::Over);
            }
            let begun = self.begun();
            let ready = begun.saturating_sub(pulse.under_way() + pulse.resting());
            let (most, paced) = self.ready();
            let room = paced || pulse.under_way() < pulse.room();
            if begun < self.ceiling && ready < most && room {
                self.shared.begun.fetch_add(1, Ordering::Relaxed);
                return Ok(Begun(Arc::clone(&self.shared)));
            }
            tokio::select! {
                () = pulse.changed() => {}
                () = self.shared.ended.notified() => {}
            }
        }
    }
}
