//! A process's slices of quotas that it shares with others: when one is asked for, and how much.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use tracing::warn;

use super::{ClientPool, Schedule, gcra::least_margin};
use crate::{
    clock::Timestamp,
    coordinator::{Coordinator, QuotaLease, QuotaRequest},
    rate::Rate,
};

/// The slice of one client's quota.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) calls: u32,
    /// As many were asked for.
    wanted: u32,
    until: Timestamp,
    again_at: Timestamp,
    asked_at: Timestamp,
    /// All calls that were sent when it was asked for.
    sent_by_then: u64,
}

impl Held {
    pub(super) fn is_good_at(&self, now: Timestamp) -> bool {
        self.calls > 0 && now < self.until
    }
}

/// A slice is asked for no sooner than so many calls after the one before, while that is good; but for the first time that there is a crowd.
const MIN_CALLS_BETWEEN_REQUESTS: u64 = 20;

/// Nor sooner than that.
const BETWEEN: Duration = Duration::from_millis(100);

/// Who has no slice waits for one, and looks again after that.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Who sends nothing looks so seldom.
const IDLE: Duration = Duration::from_secs(60);

/// A slice that is to be asked for again sooner than that is a part of what is fair.
const PART: Duration = Duration::from_secs(1);

/// As many as wait when a quota is short, and not by chance.
const CROWD: usize = 3;

/// What all processes together may send in a window.
fn for_all(rate: Rate) -> u32 {
    rate.calls() - least_margin(rate)
}

impl Schedule {
    fn waiter_count(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    /// The clients for whom a slice is to be asked for now.
    fn due_requests(&self, now: Timestamp) -> Vec<(usize, QuotaRequest)> {
        let waiting = self.waiter_count();
        let needs = self.books.iter().enumerate().filter_map(|(client, books)| {
            let rate = books.limit()?;
            let limit = for_all(rate);
            let used = books.used(now);
            let crowded = waiting >= CROWD;
            let wanted = if crowded { limit } else { used + used / 4 + 4 + u32::try_from(waiting * 2).unwrap_or(limit) };
            let asks = match &books.held {
                None => waiting > 0,
                Some(held) if held.calls == 0 => waiting > 0 && now >= held.again_at,
                Some(held) if !held.is_good_at(now) => waiting > 0 && now >= held.asked_at + LOOK_AGAIN,
                Some(held) => {
                    let sent = books.calls - held.sent_by_then;
                    // Who asked for less before there was a crowd asks once more: the others have yet to learn of it.
                    let is_new = held.wanted < limit || sent >= MIN_CALLS_BETWEEN_REQUESTS;
                    let is_short = crowded && held.calls < limit && is_new && now >= held.asked_at + BETWEEN;
                    // One that was smaller than is fair, because others have yet to make room: they do within a second.
                    let is_part = held.again_at.since(held.asked_at) < PART && sent > 0;
                    let is_used = (sent >= MIN_CALLS_BETWEEN_REQUESTS || is_part) && now >= held.again_at;
                    is_short || is_used || (sent > 0 && now >= held.until - BETWEEN)
                }
            };
            asks.then_some((client, QuotaRequest { limit, window: rate.window(), wanted: wanted.min(limit), used }))
        });
        needs.collect()
    }

    /// When to look next whether one is to be asked for: where nothing was sent and nobody waits, not before somebody does.
    fn next_poll(&self, now: Timestamp) -> Duration {
        let waits = !self.waiting.is_empty();
        let crowded = self.waiter_count() >= CROWD;
        let looks = self.books.iter().filter_map(|books| {
            let held = books.held.filter(|held| waits || books.calls > held.sent_by_then)?;
            let is_outgrown = crowded && held.calls > 0 && books.limit().is_some_and(|rate| held.wanted < for_all(rate));
            let at = if is_outgrown { held.again_at.min(held.asked_at + BETWEEN) } else { held.again_at };
            Some(at.since(now))
        });
        looks.min().unwrap_or(Duration::MAX).clamp(LOOK_AGAIN, IDLE)
    }

    fn apply_lease(&mut self, client: usize, slice: QuotaLease, wanted: u32, now: Timestamp) {
        let books = &mut self.books[client];
        books.held = Some(Held {
            calls: slice.calls,
            wanted,
            until: now + slice.lasts,
            again_at: now + slice.again,
            asked_at: now,
            sent_by_then: books.calls,
        });
        if slice.calls > 0 {
            books.set_slice(slice.calls);
        }
    }
}

/// Asks for slices as they are needed, for as long as there is a pool. Holds neither that nor the way to the others while it waits.
pub(super) async fn keep(pool: Weak<ClientPool>, fleet: Weak<dyn Coordinator>) {
    let mut told = false;
    loop {
        let (needs, wait, clock, crowded) = {
            let Some(pool) = pool.upgrade() else { return };
            let now = pool.clock.monotonic();
            let turns = pool.turns();
            (turns.due_requests(now), turns.next_poll(now), pool.clock.clone(), Arc::clone(&pool.crowded))
        };
        let asked = !needs.is_empty();
        for (client, need) in needs {
            let (Some(pool), Some(fleet)) = (pool.upgrade(), fleet.upgrade()) else { return };
            // Of how long it lasts, the time that the answer took is gone.
            let before = pool.clock.monotonic();
            match fleet.request_quota_lease(pool.clients[client].client_id(), need).await {
                Ok(slice) => {
                    pool.turns().apply_lease(client, slice, need.wanted, before);
                    pool.changed.notify_one();
                    told = false;
                }
                Err(error) => {
                    pool.turns().books[client].held = None; // the answer may be lost, and another slice ours
                    if !std::mem::replace(&mut told, true) {
                        warn!(error, "this process's slice of the quota cannot be asked for; nothing is sent without one");
                    }
                    clock.sleep(BETWEEN).await;
                }
            }
        }
        if asked {
            clock.sleep(LOOK_AGAIN / 4).await; // who waits takes their turns first
            continue;
        }
        tokio::select! {
            () = crowded.notified() => {}
            () = clock.sleep(wait) => {}
        }
        clock.sleep(LOOK_AGAIN / 20).await; // those who come together are asked for together
    }
}
