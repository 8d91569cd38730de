//! What the service holds for as long as it runs, and what it does beside answering.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use guestlane::{
    Clock, Error, SessionEngine, Timestamp,
    admission_control::AdmissionController,
    api_key::{ApiKeyHasher, ApiKeySet},
    config::ServiceSettings,
    error::Code,
    request::QueueId,
    store::{ReadLimits, Store, StoreError, log_failure},
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;
use uuid::Uuid;

use crate::{
    auth::KeyRateLimiter,
    connections::{Connections, Limits},
    log_limit::LogLimit,
    problem::Problem,
    readiness,
    request_metrics::RequestMetrics,
    sampler::{Sampler, Snapshot},
};

/// The service, as every route has it.
pub(crate) type App = Arc<Service>;

/// Sessions over HTTP.
#[derive(Debug)]
pub struct Service {
    engine: Arc<SessionEngine>,
    queue: Option<QueueId>,
    callers: AdmissionController,
    rows: AdmissionController,
    hash_key: ApiKeyHasher,
    keys: ArcSwap<ApiKeySet>,
    /// When the keys were read, by the monotonic clock, in microseconds.
    keys_read_at: AtomicI64,
    used: Mutex<HashMap<String, Timestamp>>,
    allowance: KeyRateLimiter,
    watched: watch::Sender<Arc<Snapshot>>,
    figures: RequestMetrics,
    started_at: Timestamp,
    /// Reads on behalf of callers: they hold up no session.
    reads: Store,
    connections: Arc<Connections>,
    behind_proxy: bool,
    tls: bool,
    drain: Duration,
    draining: AtomicBool,
    unauthenticated_log: LogLimit,
    store_log: LogLimit,
    anonymous_log: LogLimit,
    checking: Arc<tokio::sync::Mutex<()>>,
    ending: CancellationToken,
    under_way: TaskTracker,
}

/// How soon a key that another process made or revoked is known here.
const LOOK_AT_KEYS: Duration = Duration::from_secs(1);

/// How old the list of API keys may be: beyond, a key that was revoked meanwhile might be accepted, and every request is refused.
const MAX_KEYS_AGE: Duration = Duration::from_secs(30);

/// How often a platform that fails is asked whether it is back.
const LOOK_AT_PLATFORM: Duration = Duration::from_secs(15);

impl Service {
    /// Opens what is needed. `queue` is that of sessions that name none.
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
            rows: AdmissionController::new(Arc::clone(&engine), AdmissionController::MAX_CONCURRENCY.min(settings.max_sessions)),
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

    /// Whether any API key would be accepted now.
    pub fn has_keys(&self) -> bool {
        self.keys.load().has_active(self.clock().now())
    }

    /// What goes on beside the answers, for as long as it is polled: abandoned sessions, the CRM, keys, figures.
    pub async fn work(self: Arc<Self>) {
        tokio::join!(
            Arc::clone(&self.engine).run_background_tasks(),
            self.look_at_keys(),
            self.note_used_keys(),
            self.look_at_platform(),
            readiness::probe_writes(&self),
            Sampler::new(&self).run()
        );
    }

    /// From now on the node is not ready: load balancers send new requests elsewhere, and those that come all the same are served.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// How long the node goes on serving once it is not ready any more.
    pub(crate) fn drain_period(&self) -> Duration {
        self.drain
    }

    /// From now on nothing new is taken.
    pub fn begin_shutdown(&self) {
        self.drain();
        self.ending.cancel();
        self.under_way.close();
    }

    /// Until what was begun is done.
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

    /// Whether the other side of a connection is a proxy, which names the caller in `X-Forwarded-For`.
    pub(crate) fn is_behind_proxy(&self) -> bool {
        self.behind_proxy
    }

    /// Whether the service itself speaks TLS.
    pub(crate) fn speaks_tls(&self) -> bool {
        self.tls
    }

    /// Bounds the log lines of requests whose API key was missing or not accepted.
    pub(crate) fn unauthenticated_log(&self) -> &LogLimit {
        &self.unauthenticated_log
    }

    /// Bounds the log lines of requests that need no API key.
    pub(crate) fn anonymous_log(&self) -> &LogLimit {
        &self.anonymous_log
    }

    /// What is told of an error.
    pub(crate) fn problem(&self, error: impl Into<guestlane::Error>) -> Problem {
        let error = error.into();
        let problem = Problem::of(&error, self.clock().now());
        let about_the_request = matches!(&error, Error::Store(StoreError::Busy | StoreError::ReadTimeout(_)));
        if problem.code() != Code::StoreFailed.name() || about_the_request {
            return problem;
        }
        // The reason may name hosts and users of the database: it is for the operator. An outage has its own two lines in the log.
        if self.store_log.allow(self.clock().monotonic()).is_some() {
            log_failure(&error, "the store failed; requests are answered 503");
        }
        let fix = "send it again after so many seconds, under the same idempotency key";
        Problem::new(Code::StoreFailed, "the store failed", fix).retry_after(1)
    }

    pub(crate) fn queue(&self) -> Option<QueueId> {
        self.queue
    }

    pub(crate) fn interactive_gate(&self) -> &AdmissionController {
        &self.callers
    }

    pub(crate) fn batch_gate(&self) -> &AdmissionController {
        &self.rows
    }

    pub(crate) fn keys(&self) -> Guard<Arc<ApiKeySet>> {
        self.keys.load()
    }

    pub(crate) fn allowance(&self) -> &KeyRateLimiter {
        &self.allowance
    }

    pub(crate) fn snapshot(&self) -> &watch::Sender<Arc<Snapshot>> {
        &self.watched
    }

    pub(crate) fn figures(&self) -> &RequestMetrics {
        &self.figures
    }

    pub(crate) fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// The audit log is checked by one at a time: it takes all of a processor.
    pub(crate) fn audit_verify_lock(&self) -> &Arc<tokio::sync::Mutex<()>> {
        &self.checking
    }

    pub(crate) fn shutdown_token(&self) -> &CancellationToken {
        &self.ending
    }

    /// Sessions whose callers may have gone: they are finished none the less.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.under_way
    }

    /// Noted, and written once in a while: to the minute, so that a key in use costs a write a minute.
    pub(crate) fn key_was_used(&self, id: &str, now: Timestamp) {
        const MINUTE: i64 = 60_000_000;
        let minute = Timestamp::from_unix_micros(now.unix_micros() / MINUTE * MINUTE);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.get(id).is_none_or(|known| *known < minute) {
            used.insert(id.to_owned(), minute);
        }
    }

    /// While nothing goes well, asks now and then: without a caller nobody else would.
    async fn look_at_platform(&self) {
        loop {
            self.clock().sleep(LOOK_AT_PLATFORM).await;
            if self.engine.platform_down_for().is_some() {
                self.engine.probe_platform(self.queue.unwrap_or(QueueId(Uuid::nil()))).await;
            }
        }
    }

    async fn look_at_keys(&self) {
        let mut changes = self.engine.store().changes();
        loop {
            tokio::select! {
                () = changes.next() => {}
                () = self.clock().sleep(LOOK_AT_KEYS) => {}
            }
            // The age counts from the question: what was changed while it was answered may be missing.
            let asked_at = self.clock().monotonic();
            match self.engine.store().api_keys().await {
                Ok(keys) => self.keep_keys(ApiKeySet::new(self.hash_key.clone(), keys), asked_at),
                Err(error) => log_failure(&error, "API keys could not be read again; after 30 seconds every request is refused"),
            }
        }
    }

    fn keep_keys(&self, keys: ApiKeySet, asked_at: Timestamp) {
        let unreadable = keys.unreadable();
        if unreadable > self.keys.load().unreadable() {
            warn!(unreadable, "API keys have rows that this version cannot read; they are refused");
        }
        self.keys.store(Arc::new(keys));
        self.keys_read_at.store(asked_at.unix_micros(), Ordering::Relaxed);
    }

    /// How old the list of API keys is.
    pub(crate) fn keys_age(&self) -> Duration {
        self.clock().monotonic().since(Timestamp::from_unix_micros(self.keys_read_at.load(Ordering::Relaxed)))
    }

    /// Whether a key could have been revoked for longer than it may stay accepted.
    pub(crate) fn keys_are_stale(&self) -> bool {
        self.keys_age() > MAX_KEYS_AGE
    }

    /// By itself: whoever writes may have to wait, and a revoked key must not.
    async fn note_used_keys(&self) {
        let mut written: HashMap<String, Timestamp> = HashMap::new();
        loop {
            self.clock().sleep(LOOK_AT_KEYS).await;
            let used = self.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let new: Vec<_> =
                used.iter().filter(|(id, at)| written.get(*id) != Some(at)).map(|(id, at)| (id.clone(), *at)).collect();
            if new.is_empty() {
                continue;
            }
            match self.engine.store().touch_api_keys(new).await {
                Ok(()) => written = used,
                Err(error) => log_failure(&error, "when API keys were used could not be written; it is tried again"),
            }
        }
    }
}

/// Connections at once, the most: each costs memory and a file.
const MAX_CONNECTIONS: u64 = 20_000;

/// Open files that the rest needs: the store, the platform, the CRM.
const RESERVED_FILES: u64 = 400;

/// Which part of all connections one address may have.
const PART_OF_ONE_ADDRESS: usize = 8;

/// As many connections as there may be open files, less those that the rest needs. Behind a proxy all callers have its address.
fn limits(settings: &ServiceSettings) -> Limits {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let most = files.saturating_sub(RESERVED_FILES).max(files / 2).min(MAX_CONNECTIONS);
    let connections = usize::try_from(most).unwrap_or(usize::MAX);
    let shared = settings.behind_proxy || settings.listen.ip().is_loopback();
    let per_address = (!shared).then_some((connections / PART_OF_ONE_ADDRESS).max(1));
    Limits { connections, per_address }
}
