//! A clock that tests set.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use super::timestamp::Timestamp;

/// A clock for tests that moves only when a test advances it.
#[derive(Clone, Debug)]
pub struct ManualClock(pub(super) Arc<ManualClockInner>);

#[derive(Debug)]
pub(super) struct ManualClockInner {
    state: Mutex<State>,
    pub(super) busy: AtomicUsize,
    pub(super) comparable: AtomicBool,
}

#[derive(Debug)]
pub(super) struct State {
    /// Elapsed time.
    pub(super) now: Timestamp,
    /// Offset of the displayed wall clock time, in microseconds.
    stepped: i64,
    /// Number of the simulated boot.
    pub(super) boot: u128,
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

    pub(super) fn state(&self) -> std::sync::MutexGuard<'_, State> {
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

    pub(super) async fn sleep(&self, duration: Duration) {
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

    /// Advances automatically to the next wake time whenever no [`Busy`](super::Busy) guard exists, for as long
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
