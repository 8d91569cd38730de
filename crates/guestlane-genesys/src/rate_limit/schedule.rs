//! Which waiting call gets the next permit, and of which client.

use std::collections::{BTreeMap, VecDeque};

use guestlane_runtime::Timestamp;
use tokio::sync::oneshot;

use super::client_state::ClientState;
use crate::{error::Operation, priority::Priority, rate::Rate};

#[derive(Debug)]
pub(super) struct Schedule {
    pub(super) rate: Option<Rate>,
    pub(super) clients: Vec<ClientState>,
    pub(super) waiting: BTreeMap<WaiterKey, VecDeque<Waiter>>,
    pub(super) came: u64,
    /// Whether the dispatch loop is running.
    pub(super) served: bool,
}

/// Key of a wait queue. Calls of one queue have the same priority, endpoint and excluded clients,
/// so they become due at the same time.
type WaiterKey = (Priority, Operation, u64);

/// Dispatch order: the due time, then the priority, then the arrival number.
type QueuePosition = (Timestamp, Priority, u64);

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) came: u64,
    /// Receives the client that makes the call. `None` makes the waiter check again, because no
    /// client has an access token.
    pub(super) go: oneshot::Sender<Option<usize>>,
}

pub(super) enum Choice {
    /// Send now with this client.
    Now(usize),
    /// Do not send before this time.
    At(Timestamp),
    /// No client has an access token; fetch one for this client.
    RefreshToken(usize),
}

impl Schedule {
    /// Chooses the client with the most capacity among those in service that the call may use. If
    /// there is none, chooses among all that the call may use, and finally among all.
    pub(super) fn choose(
        &self,
        operation: Operation,
        out: u64,
        ready: u64,
        now: Timestamp,
    ) -> Choice {
        let may = |n: &usize| out & 1 << n == 0;
        let in_service = |n: &usize| !self.clients[*n].is_quarantined(now);
        let all = 0..self.clients.len();
        let mut candidates: Vec<usize> = all.clone().filter(|n| may(n) && in_service(n)).collect();
        if candidates.is_empty() {
            candidates = all.clone().filter(may).collect();
        }
        if candidates.is_empty() {
            candidates = all.collect();
        }
        let by_room = |n: &usize| {
            (
                self.clients[*n].due(operation, now),
                self.clients[*n].fill(now),
                self.clients[*n].calls,
            )
        };
        let best = candidates
            .iter()
            .copied()
            .filter(|n| ready & 1 << n != 0)
            .min_by_key(by_room);
        let Some(best) = best else {
            return Choice::RefreshToken(
                candidates
                    .into_iter()
                    .min_by_key(|n| (self.clients[*n].quarantined_until, *n))
                    .unwrap_or(0),
            );
        };
        match self.clients[best].due(operation, now) {
            at if at <= now => Choice::Now(best),
            at => Choice::At(at),
        }
    }

    /// Grants permits to all calls that are due. Returns when the next call is due, or `None` if no
    /// call waits.
    pub(super) fn dispatch(&mut self, ready: u64, now: Timestamp) -> Option<Timestamp> {
        loop {
            self.waiting.retain(|_, queue| {
                while queue.front().is_some_and(|waiter| waiter.go.is_closed()) {
                    queue.pop_front(); // its context passed, or its caller dropped the call
                }
                !queue.is_empty()
            });
            let mut next: Option<(QueuePosition, WaiterKey, Option<usize>)> = None;
            for (key, queue) in &self.waiting {
                let Some(waiter) = queue.front() else {
                    continue;
                };
                let (at, client) = match self.choose(key.1, key.2, ready, now) {
                    Choice::Now(client) => (now, Some(client)),
                    Choice::At(at) => (at, None),
                    Choice::RefreshToken(_) => (now, None),
                };
                let place = (at, key.0, waiter.came);
                if next.as_ref().is_none_or(|(known, ..)| place < *known) {
                    next = Some((place, *key, client));
                }
            }
            let ((at, ..), key, client) = next?;
            if at > now {
                return Some(at);
            }
            let waiter = self.waiting.get_mut(&key).and_then(VecDeque::pop_front)?;
            if waiter.go.send(client).is_ok()
                && let Some(client) = client
            {
                self.clients[client].take(key.1, now);
            }
        }
    }

    /// Returns a client in service that has no access token.
    pub(super) fn idle(&self, out: u64, ready: u64, now: Timestamp) -> Option<usize> {
        let idle = |n: &usize| (out | ready) & 1 << n == 0 && !self.clients[*n].is_quarantined(now);
        (0..self.clients.len()).find(idle)
    }

    /// Returns a client whose capacity would help the waiting calls, and marks it as
    /// authenticating.
    pub(super) fn idle_client(&mut self, ready: u64, now: Timestamp) -> Option<usize> {
        let client = self
            .idle(0, ready, now)
            .filter(|client| !self.clients[*client].signing_in)?;
        self.clients[client].signing_in = true;
        Some(client)
    }
}
