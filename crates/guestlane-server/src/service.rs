//! The state that all routes share, and the background tasks of the service.

mod tasks;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use guestlane::{Error, SessionEngine, admission_control::AdmissionController, error::ErrorCode};
use guestlane_core::{
    api_key::{ApiKeyHasher, ApiKeySet},
    request::QueueId,
};
use guestlane_runtime::{Clock, Timestamp};
use guestlane_store::{ReadLimits, Store, StoreError, log_failure};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use crate::{
    ServiceSettings,
    connections::{Connections, Limits},
    key_rate_limiter::KeyRateLimiter,
    log_limit::LogLimit,
    problem::Problem,
    request_metrics::RequestMetrics,
    samples::Snapshot,
};

/// The shared state as the routes receive it.
pub(crate) type App = Arc<Service>;

/// The HTTP service for sessions.
#[derive(Debug)]
pub struct Service {
    engine: Arc<SessionEngine>,
    /// Default queue of sessions whose request names none.
    queue: Option<QueueId>,
    /// Admission control of single sessions.
    callers: AdmissionController,
    /// Admission control of batch rows.
    rows: AdmissionController,
    /// Hashes presented API keys for the comparison with the stored hashes.
    hash_key: ApiKeyHasher,
    keys: ArcSwap<ApiKeySet>,
    /// When the API keys were last read, by the monotonic clock, in microseconds.
    keys_read_at: AtomicI64,
    /// When each API key was last used, by key ID, rounded down to the minute.
    used: Mutex<HashMap<String, Timestamp>>,
    /// Rate limit of each API key.
    allowance: KeyRateLimiter,
    /// The latest samples, for the dashboard, the metrics and the event stream.
    watched: watch::Sender<Arc<Snapshot>>,
    figures: RequestMetrics,
    started_at: Timestamp,
    /// Connections of the store for reads on behalf of callers, so that these do not delay
    /// sessions.
    reads: Store,
    connections: Arc<Connections>,
    /// Whether `X-Forwarded-For` names the client.
    behind_proxy: bool,
    tls: bool,
    /// How long the node serves after it reports not ready.
    drain: Duration,
    draining: AtomicBool,
    /// Limits log lines of requests that were answered 401.
    unauthenticated_log: LogLimit,
    /// Limits log lines about a failing store.
    store_log: LogLimit,
    /// Limits log lines of requests to routes without an API key.
    anonymous_log: LogLimit,
    /// Held by the running verification of the audit log.
    checking: Arc<tokio::sync::Mutex<()>>,
    /// Cancelled when shutdown begins.
    ending: CancellationToken,
    /// Sessions and batches in flight.
    under_way: TaskTracker,
}

/// Maximum age of the list of API keys. Beyond it, every request is rejected, because a key revoked
/// in the meantime could still be accepted.
const MAX_KEYS_AGE: Duration = Duration::from_secs(30);

impl Service {
    /// Opens the service. `queue` is the queue of sessions whose request names none.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn open(
        engine: Arc<SessionEngine>,
        settings: &ServiceSettings,
        queue: Option<QueueId>,
    ) -> Result<Arc<Self>, Error> {
        let clock = engine.clock().clone();
        let hash_key = engine.api_key_hash().await?;
        let keys = ApiKeySet::new(hash_key.clone(), engine.store().api_keys().await?);
        Ok(Arc::new(Self {
            queue,
            callers: AdmissionController::new(Arc::clone(&engine), settings.max_sessions),
            rows: AdmissionController::new(
                Arc::clone(&engine),
                AdmissionController::MAX_CONCURRENCY.min(settings.max_sessions),
            ),
            hash_key,
            keys_read_at: AtomicI64::new(clock.monotonic().unix_micros()),
            keys: ArcSwap::from_pointee(keys),
            used: Mutex::default(),
            allowance: KeyRateLimiter::new(settings.key_rate),
            watched: watch::channel(Arc::new(Snapshot::at(clock.now(), clock.monotonic()))).0,
            figures: RequestMetrics::default(),
            started_at: clock.now(),
            reads: engine.store().with_own_reads(ReadLimits::CALLERS)?,
            connections: Connections::new(limits(settings), clock.clone()),
            behind_proxy: settings.behind_proxy,
            tls: settings.tls.is_some(),
            drain: settings.drain,
            draining: AtomicBool::new(false),
            unauthenticated_log: LogLimit::new(10, Duration::from_secs(10)),
            store_log: LogLimit::new(1, Duration::from_secs(10)),
            anonymous_log: LogLimit::new(50, Duration::from_secs(10)),
            checking: Arc::default(),
            ending: CancellationToken::new(),
            under_way: TaskTracker::new(),
            engine,
        }))
    }

    /// Whether at least one API key is accepted now.
    pub fn has_keys(&self) -> bool {
        self.keys.load().has_active(self.clock().now())
    }

    /// Makes the node not ready. Load balancers then send new requests elsewhere; requests that
    /// still arrive are served.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// How long the node continues to serve after it is not ready.
    pub(crate) fn drain_period(&self) -> Duration {
        self.drain
    }

    /// Stops accepting new sessions and batch rows, and ends event streams.
    pub fn begin_shutdown(&self) {
        self.drain();
        self.ending.cancel();
        self.under_way.close();
    }

    /// Waits until all sessions in flight are finished.
    pub async fn wait_for_tasks(&self) {
        self.under_way.wait().await;
    }

    pub(crate) fn engine(&self) -> &Arc<SessionEngine> {
        &self.engine
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.engine.clock()
    }

    /// The store for reads on behalf of callers.
    pub(crate) fn reads(&self) -> &Store {
        &self.reads
    }

    pub(crate) fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// Whether the peer of a connection is a proxy, which names the client in `X-Forwarded-For`.
    pub(crate) fn is_behind_proxy(&self) -> bool {
        self.behind_proxy
    }

    /// Whether the service itself terminates TLS.
    pub(crate) fn speaks_tls(&self) -> bool {
        self.tls
    }

    /// Limits the log lines of requests whose API key was missing or not accepted.
    pub(crate) fn unauthenticated_log(&self) -> &LogLimit {
        &self.unauthenticated_log
    }

    /// Limits the log lines of requests that need no API key.
    pub(crate) fn anonymous_log(&self) -> &LogLimit {
        &self.anonymous_log
    }

    /// The problem that the caller receives for an error.
    pub(crate) fn problem(&self, error: impl Into<guestlane::Error>) -> Problem {
        let error = error.into();
        let problem = Problem::of(&error, self.clock().now());
        let about_the_request = matches!(
            &error,
            Error::Store(StoreError::Busy | StoreError::ReadTimeout(_))
        );
        if problem.code() != ErrorCode::StoreFailed.name() || about_the_request {
            return problem;
        }
        // The cause may contain hosts and users of the database, so it goes to the log only. The
        // start and end of an outage are logged elsewhere, so the line here is limited.
        if self.store_log.allow(self.clock().monotonic()).is_some() {
            log_failure(&error, "the store failed; answering requests with 503");
        }
        let fix = "retry after the seconds in Retry-After, with the same idempotency key";
        Problem::new(ErrorCode::StoreFailed, "the store failed", fix).retry_after(1)
    }

    /// Default queue of sessions whose request names none.
    pub(crate) fn queue(&self) -> Option<QueueId> {
        self.queue
    }

    /// Admission control of single sessions.
    pub(crate) fn interactive_gate(&self) -> &AdmissionController {
        &self.callers
    }

    /// Admission control of batch rows.
    pub(crate) fn batch_gate(&self) -> &AdmissionController {
        &self.rows
    }

    /// The API keys as of the last read.
    pub(crate) fn keys(&self) -> Guard<Arc<ApiKeySet>> {
        self.keys.load()
    }

    /// Rate limit of each API key.
    pub(crate) fn allowance(&self) -> &KeyRateLimiter {
        &self.allowance
    }

    /// The latest samples; receivers are notified every second.
    pub(crate) fn snapshot(&self) -> &watch::Sender<Arc<Snapshot>> {
        &self.watched
    }

    /// Metrics of the requests to the service.
    pub(crate) fn figures(&self) -> &RequestMetrics {
        &self.figures
    }

    pub(crate) fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// Serializes audit verifications, because each takes a whole processor.
    pub(crate) fn audit_verify_lock(&self) -> &Arc<tokio::sync::Mutex<()>> {
        &self.checking
    }

    /// Cancelled when shutdown begins.
    pub(crate) fn shutdown_token(&self) -> &CancellationToken {
        &self.ending
    }

    /// Session tasks, which run to their end even if the caller disconnects.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.under_way
    }

    /// Records when a key was used, for the next write to the store. The time is rounded down to
    /// the minute, so that a key in use costs at most one write per minute.
    pub(crate) fn key_was_used(&self, id: &str, now: Timestamp) {
        const MINUTE: i64 = 60_000_000;
        let minute = Timestamp::from_unix_micros(now.unix_micros() / MINUTE * MINUTE);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.get(id).is_none_or(|known| *known < minute) {
            used.insert(id.to_owned(), minute);
        }
    }

    fn keep_keys(&self, keys: ApiKeySet, asked_at: Timestamp) {
        let unreadable = keys.unreadable();
        if unreadable > self.keys.load().unreadable() {
            warn!(
                unreadable,
                "some API keys cannot be read by this version; rejecting them"
            );
        }
        self.keys.store(Arc::new(keys));
        self.keys_read_at
            .store(asked_at.unix_micros(), Ordering::Relaxed);
    }

    /// The age of the list of API keys.
    pub(crate) fn keys_age(&self) -> Duration {
        self.clock().monotonic().since(Timestamp::from_unix_micros(
            self.keys_read_at.load(Ordering::Relaxed),
        ))
    }

    /// Whether the list of API keys is older than [`MAX_KEYS_AGE`].
    pub(crate) fn keys_are_stale(&self) -> bool {
        self.keys_age() > MAX_KEYS_AGE
    }
}

/// Upper bound of the connection limit: each connection costs memory and a file descriptor.
const MAX_CONNECTIONS: u64 = 20_000;

/// File descriptors reserved for the store, the platform and webhook deliveries.
const RESERVED_FILES: u64 = 400;

/// One address may have this fraction of all connections: one in eight.
const PART_OF_ONE_ADDRESS: usize = 8;

/// Derives the connection limits from the limit of open files: that limit less [`RESERVED_FILES`],
/// at least half of it, and at most [`MAX_CONNECTIONS`]. There is no limit per address behind a
/// proxy or on loopback, where all clients have the same address.
fn limits(settings: &ServiceSettings) -> Limits {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .unwrap_or(u64::MAX);
    let most = files
        .saturating_sub(RESERVED_FILES)
        .max(files / 2)
        .min(MAX_CONNECTIONS);
    let connections = usize::try_from(most).unwrap_or(usize::MAX);
    let shared = settings.behind_proxy || settings.listen.ip().is_loopback();
    let per_address = (!shared).then_some((connections / PART_OF_ONE_ADDRESS).max(1));
    Limits {
        connections,
        per_address,
    }
}
