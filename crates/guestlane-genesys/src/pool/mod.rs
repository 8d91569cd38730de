//! Whose turn it is, and as whom: paces calls before they are sent, so that the platform has nothing to refuse (R9).
//!
//! Each OAuth client has a quota of its own. A call goes as the client with most room; when none has room, calls wait, and the first to go is
//! the one with the highest [`Priority`], then the one that came first.

mod books;
mod meter;

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
    error::{CallError, Operation},
    oauth::{AccessToken, TokenSource},
    priority::Priority,
    rate::Rate,
};
use books::Books;

/// More clients than anybody was given.
pub const MOST_CLIENTS: usize = 64;

/// The OAuth clients, and who waits for them.
#[derive(Debug)]
pub(crate) struct Pool {
    clock: Clock,
    rate: Option<Rate>,
    clients: Vec<Arc<TokenSource>>,
    turns: Mutex<Turns>,
    /// Something changed for those who wait.
    changed: Notify,
}

#[derive(Debug)]
struct Turns {
    books: Vec<Books>,
    waiting: BTreeMap<(Priority, Operation), VecDeque<Waiter>>,
    came: u64,
    /// Whether somebody hands out turns to those who wait.
    served: bool,
}

#[derive(Debug)]
struct Waiter {
    came: u64,
    tried: u64,
    go: oneshot::Sender<usize>,
}

/// The clients that a call was refused as: it is not tried as them again, as long as there are others.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    refused: AtomicU64,
    renewed: AtomicU64,
}

impl Tried {
    /// For a call as this very client.
    pub(crate) fn all_but(client: usize) -> Self {
        Self { refused: AtomicU64::new(!(1 << client)), renewed: AtomicU64::new(0) }
    }

    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn refuse(&self, client: usize) {
        self.refused.fetch_or(1 << client, Ordering::Relaxed);
    }

    /// Whether any client was.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused() != 0
    }

    /// Whether the client's token was renewed for this call before.
    pub(crate) fn renew(&self, client: usize) -> bool {
        self.renewed.fetch_or(1 << client, Ordering::Relaxed) & 1 << client != 0
    }
}

/// A call's turn.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) client: usize,
    pub(crate) token: Arc<AccessToken>,
    pub(crate) sent_at: Timestamp,
}

/// What one OAuth client has used of its quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientUse {
    /// The client's id.
    pub client_id: String,
    /// Calls sent in the last window.
    pub used: u32,
    /// Calls that the quota allows in a window; `None` without a quota.
    pub allowed: Option<Rate>,
    /// All calls sent as this client.
    pub calls: u64,
    /// Whether it is left out because it was refused or could not sign in.
    pub left_out: bool,
}

enum Choice {
    /// Send now, as this client.
    Now(usize),
    /// Not before.
    At(Timestamp),
    /// Nobody is signed in; try this one.
    SignIn(usize),
}

impl Pool {
    pub(crate) fn new(rate: Option<Rate>, clients: Vec<Arc<TokenSource>>, clock: Clock) -> Self {
        let books = clients.iter().map(|_| Books::new(rate)).collect();
        let turns = Turns { books, waiting: BTreeMap::new(), came: 0, served: false };
        Self { clock, rate, clients, turns: Mutex::new(turns), changed: Notify::new() }
    }

    pub(crate) fn clients(&self) -> &[Arc<TokenSource>] {
        &self.clients
    }

    pub(crate) fn rate(&self) -> Option<Rate> {
        self.rate
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a call's turn, by a clock that nobody sets.
    pub(crate) async fn turn(
        self: &Arc<Self>,
        operation: Operation,
        tried: &Tried,
        deadline: Timestamp,
    ) -> Result<Turn, CallError> {
        loop {
            let client = self.client(operation, tried, deadline).await?;
            match self.clients[client].token(deadline).await {
                Ok(token) => {
                    self.signed_in(client);
                    let now = self.clock.monotonic();
                    return Ok(Turn { client, token, sent_at: now });
                }
                Err(error) => {
                    self.leave_out(client, &error);
                    if !self.has_another(tried, client) {
                        return Err(error);
                    }
                    tried.refuse(client);
                }
            }
        }
    }

    /// The client as which a call may be sent now; its turn is taken.
    async fn client(self: &Arc<Self>, operation: Operation, tried: &Tried, deadline: Timestamp) -> Result<usize, CallError> {
        let left = deadline.since(self.clock.now());
        let (go, gone) = oneshot::channel();
        loop {
            let sign_in = {
                let mut turns = self.turns();
                let now = self.clock.monotonic();
                match turns.choose(operation, tried.refused(), now) {
                    Choice::SignIn(client) => client,
                    Choice::Now(client) if turns.waiting.is_empty() => {
                        turns.books[client].take(operation, now);
                        return Ok(client);
                    }
                    Choice::At(at) if at.since(now) >= left => return Err(CallError::NoRoom),
                    Choice::Now(_) | Choice::At(_) => {
                        turns.came += 1;
                        let waiter = Waiter { came: turns.came, tried: tried.refused(), go };
                        turns.waiting.entry((Priority::current(), operation)).or_default().push_back(waiter);
                        if !std::mem::replace(&mut turns.served, true) {
                            tokio::spawn(Arc::clone(self).serve());
                        }
                        break;
                    }
                }
            };
            // The turn is taken only once there is a token to use it with.
            match self.clients[sign_in].token(deadline).await {
                Ok(_) => self.signed_in(sign_in),
                Err(error) => {
                    self.leave_out(sign_in, &error);
                    if !self.has_another(tried, sign_in) {
                        return Err(error);
                    }
                    tried.refuse(sign_in);
                }
            }
        }
        self.changed.notify_one();
        match self.clock.timeout(left, gone).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(_)) | Err(_) => Err(CallError::NoRoom),
        }
    }

    /// Hands out turns for as long as anybody waits.
    async fn serve(self: Arc<Self>) {
        loop {
            let (wait, help) = {
                let mut turns = self.turns();
                let now = self.clock.monotonic();
                match turns.hand_out(now) {
                    Some(next) => (next.since(now), turns.idle_client(now)),
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
            match pool.clients[client].token(pool.clock.now() + Duration::from_secs(30)).await {
                Ok(_) => pool.signed_in(client),
                Err(error) => pool.leave_out(client, &error),
            }
            pool.turns().books[client].signing_in = false;
            pool.changed.notify_one();
        });
    }

    fn signed_in(&self, client: usize) {
        self.turns().books[client].signed_in = true;
    }

    /// Whether a call can go as another client than this one.
    fn has_another(&self, tried: &Tried, client: usize) -> bool {
        let now = self.clock.monotonic();
        let refused = tried.refused() | 1 << client;
        self.turns().books.iter().enumerate().any(|(n, books)| refused & 1 << n == 0 && !books.is_left_out(now))
    }

    /// The call was refused as this client. True when there is another one to try it as.
    pub(crate) fn try_another(&self, tried: &Tried, client: usize) -> bool {
        let another = self.has_another(tried, client);
        if another {
            tried.refuse(client);
        }
        another
    }

    /// The call went through as another client: those that it was refused as are left out for a while.
    pub(crate) fn went_through(&self, tried: &Tried, client: usize) {
        let refused = tried.refused();
        if refused == 0 {
            return;
        }
        let now = self.clock.monotonic();
        let mut turns = self.turns();
        for (n, books) in turns.books.iter_mut().enumerate() {
            if refused & 1 << n != 0 && n != client && !books.is_closed(now) {
                books.leave_out(now);
            }
        }
    }

    fn leave_out(&self, client: usize, error: &CallError) {
        let now = self.clock.monotonic();
        let left_out = self.turns().books[client].leave_out(now);
        if self.clients.len() > 1 {
            let (client, seconds) = (self.clients[client].client_id(), left_out.as_secs());
            warn!(client, seconds, error = error.record(), "an OAuth client is left out for a while");
        }
    }

    /// What the platform says of its own count (`inin-ratelimit-…`, reference, section 3.2).
    pub(crate) fn observed(&self, turn: &Turn, operation: Operation, (count, allowed, reset): (u32, u32, Duration)) {
        let now = self.clock.monotonic();
        self.turns().books[turn.client].observed(operation, count, allowed, reset, turn.sent_at, now);
    }

    /// The platform said 429: nobody sends anything as this client for that long, or nothing to this endpoint if that has a limit of its own.
    pub(crate) fn throttled(&self, client: usize, operation: Operation, retry_after: Duration) {
        let now = self.clock.monotonic();
        self.turns().books[client].throttled(operation, retry_after, now);
    }

    pub(crate) fn used(&self) -> Vec<ClientUse> {
        let now = self.clock.monotonic();
        let turns = self.turns();
        let of = |(client, books): (&Arc<TokenSource>, &Books)| ClientUse {
            client_id: client.client_id().to_owned(),
            used: books.used(now),
            allowed: self.rate,
            calls: books.calls,
            left_out: books.is_left_out(now),
        };
        self.clients.iter().zip(&turns.books).map(of).collect()
    }
}

impl Turns {
    /// The client with most room, among those that are in and were not tried; when there is none, among all that were not tried, and at last
    /// among all.
    fn choose(&self, operation: Operation, tried: u64, now: Timestamp) -> Choice {
        let untried = |n: usize| tried & 1 << n == 0;
        let in_service = |n: usize| !self.books[n].is_left_out(now);
        let all = 0..self.books.len();
        let mut candidates: Vec<usize> = all.clone().filter(|n| untried(*n) && in_service(*n)).collect();
        if candidates.is_empty() {
            candidates = all.clone().filter(|n| untried(*n)).collect();
        }
        if candidates.is_empty() {
            candidates = all.collect();
        }
        let by_room = |n: &usize| (self.books[*n].due(operation, now), self.books[*n].fill(now), self.books[*n].calls);
        let best = candidates.iter().copied().filter(|n| self.books[*n].signed_in).min_by_key(by_room);
        let Some(best) = best else {
            return Choice::SignIn(candidates.into_iter().min_by_key(|n| (self.books[*n].out_until, *n)).unwrap_or(0));
        };
        match self.books[best].due(operation, now) {
            at if at <= now => Choice::Now(best),
            at => Choice::At(at),
        }
    }

    /// Gives their turn to all whose time has come, and says when the next one's has; `None` when nobody waits any more.
    fn hand_out(&mut self, now: Timestamp) -> Option<Timestamp> {
        loop {
            self.waiting.retain(|_, queue| {
                while queue.front().is_some_and(|waiter| waiter.go.is_closed()) {
                    queue.pop_front(); // its deadline has passed, or its caller went away
                }
                !queue.is_empty()
            });
            let mut next: Option<(Timestamp, Priority, u64, Operation, Option<usize>)> = None;
            for ((priority, operation), queue) in &self.waiting {
                let Some(waiter) = queue.front() else { continue };
                let (at, client) = match self.choose(*operation, waiter.tried, now) {
                    Choice::Now(client) => (now, Some(client)),
                    Choice::At(at) => (at, None),
                    // All of them lost their place meanwhile; a call of its own signs in.
                    Choice::SignIn(client) => (now, Some(client)),
                };
                let place = (at, *priority, waiter.came);
                if next.as_ref().is_none_or(|known| place < (known.0, known.1, known.2)) {
                    next = Some((at, *priority, waiter.came, *operation, client));
                }
            }
            let (at, priority, _, operation, client) = next?;
            let Some(client) = client else { return Some(at) };
            let waiter = self.waiting.get_mut(&(priority, operation)).and_then(VecDeque::pop_front)?;
            if waiter.go.send(client).is_ok() {
                self.books[client].take(operation, now);
            }
        }
    }

    /// A client that could help those who wait, and is not signed in.
    fn idle_client(&mut self, now: Timestamp) -> Option<usize> {
        let client = self.books.iter().position(|books| !books.signed_in && !books.signing_in && !books.is_left_out(now))?;
        self.books[client].signing_in = true;
        Some(client)
    }
}

#[cfg(test)]
mod tests;
