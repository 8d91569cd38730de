//! Rate limiter: paces calls before they are sent, so that the platform does not throttle them, and
//! selects the OAuth client of each call (requirement R9, docs/requirements.md).
//!
//! Each OAuth client has its own rate limit. A call uses the client with the most remaining
//! capacity. If no client has capacity, calls wait: the highest [`Priority`](crate::Priority) goes
//! first, then the longest wait.

mod client_state;
mod excluded;
mod gcra;
mod quarantine;
mod quota_lease;
mod schedule;
mod usage;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use client_state::ClientState;
use tokio::sync::{Notify, oneshot};

use crate::{
    call_context::CallContext,
    coordinator::Coordinator,
    error::{AttemptError, Operation},
    rate::Rate,
    token_source::{AccessToken, TokenSource},
};
pub(crate) use excluded::ExcludedClients;
use guestlane_runtime::{Clock, Timestamp};
use schedule::{Choice, Schedule, Waiter};
pub use usage::ClientUsage;

/// Maximum number of OAuth clients in a pool.
pub const MAX_CLIENTS: usize = 64;

/// The pool of OAuth clients, and the queue of calls that wait for a permit.
#[derive(Debug)]
pub(crate) struct ClientPool {
    clock: Clock,
    clients: Vec<Arc<TokenSource>>,
    turns: Mutex<Schedule>,
    /// Wakes the dispatch loop when the schedule changes.
    changed: Notify,
    /// Signals that a call began to wait.
    crowded: Arc<Notify>,
}

/// Permission to send one call with an OAuth client and its access token.
#[derive(Debug)]
pub(crate) struct Permit {
    pub(crate) client: usize,
    pub(crate) token: Arc<AccessToken>,
    pub(crate) sent_at: Timestamp,
}

enum Dispatch {
    /// The call was recorded and may be sent with this client.
    Permit(usize),
    /// No client has an access token; fetch one for this client.
    RefreshToken(usize),
    /// The schedule changed while the call waited; check again.
    Recheck,
}

impl ClientPool {
    pub(crate) fn new(rate: Option<Rate>, clients: Vec<Arc<TokenSource>>, clock: Clock) -> Self {
        let states = clients.iter().map(|_| ClientState::new(rate)).collect();
        let turns = Schedule {
            rate,
            clients: states,
            waiting: BTreeMap::new(),
            came: 0,
            served: false,
        };
        Self {
            clock,
            clients,
            turns: Mutex::new(turns),
            changed: Notify::new(),
            crowded: Arc::default(),
        }
    }

    pub(crate) fn clients(&self) -> &[Arc<TokenSource>] {
        &self.clients
    }

    /// Sets the rate limit of each client.
    pub(crate) fn set_rate(&self, rate: Option<Rate>) {
        let mut turns = self.turns();
        turns.rate = rate;
        turns
            .clients
            .iter_mut()
            .for_each(|state| state.set_rate(rate));
        drop(turns);
        self.changed.notify_one();
    }

    /// Shares each client's rate limit with other processes. Must be called within a tokio runtime.
    pub(crate) fn share(self: &Arc<Self>, fleet: &Arc<dyn Coordinator>) {
        self.turns().clients.iter_mut().for_each(ClientState::share);
        tokio::spawn(quota_lease::keep(
            Arc::downgrade(self),
            Arc::downgrade(fleet),
        ));
    }

    /// Returns the calls per second that this process may currently make with all clients together,
    /// or `None` without a rate limit.
    pub(crate) fn calls_in_a_second(&self) -> Option<f64> {
        let turns = self.turns();
        turns.rate?;
        Some(
            turns
                .clients
                .iter()
                .filter_map(ClientState::rate_now)
                .map(Rate::per_second)
                .sum(),
        )
    }

    fn turns(&self) -> MutexGuard<'_, Schedule> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the clients that have a usable access token, as a bit set.
    fn ready(&self) -> u64 {
        (0..)
            .zip(&self.clients)
            .filter(|(_, client)| client.is_ready())
            .fold(0, |ready, (n, _): (u32, _)| ready | 1 << n)
    }

    /// Waits for a permit, measured by the monotonic clock. Capacity is taken only once there is an
    /// access token to use it with.
    pub(crate) async fn turn(
        self: &Arc<Self>,
        operation: Operation,
        tried: &ExcludedClients,
        context: &CallContext,
    ) -> Result<Permit, AttemptError> {
        loop {
            let (client, taken) = match self.next(operation, tried, context).await? {
                Dispatch::Permit(client) => (client, true),
                Dispatch::RefreshToken(client) => (client, false),
                Dispatch::Recheck => continue,
            };
            let Some(token) = self.sign_in(client, tried, context).await? else {
                continue;
            };
            let now = self.clock.monotonic();
            if !taken {
                if self.clients[client].is_ready() {
                    continue; // the client has a token now; wait for its rate limit
                }
                // The token expired before it arrived. Send the call anyway, so that the platform
                // rejects it; fetching the next token here could repeat forever.
                self.turns().clients[client].take(operation, now);
            }
            return Ok(Permit {
                client,
                token,
                sent_at: now,
            });
        }
    }

    /// Returns the client's access token, or `None` if it cannot be fetched and another client can
    /// make the call.
    async fn sign_in(
        &self,
        client: usize,
        tried: &ExcludedClients,
        context: &CallContext,
    ) -> Result<Option<Arc<AccessToken>>, AttemptError> {
        let error = match self.clients[client].token(context).await {
            Ok(token) => return Ok(Some(token)),
            Err(error) => error,
        };
        let refused = self.quarantine_if_rejected(client, &error);
        if !self.has_another(tried, client) {
            return Err(error);
        }
        let mask = if refused {
            &tried.refused
        } else {
            &tried.passed
        };
        mask.fetch_or(1 << client, Ordering::Relaxed);
        Ok(None)
    }

    async fn next(
        self: &Arc<Self>,
        operation: Operation,
        tried: &ExcludedClients,
        context: &CallContext,
    ) -> Result<Dispatch, AttemptError> {
        let left = context.deadline.since(self.clock.now());
        let (go, gone) = oneshot::channel();
        {
            let ready = self.ready();
            let mut turns = self.turns();
            let now = self.clock.monotonic();
            let out = tried.excluded();
            match turns.choose(operation, out, ready, now) {
                Choice::RefreshToken(client) => return Ok(Dispatch::RefreshToken(client)),
                Choice::Now(client) if turns.waiting.is_empty() => {
                    turns.clients[client].take(operation, now);
                    return Ok(Dispatch::Permit(client));
                }
                Choice::At(at) if at.since(now) >= left => {
                    return turns
                        .idle(out, ready, now)
                        .map(Dispatch::RefreshToken)
                        .ok_or(AttemptError::RateLimitTimeout);
                }
                Choice::Now(_) | Choice::At(_) => {}
            }
            turns.came += 1;
            let waiter = Waiter {
                came: turns.came,
                go,
            };
            turns
                .waiting
                .entry((context.priority, operation, out))
                .or_default()
                .push_back(waiter);
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

    /// Grants permits until no call waits.
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

    /// Fetches an access token for one more client, because the clients with a token have no
    /// capacity left.
    fn sign_in_soon(self: &Arc<Self>, client: usize) {
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            let context = CallContext::until(pool.clock.now() + Duration::from_secs(30));
            if let Err(error) = pool.clients[client].token(&context).await {
                pool.quarantine_if_rejected(client, &error);
            }
            pool.turns().clients[client].signing_in = false;
            pool.changed.notify_one();
        });
    }

    /// Whether another client than this one can make the call.
    fn has_another(&self, tried: &ExcludedClients, client: usize) -> bool {
        let now = self.clock.monotonic();
        let out = tried.excluded() | 1 << client;
        self.turns()
            .clients
            .iter()
            .enumerate()
            .any(|(n, state)| out & 1 << n == 0 && !state.is_quarantined(now))
    }

    /// Marks the client as rejected for this call. Returns whether another client can make the
    /// call.
    pub(crate) fn try_another(&self, tried: &ExcludedClients, client: usize) -> bool {
        let another = self.has_another(tried, client);
        if another {
            tried.refused.fetch_or(1 << client, Ordering::Relaxed);
        }
        another
    }

    /// Decides whether a throttled call fails over to another client that is due earlier. A call
    /// fails over at most once in a row.
    pub(crate) fn fail_over_on_throttle(
        &self,
        operation: Operation,
        tried: &ExcludedClients,
        client: usize,
    ) -> bool {
        if tried.passed.load(Ordering::Relaxed) != 0 {
            tried.passed.store(0, Ordering::Relaxed); // both clients are throttled: use the one that is due first
            return false;
        }
        let now = self.clock.monotonic();
        let out = tried.excluded() | 1 << client;
        let turns = self.turns();
        let here = turns.clients[client].due(operation, now);
        let sooner = |(n, state): (usize, &ClientState)| {
            out & 1 << n == 0 && !state.is_quarantined(now) && state.due(operation, now) < here
        };
        let another = turns.clients.iter().enumerate().any(sooner);
        if another {
            tried.passed.fetch_or(1 << client, Ordering::Relaxed);
        }
        another
    }

    /// Quarantines the clients that were rejected for this call, because it succeeded with another
    /// one.
    pub(crate) fn on_success(&self, tried: &ExcludedClients, client: usize) {
        let refused = tried.refused();
        if refused == 0 {
            return;
        }
        let now = self.clock.monotonic();
        let mut turns = self.turns();
        for (n, state) in turns.clients.iter_mut().enumerate() {
            if refused & 1 << n != 0 && n != client {
                state.quarantine(now);
            }
        }
    }

    /// Disables a client for the lifetime of the process.
    pub(crate) fn disable(&self, client: usize) {
        self.turns().clients[client].quarantined_until = Timestamp::from_unix_micros(i64::MAX);
    }

    /// Learns from the platform's rate limit headers (`inin-ratelimit-…`,
    /// docs/platform.md#rate-limits).
    pub(crate) fn observed(
        &self,
        turn: &Permit,
        operation: Operation,
        (count, allowed, reset): (u32, u32, Duration),
    ) {
        let now = self.clock.monotonic();
        self.turns().clients[turn.client].observed(
            operation,
            (count, allowed),
            reset,
            turn.sent_at,
            now,
        );
    }

    /// Stops calls of this client for `retry_after` after a 429. An endpoint with its own limit
    /// stops only itself.
    pub(crate) fn throttled(&self, client: usize, operation: Operation, retry_after: Duration) {
        let now = self.clock.monotonic();
        self.turns().clients[client].throttled(operation, retry_after, now);
    }

    pub(crate) fn used(&self) -> Vec<ClientUsage> {
        let now = self.clock.monotonic();
        let turns = self.turns();
        let of = |(client, state): (&Arc<TokenSource>, &ClientState)| ClientUsage {
            client_id: client.client_id().to_owned(),
            used: state.used(now),
            allowed: turns.rate,
            calls: state.calls,
            throttled: state.throttled,
            quarantined: state.is_quarantined(now),
        };
        self.clients.iter().zip(&turns.clients).map(of).collect()
    }
}

#[cfg(test)]
mod tests;
