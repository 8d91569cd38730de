//! Rate-limit leases: when a process requests its share of a shared rate limit, and how much.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use tracing::warn;

use super::{ClientPool, Schedule, gcra::min_headroom};
use crate::{
    coordinator::{Coordinator, RateLimitLease, RateLimitLeaseRequest},
    rate::Rate,
};
use guestlane_runtime::Timestamp;

/// The rate-limit lease on one client's rate limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) calls: u32,
    /// Number of calls that were requested.
    wanted: u32,
    until: Timestamp,
    again_at: Timestamp,
    asked_at: Timestamp,
    /// Number of calls that the client had sent at the time of the request.
    sent_by_then: u64,
}

impl Held {
    pub(super) fn is_good_at(&self, now: Timestamp) -> bool {
        self.calls > 0 && now < self.until
    }
}

/// Minimum number of calls between two requests while the lease is valid. The first request of a
/// create_many of waiting calls is exempt.
const MIN_CALLS_BETWEEN_REQUESTS: u64 = 20;

/// Minimum time between two requests.
const BETWEEN: Duration = Duration::from_millis(100);

/// How long a call without a lease waits before it checks again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Poll interval while nothing is sent.
const IDLE: Duration = Duration::from_secs(60);

/// A lease that must be renewed sooner than this is only a part of the fair share.
const PART: Duration = Duration::from_secs(1);

/// Number of waiting calls that shows a real shortage of the rate limit.
const CROWD: usize = 3;

/// Returns the calls per window that all processes together may send.
fn for_all(rate: Rate) -> u32 {
    rate.calls() - min_headroom(rate)
}

impl Schedule {
    fn waiter_count(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    /// Returns the clients for which a lease must be requested now.
    fn due_requests(&self, now: Timestamp) -> Vec<(usize, RateLimitLeaseRequest)> {
        let waiting = self.waiter_count();
        let clients = self.clients.iter().enumerate();
        let needs = clients.filter_map(|(client, state)| {
            let rate = state.limit()?;
            let limit = for_all(rate);
            let used = state.used(now);
            let crowded = waiting >= CROWD;
            let wanted = if crowded {
                limit
            } else {
                used + used / 4 + 4 + u32::try_from(waiting * 2).unwrap_or(limit)
            };
            let asks = match &state.held {
                None => waiting > 0,
                Some(held) if held.calls == 0 => waiting > 0 && now >= held.again_at,
                Some(held) if !held.is_good_at(now) => {
                    waiting > 0 && now >= held.asked_at + LOOK_AGAIN
                }
                Some(held) => {
                    let sent = state.calls - held.sent_by_then;
                    // A process that requested less before calls piled up requests once more, so
                    // that other processes learn of its demand.
                    let is_new = held.wanted < limit || sent >= MIN_CALLS_BETWEEN_REQUESTS;
                    let is_short =
                        crowded && held.calls < limit && is_new && now >= held.asked_at + BETWEEN;
                    // The lease is less than the fair share until other processes release theirs,
                    // which takes up to a second. Request again then.
                    let is_part = held.again_at.since(held.asked_at) < PART && sent > 0;
                    let is_used =
                        (sent >= MIN_CALLS_BETWEEN_REQUESTS || is_part) && now >= held.again_at;
                    is_short || is_used || (sent > 0 && now >= held.until - BETWEEN)
                }
            };
            asks.then_some((
                client,
                RateLimitLeaseRequest {
                    limit,
                    window: rate.window(),
                    wanted: wanted.min(limit),
                    used,
                },
            ))
        });
        needs.collect()
    }

    /// Returns the time until the next check for due requests. Without sent or waiting calls, that
    /// is the idle interval; a new waiting call ends it early.
    fn next_poll(&self, now: Timestamp) -> Duration {
        let waits = !self.waiting.is_empty();
        let crowded = self.waiter_count() >= CROWD;
        let looks = self.clients.iter().filter_map(|state| {
            let held = state
                .held
                .filter(|held| waits || state.calls > held.sent_by_then)?;
            let is_outgrown = crowded
                && held.calls > 0
                && state
                    .limit()
                    .is_some_and(|rate| held.wanted < for_all(rate));
            let at = if is_outgrown {
                held.again_at.min(held.asked_at + BETWEEN)
            } else {
                held.again_at
            };
            Some(at.since(now))
        });
        looks.min().unwrap_or(Duration::MAX).clamp(LOOK_AGAIN, IDLE)
    }

    fn apply_lease(&mut self, client: usize, slice: RateLimitLease, wanted: u32, now: Timestamp) {
        let state = &mut self.clients[client];
        state.held = Some(Held {
            calls: slice.calls,
            wanted,
            until: now + slice.lasts,
            again_at: now + slice.again,
            asked_at: now,
            sent_by_then: state.calls,
        });
        if slice.calls > 0 {
            state.set_slice(slice.calls);
        }
    }
}

/// Requests leases as they are needed, until the pool is dropped. It holds neither the pool nor the
/// coordinator while it waits.
pub(super) async fn keep(pool: Weak<ClientPool>, fleet: Weak<dyn Coordinator>) {
    let mut told = false;
    loop {
        let (needs, wait, clock, crowded) = {
            let Some(pool) = pool.upgrade() else { return };
            let now = pool.clock.monotonic();
            let turns = pool.turns();
            (
                turns.due_requests(now),
                turns.next_poll(now),
                pool.clock.clone(),
                Arc::clone(&pool.crowded),
            )
        };
        let asked = !needs.is_empty();
        for (client, need) in needs {
            let (Some(pool), Some(fleet)) = (pool.upgrade(), fleet.upgrade()) else {
                return;
            };
            // Measure the lease from before the request, because it began to run before the
            // response arrived.
            let before = pool.clock.monotonic();
            match fleet
                .request_rate_limit_lease(pool.clients[client].client_id(), need)
                .await
            {
                Ok(slice) => {
                    pool.turns().apply_lease(client, slice, need.wanted, before);
                    pool.changed.notify_one();
                    told = false;
                }
                Err(error) => {
                    pool.turns().clients[client].held = None; // the response may be lost while the coordinator counts another lease for this process
                    if !std::mem::replace(&mut told, true) {
                        warn!(
                            error,
                            "failed to acquire a rate-limit lease; retrying and sending no requests without one"
                        );
                    }
                    clock.sleep(BETWEEN).await;
                }
            }
        }
        if asked {
            clock.sleep(LOOK_AGAIN / 4).await; // let waiting calls use the new lease first
            continue;
        }
        tokio::select! {
            () = crowded.notified() => {}
            () = clock.sleep(wait) => {}
        }
        clock.sleep(LOOK_AGAIN / 20).await; // request once for calls that arrive together
    }
}
