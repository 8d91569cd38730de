//! Whose turn it is, and as whom: paces calls before they are sent, so that the platform has
//! nothing to refuse (requirement R9, docs/requirements.md).
//!
//! Each OAuth client has a quota of its own. A call goes as the client with most room; when none has room, calls wait, and the first to go is
//! the one with the highest [`Priority`], then the one that came first.

mod client_state;
mod gcra;
mod quota_lease;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, oneshot};
use tracing::warn;

use crate::{
    clock::{Clock, Timestamp},
    coordinator::Coordinator,
    error::{AttemptError, Operation},
    priority::Priority,
    rate::Rate,
    token_source::{AccessToken, TokenSource},
};
use client_state::ClientState;

/// More clients than anybody was given.
pub const MAX_CLIENTS: usize = 64;

/// The OAuth clients, and who waits for them.
#[derive(Debug)]
pub(crate) struct ClientPool {
    clock: Clock,
    clients: Vec<Arc<TokenSource>>,
    turns: Mutex<Schedule>,
    /// Something changed for those who wait.
    changed: Notify,
    /// Somebody began to wait.
    crowded: Arc<Notify>,
}

#[derive(Debug)]
struct Schedule {
    rate: Option<Rate>,
    books: Vec<ClientState>,
    waiting: BTreeMap<WaiterKey, VecDeque<Waiter>>,
    came: u64,
    /// Whether somebody hands out turns to those who wait.
    served: bool,
}

/// Who waits together: by who goes first, by what may be due at another time, and by as whom it cannot go.
type WaiterKey = (Priority, Operation, u64);

/// When, and among those of the same moment who first.
type QueuePosition = (Timestamp, Priority, u64);

#[derive(Debug)]
struct Waiter {
    came: u64,
    /// The client, or nothing: look again, for nobody is signed in.
    go: oneshot::Sender<Option<usize>>,
}

/// As whom a call was tried: it is not tried as them again, as long as there are others. Bits, one for each client.
#[derive(Debug)]
pub(crate) struct ExcludedClients {
    /// As whom it may be made at all.
    of: u64,
    /// The platform refused the client.
    refused: AtomicU64,
    /// It was passed over for no fault of its own: throttled, or no answer to its sign-in.
    passed: AtomicU64,
    /// Its token was renewed for this call.
    renewed: AtomicU64,
}

impl Default for ExcludedClients {
    fn default() -> Self {
        Self { of: u64::MAX, refused: AtomicU64::new(0), passed: AtomicU64::new(0), renewed: AtomicU64::new(0) }
    }
}

impl ExcludedClients {
    /// For a call as this very client.
    pub(crate) fn only(client: usize) -> Self {
        Self { of: 1 << client, ..Self::default() }
    }

    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// As whom it is not made.
    fn excluded(&self) -> u64 {
        !self.of | self.refused() | self.passed.load(Ordering::Relaxed)
    }

    /// A client's token is renewed: says whether it was before, and whether any other's was.
    pub(crate) fn try_refresh(&self, client: usize) -> (bool, bool) {
        let before = self.renewed.fetch_or(1 << client, Ordering::Relaxed);
        (before & 1 << client != 0, before & !(1 << client) != 0)
    }
}

/// A call's turn.
#[derive(Debug)]
pub(crate) struct Permit {
    pub(crate) client: usize,
    pub(crate) token: Arc<AccessToken>,
    pub(crate) sent_at: Timestamp,
}

/// What one OAuth client has used of its quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientUsage {
    /// The client's id.
    pub client_id: String,
    /// Calls sent in the last window.
    pub used: u32,
    /// Calls that the quota allows in a window; `None` without a quota.
    pub allowed: Option<Rate>,
    /// All calls sent as this client.
    pub calls: u64,
    /// Those that the platform answered 429.
    pub throttled: u64,
    /// Whether it is left out because it was refused or could not sign in.
    pub left_out: bool,
}

enum Dispatch {
    /// The turn is taken.
    Permit(usize),
    /// Nobody is signed in; try this one.
    RefreshToken(usize),
    /// Something changed while it waited.
    Recheck,
}

enum Choice {
    /// Send now, as this client.
    Now(usize),
    /// Not before.
    At(Timestamp),
    /// Nobody is signed in; try this one.
    RefreshToken(usize),
}

impl ClientPool {
    pub(crate) fn new(rate: Option<Rate>, clients: Vec<Arc<TokenSource>>, clock: Clock) -> Self {
        let books = clients.iter().map(|_| ClientState::new(rate)).collect();
        let turns = Schedule { rate, books, waiting: BTreeMap::new(), came: 0, served: false };
        Self { clock, clients, turns: Mutex::new(turns), changed: Notify::new(), crowded: Arc::default() }
    }

    pub(crate) fn clients(&self) -> &[Arc<TokenSource>] {
        &self.clients
    }

    /// From now on each client may make so many calls.
    pub(crate) fn set_rate(&self, rate: Option<Rate>) {
        let mut turns = self.turns();
        turns.rate = rate;
        turns.books.iter_mut().for_each(|books| books.set_rate(rate));
        drop(turns);
        self.changed.notify_one();
    }

    /// From now on each client's quota is shared with other processes. Must be called within a tokio runtime.
    pub(crate) fn share(self: &Arc<Self>, fleet: &Arc<dyn Coordinator>) {
        self.turns().books.iter_mut().for_each(ClientState::share);
        tokio::spawn(quota_lease::keep(Arc::downgrade(self), Arc::downgrade(fleet)));
    }

    /// Calls in a second that this process may make as all clients together, as things are; `None` without a quota.
    pub(crate) fn calls_in_a_second(&self) -> Option<f64> {
        let turns = self.turns();
        turns.rate?;
        Some(turns.books.iter().filter_map(ClientState::rate_now).map(Rate::per_second).sum())
    }

    fn turns(&self) -> MutexGuard<'_, Schedule> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who has an access token that will do: bits.
    fn ready(&self) -> u64 {
        (0..).zip(&self.clients).filter(|(_, client)| client.is_ready()).fold(0, |ready, (n, _): (u32, _)| ready | 1 << n)
    }

    /// Waits for a call's turn, by a clock that nobody sets. The turn is taken only once there is a token to use it with.
    pub(crate) async fn turn(
        self: &Arc<Self>,
        operation: Operation,
        tried: &ExcludedClients,
        deadline: Timestamp,
    ) -> Result<Permit, AttemptError> {
        loop {
            let (client, taken) = match self.next(operation, tried, deadline).await? {
                Dispatch::Permit(client) => (client, true),
                Dispatch::RefreshToken(client) => (client, false),
                Dispatch::Recheck => continue,
            };
            let Some(token) = self.sign_in(client, tried, deadline).await? else { continue };
            let now = self.clock.monotonic();
            if !taken {
                if self.clients[client].is_ready() {
                    continue; // for its turn
                }
                // A token that is too old when it comes: the platform shall say so, and nobody asks for the next one meanwhile.
                self.turns().books[client].take(operation, now);
            }
            return Ok(Permit { client, token, sent_at: now });
        }
    }

    /// The client's token; `None` when it cannot be had, and the call can go as another.
    async fn sign_in(
        &self,
        client: usize,
        tried: &ExcludedClients,
        deadline: Timestamp,
    ) -> Result<Option<Arc<AccessToken>>, AttemptError> {
        let error = match self.clients[client].token(deadline).await {
            Ok(token) => return Ok(Some(token)),
            Err(error) => error,
        };
        let refused = self.quarantine_if_rejected(client, &error);
        if !self.has_another(tried, client) {
            return Err(error);
        }
        let mask = if refused { &tried.refused } else { &tried.passed };
        mask.fetch_or(1 << client, Ordering::Relaxed);
        Ok(None)
    }

    async fn next(
        self: &Arc<Self>,
        operation: Operation,
        tried: &ExcludedClients,
        deadline: Timestamp,
    ) -> Result<Dispatch, AttemptError> {
        let left = deadline.since(self.clock.now());
        let (go, gone) = oneshot::channel();
        {
            let ready = self.ready();
            let mut turns = self.turns();
            let now = self.clock.monotonic();
            let out = tried.excluded();
            match turns.choose(operation, out, ready, now) {
                Choice::RefreshToken(client) => return Ok(Dispatch::RefreshToken(client)),
                Choice::Now(client) if turns.waiting.is_empty() => {
                    turns.books[client].take(operation, now);
                    return Ok(Dispatch::Permit(client));
                }
                Choice::At(at) if at.since(now) >= left => {
                    return turns.idle(out, ready, now).map(Dispatch::RefreshToken).ok_or(AttemptError::RateLimitTimeout);
                }
                Choice::Now(_) | Choice::At(_) => {}
            }
            turns.came += 1;
            let waiter = Waiter { came: turns.came, go };
            turns.waiting.entry((Priority::current(), operation, out)).or_default().push_back(waiter);
            if !std::mem::replace(&mut turns.served, true) {
                tokio::spawn(Arc::clone(self).dispatch_loop());
            }
        }
        self.changed.notify_one();
        self.crowded.notify_one();
        match self.clock.timeout(left, gone).await {
            Ok(Ok(Some(client))) => Ok(Dispatch::Permit(client)),
            Ok(Ok(None)) => Ok(Dispatch::Recheck),
            Ok(Err(_)) | Err(_) => Err(AttemptError::RateLimitTimeout),
        }
    }

    /// Hands out turns for as long as anybody waits.
    async fn dispatch_loop(self: Arc<Self>) {
        loop {
            let (wait, help) = {
                let ready = self.ready();
                let mut turns = self.turns();
                let now = self.clock.monotonic();
                match turns.dispatch(ready, now) {
                    Some(next) => (next.since(now), turns.idle_client(ready, now)),
                    None => {
                        turns.served = false;
                        return;
                    }
                }
            };
            if let Some(client) = help {
                self.sign_in_soon(client);
            }
            tokio::select! {
                () = self.clock.sleep(wait) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// Those who are signed in have no room left: one more client.
    fn sign_in_soon(self: &Arc<Self>, client: usize) {
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = pool.clients[client].token(pool.clock.now() + Duration::from_secs(30)).await {
                pool.quarantine_if_rejected(client, &error);
            }
            pool.turns().books[client].signing_in = false;
            pool.changed.notify_one();
        });
    }

    /// Whether a call can go as another client than this one.
    fn has_another(&self, tried: &ExcludedClients, client: usize) -> bool {
        let now = self.clock.monotonic();
        let out = tried.excluded() | 1 << client;
        self.turns().books.iter().enumerate().any(|(n, books)| out & 1 << n == 0 && !books.is_left_out(now))
    }

    /// The platform refused the client. True when there is another one to try the call as.
    pub(crate) fn try_another(&self, tried: &ExcludedClients, client: usize) -> bool {
        let another = self.has_another(tried, client);
        if another {
            tried.refused.fetch_or(1 << client, Ordering::Relaxed);
        }
        another
    }

    /// The platform told the client to wait. True when the call need not: then it goes as another client, once.
    pub(crate) fn fail_over_on_throttle(&self, operation: Operation, tried: &ExcludedClients, client: usize) -> bool {
        if tried.passed.load(Ordering::Relaxed) != 0 {
            tried.passed.store(0, Ordering::Relaxed); // both are throttled: whoever is due first
            return false;
        }
        let now = self.clock.monotonic();
        let out = tried.excluded() | 1 << client;
        let turns = self.turns();
        let here = turns.books[client].due(operation, now);
        let sooner =
            |(n, books): (usize, &ClientState)| out & 1 << n == 0 && !books.is_left_out(now) && books.due(operation, now) < here;
        let another = turns.books.iter().enumerate().any(sooner);
        if another {
            tried.passed.fetch_or(1 << client, Ordering::Relaxed);
        }
        another
    }

    /// The call went through as this client: those that were refused for it are left out for a while.
    pub(crate) fn on_success(&self, tried: &ExcludedClients, client: usize) {
        let refused = tried.refused();
        if refused == 0 {
            return;
        }
        let now = self.clock.monotonic();
        let mut turns = self.turns();
        for (n, books) in turns.books.iter_mut().enumerate() {
            if refused & 1 << n != 0 && n != client {
                books.leave_out(now);
            }
        }
    }

    /// A sign-in that was refused is the client's fault, and it is left out for a while; any other failure is the platform's or nobody's.
    fn quarantine_if_rejected(&self, client: usize, error: &AttemptError) -> bool {
        if error.refusal().is_none() {
            return false;
        }
        let now = self.clock.monotonic();
        let left_out = self.turns().books[client].leave_out(now);
        if self.clients.len() > 1 {
            let (client, seconds) = (self.clients[client].client_id(), left_out.as_secs());
            warn!(client, seconds, error = error.record(), "an OAuth client is left out for a while");
        }
        true
    }

    /// Nobody uses this client as long as this process lives.
    pub(crate) fn disable(&self, client: usize) {
        self.turns().books[client].out_until = Timestamp::from_unix_micros(i64::MAX);
    }

    /// What the platform says of its own count (`inin-ratelimit-…`, docs/platform.md#rate-limits).
    pub(crate) fn observed(&self, turn: &Permit, operation: Operation, (count, allowed, reset): (u32, u32, Duration)) {
        let now = self.clock.monotonic();
        self.turns().books[turn.client].observed(operation, (count, allowed), reset, turn.sent_at, now);
    }

    /// The platform said 429: nobody sends anything as this client for that long, or nothing to this endpoint if that has a limit of its own.
    pub(crate) fn throttled(&self, client: usize, operation: Operation, retry_after: Duration) {
        let now = self.clock.monotonic();
        self.turns().books[client].throttled(operation, retry_after, now);
    }

    pub(crate) fn used(&self) -> Vec<ClientUsage> {
        let now = self.clock.monotonic();
        let turns = self.turns();
        let of = |(client, books): (&Arc<TokenSource>, &ClientState)| ClientUsage {
            client_id: client.client_id().to_owned(),
            used: books.used(now),
            allowed: turns.rate,
            calls: books.calls,
            throttled: books.throttled,
            left_out: books.is_left_out(now),
        };
        self.clients.iter().zip(&turns.books).map(of).collect()
    }
}

impl Schedule {
    /// The client with most room, among those that are in and may be tried; when there is none, among all that may be tried, and at last
    /// among all.
    fn choose(&self, operation: Operation, out: u64, ready: u64, now: Timestamp) -> Choice {
        let may = |n: &usize| out & 1 << n == 0;
        let in_service = |n: &usize| !self.books[*n].is_left_out(now);
        let all = 0..self.books.len();
        let mut candidates: Vec<usize> = all.clone().filter(|n| may(n) && in_service(n)).collect();
        if candidates.is_empty() {
            candidates = all.clone().filter(may).collect();
        }
        if candidates.is_empty() {
            candidates = all.collect();
        }
        let by_room = |n: &usize| (self.books[*n].due(operation, now), self.books[*n].fill(now), self.books[*n].calls);
        let best = candidates.iter().copied().filter(|n| ready & 1 << n != 0).min_by_key(by_room);
        let Some(best) = best else {
            return Choice::RefreshToken(candidates.into_iter().min_by_key(|n| (self.books[*n].out_until, *n)).unwrap_or(0));
        };
        match self.books[best].due(operation, now) {
            at if at <= now => Choice::Now(best),
            at => Choice::At(at),
        }
    }

    /// Gives their turn to all whose time has come, and says when the next one's has; `None` when nobody waits any more.
    fn dispatch(&mut self, ready: u64, now: Timestamp) -> Option<Timestamp> {
        loop {
            self.waiting.retain(|_, queue| {
                while queue.front().is_some_and(|waiter| waiter.go.is_closed()) {
                    queue.pop_front(); // its deadline has passed, or its caller went away
                }
                !queue.is_empty()
            });
            let mut next: Option<(QueuePosition, WaiterKey, Option<usize>)> = None;
            for (key, queue) in &self.waiting {
                let Some(waiter) = queue.front() else { continue };
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
                self.books[client].take(key.1, now);
            }
        }
    }

    /// A client in service that is not signed in.
    fn idle(&self, out: u64, ready: u64, now: Timestamp) -> Option<usize> {
        let idle = |n: &usize| (out | ready) & 1 << n == 0 && !self.books[*n].is_left_out(now);
        (0..self.books.len()).find(idle)
    }

    /// One that could help those who wait; from now on it signs in.
    fn idle_client(&mut self, ready: u64, now: Timestamp) -> Option<usize> {
        let client = self.idle(0, ready, now).filter(|client| !self.books[*client].signing_in)?;
        self.books[client].signing_in = true;
        Some(client)
    }
}

#[cfg(test)]
mod tests;
