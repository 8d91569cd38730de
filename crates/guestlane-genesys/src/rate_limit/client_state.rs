//! State of one OAuth client: its rate limit, lower limits of single endpoints, and its quarantine.

use std::{collections::BTreeMap, time::Duration};

use super::{
    gcra::GcraLimiter,
    quota_lease::{Held, LOOK_AGAIN},
};
use crate::{error::Operation, rate::Rate};
use guestlane_runtime::Timestamp;

/// First quarantine of a rejected client. It doubles with each further rejection.
const QUARANTINE_INITIAL: Duration = Duration::from_secs(30);

/// Maximum quarantine of a client.
const QUARANTINE_MAX: Duration = Duration::from_secs(300);

/// Maximum time that a 429 closes a client or endpoint. A call with a longer `Retry-After` waits
/// for that long; other calls may try earlier.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// State of one OAuth client.
#[derive(Debug)]
pub(super) struct ClientState {
    all: Quota,
    /// The configured rate limit.
    wanted: Option<Rate>,
    /// The limit that the responses of each endpoint name.
    allowed: BTreeMap<Operation, u32>,
    /// Rate limiters of the endpoints that allow less than the client's rate limit.
    endpoints: BTreeMap<Operation, Quota>,
    /// Whether other processes share the rate limit. If so, nothing is sent without a rate-limit
    /// lease.
    shared: bool,
    pub(super) held: Option<Held>,
    pub(super) signing_in: bool,
    pub(super) quarantined_until: Timestamp,
    quarantined_for: Duration,
    /// Number of calls sent.
    pub(super) calls: u64,
    /// Number of calls answered with 429.
    pub(super) throttled: u64,
}

#[derive(Debug)]
struct Quota {
    meter: Option<GcraLimiter>,
    closed_until: Timestamp,
}

impl Quota {
    fn new(rate: Option<Rate>) -> Self {
        Self {
            meter: rate.map(GcraLimiter::new),
            closed_until: Timestamp::from_unix_micros(0),
        }
    }

    fn due(&self, now: Timestamp) -> Timestamp {
        self.meter
            .as_ref()
            .map_or(now, |meter| meter.next_allowed_at(now))
            .max(self.closed_until)
    }

    fn take(&mut self, now: Timestamp) {
        if let Some(meter) = &mut self.meter {
            meter.record_call(now);
        }
    }

    fn close(&mut self, now: Timestamp, wait: Duration) {
        self.closed_until = self.closed_until.max(now + wait.min(MAX_RETRY_AFTER));
    }

    fn observed(
        &mut self,
        (count, allowed): (u32, u32),
        reset: Duration,
        sent_at: Timestamp,
        now: Timestamp,
    ) {
        if let Some(meter) = &mut self.meter
            && let Some(wait) = meter.observed((count, allowed), reset, sent_at, now)
        {
            self.close(now, wait);
        }
    }
}

impl ClientState {
    pub(super) fn new(rate: Option<Rate>) -> Self {
        Self {
            all: Quota::new(rate),
            wanted: rate,
            allowed: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            shared: false,
            held: None,
            signing_in: false,
            quarantined_until: Timestamp::from_unix_micros(0),
            quarantined_for: Duration::ZERO,
            calls: 0,
            throttled: 0,
        }
    }

    /// Applies a changed setting. The endpoint limits are learned again. If the window differs,
    /// counting starts anew.
    pub(super) fn set_rate(&mut self, rate: Option<Rate>) {
        if rate == self.wanted {
            return;
        }
        let same_window = rate.map(Rate::window) == self.wanted.map(Rate::window);
        match (&mut self.all.meter, rate) {
            (Some(meter), Some(rate)) if same_window => meter.set_rate(rate),
            (meter, rate) => *meter = rate.map(GcraLimiter::new),
        }
        self.wanted = rate;
        if self.shared {
            self.held = None; // a lease on the old rate limit does not apply to the new one
        }
        self.allowed.clear();
        self.endpoints.clear();
    }

    /// Marks the rate limit as shared with other processes.
    pub(super) fn share(&mut self) {
        self.shared = true;
    }

    /// Returns the rate limit of all processes together, as learned from the responses.
    pub(super) fn limit(&self) -> Option<Rate> {
        let wanted = self.wanted?;
        let most = self
            .allowed
            .values()
            .copied()
            .max()
            .filter(|_| self.allowed.len() > 1);
        Some(wanted.with_calls(most.unwrap_or(u32::MAX).min(wanted.calls())))
    }

    /// Returns the rate limit of this process.
    pub(super) fn rate_now(&self) -> Option<Rate> {
        if self.shared {
            self.all.meter.as_ref().map(GcraLimiter::rate)
        } else {
            self.wanted
        }
    }

    /// Applies a new rate-limit lease, which replaces the previous one.
    pub(super) fn set_slice(&mut self, calls: u32) {
        if let Some(meter) = &mut self.all.meter {
            meter.set_slice(calls);
        }
        let limit = self.limit().map_or(calls, Rate::calls);
        for (operation, endpoint) in &mut self.endpoints {
            if let (Some(allowed), Some(meter)) = (self.allowed.get(operation), &mut endpoint.meter)
            {
                // Scale the endpoint's limit by the lease's share of the client's limit.
                let share = u64::from(*allowed) * u64::from(calls) / u64::from(limit.max(1));
                meter.set_slice(u32::try_from(share).unwrap_or(*allowed));
            }
        }
    }

    /// Returns when the next call may be sent, `now` or later.
    pub(super) fn due(&self, operation: Operation, now: Timestamp) -> Timestamp {
        let shared = self.shared && self.wanted.is_some();
        if shared && !self.held.is_some_and(|held| held.is_good_at(now)) {
            return now + LOOK_AGAIN;
        }
        let endpoint = self
            .endpoints
            .get(&operation)
            .map_or(now, |endpoint| endpoint.due(now));
        self.all.due(now).max(endpoint)
    }

    pub(super) fn fill(&self, now: Timestamp) -> Duration {
        self.all
            .meter
            .as_ref()
            .map_or(Duration::ZERO, |meter| meter.utilization(now))
    }

    pub(super) fn take(&mut self, operation: Operation, now: Timestamp) {
        self.calls += 1;
        self.all.take(now);
        if let Some(endpoint) = self.endpoints.get_mut(&operation) {
            endpoint.take(now);
        }
    }

    /// Learns from the rate limit headers of a response.
    ///
    /// An endpoint that names a lower limit than other endpoints gets a limiter of its own; all
    /// others use the client's limiter. If all endpoints name a lower limit than the setting, the
    /// client's limit is lowered.
    pub(super) fn observed(
        &mut self,
        operation: Operation,
        (count, allowed): (u32, u32),
        reset: Duration,
        sent_at: Timestamp,
        now: Timestamp,
    ) {
        let (Some(wanted), true) = (self.wanted, allowed > 0) else {
            return;
        };
        if self.allowed.insert(operation, allowed) != Some(allowed) {
            let most = self
                .allowed
                .values()
                .copied()
                .max()
                .filter(|_| self.allowed.len() > 1);
            let rate = wanted.with_calls(most.unwrap_or(u32::MAX).min(wanted.calls()));
            if let Some(meter) = self.all.meter.as_mut().filter(|_| !self.shared) {
                meter.set_rate(rate);
            }
            self.endpoints.retain(|operation, _| {
                self.allowed
                    .get(operation)
                    .is_some_and(|allowed| *allowed < rate.calls())
            });
            if allowed < rate.calls() {
                self.endpoints
                    .insert(operation, Quota::new(Some(rate.with_calls(allowed))));
                if let Some(held) = self.held {
                    self.set_slice(held.calls);
                }
            }
        }
        let quota = self.endpoints.get_mut(&operation).unwrap_or(&mut self.all);
        quota.observed((count, allowed), reset, sent_at, now);
    }

    pub(super) fn throttled(
        &mut self,
        operation: Operation,
        retry_after: Duration,
        now: Timestamp,
    ) {
        self.throttled += 1;
        let quota = self.endpoints.get_mut(&operation).unwrap_or(&mut self.all);
        quota.close(now, retry_after);
        if let Some(meter) = &mut quota.meter {
            meter.on_throttled(now);
        }
    }

    pub(super) fn is_quarantined(&self, now: Timestamp) -> bool {
        self.quarantined_until > now
    }

    /// Quarantines the client and returns for how long. A client that was in service for
    /// `QUARANTINE_MAX` starts again with `QUARANTINE_INITIAL`.
    pub(super) fn quarantine(&mut self, now: Timestamp) -> Duration {
        let forgotten = now.since(self.quarantined_until) > QUARANTINE_MAX;
        if !self.is_quarantined(now) {
            let twice = if forgotten {
                QUARANTINE_INITIAL
            } else {
                self.quarantined_for * 2
            };
            self.quarantined_for = twice.clamp(QUARANTINE_INITIAL, QUARANTINE_MAX);
            self.quarantined_until = now + self.quarantined_for;
        }
        self.quarantined_for
    }

    pub(super) fn used(&self, now: Timestamp) -> u32 {
        self.all.meter.as_ref().map_or(0, |meter| meter.used(now))
    }
}
