//! The session engine: store, keys, platform client and outbox, opened once per process.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, future::Shared, stream};
use guestlane_genesys::{
    ApiPath, AttemptError, AttemptLog, BaseUrl, CallError, CallPolicy, ClientMetrics, ClientUsage,
    Credentials, ErrorCounts, GenesysClient, Operation, Priority, Rate,
};
use guestlane_runtime::{Clock, FailPoint, FailPoints, Timestamp, TlsRoots};
use http::StatusCode;
use secrecy::SecretString;
use tokio::sync::{OnceCell, broadcast};
use tracing::{error, info, warn};
use url::Url;

use crate::{
    error::{Error, SessionOutcome},
    executor::CreatedSession,
    key_rotation::KeyringCache,
    lease_registry::LeaseRegistry,
    messaging::MessagingConfig,
    metrics::{ErrorCounters, SessionMetrics},
    outbox::Outbox,
    tenant_binding,
    workspace::{StorageConfig, Workspace, api_key_hash, new_guest_session},
};
use guestlane_core::{
    api_key::ApiKeyHasher,
    audit::{AuditRecord, Status},
    request::{QueueId, SessionRequest},
    session::{Failure, LEASE_RENEW_INTERVAL, SessionContext, SessionRecord, SurfaceBinding},
    surface::Surface,
    token::{Keyring, MasterKey, RotationPolicy, TokenIdentity},
};
use guestlane_runtime::ssrf::EgressPolicy;
use guestlane_store::{BeginOutcome, Database, Store};
use guestlane_tlog::{Checkpoint, NoteSigner, VerifierKey, checkpoint_path, lines_path};

/// Settings of the outbox: where webhooks go, and how they are signed.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    /// URLs of the endpoints. Each event is sent to each of them.
    pub urls: Vec<Url>,
    /// Signing keys in the format of `CRM_WEBHOOK_SECRET`: one entry for all endpoints, or one
    /// entry for each, separated by spaces. If `None`, the store generates and keeps a secret for
    /// each endpoint.
    pub secret: Option<SecretString>,
    /// Networks that webhooks may reach (protection against SSRF).
    pub networks: EgressPolicy,
    /// Root certificates that are trusted for the endpoints.
    pub trust: TlsRoots,
}

/// Settings of a [`SessionEngine`].
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Hosts of the platform, and the OAuth clients that sign in there.
    pub credentials: Credentials,
    /// Timeouts and retries of calls to the platform.
    pub patience: CallPolicy,
    /// Time limit of one call of [`SessionEngine::create`].
    pub deadline: Duration,
    /// API of the platform that opens conversations.
    pub surface: Surface,
    /// Settings that only the surfaces of the public platform use.
    pub cloud: MessagingConfig,
    /// Places of the store, the audit log and the master key.
    pub places: StorageConfig,
    /// How long completed sessions are kept. `None` keeps them without limit.
    pub keep_sessions: Option<Duration>,
    /// When signing keys are rotated.
    pub keys: RotationPolicy,
    /// Webhooks. `None` disables the outbox.
    pub crm: Option<WebhookConfig>,
}

/// Creates, resumes and looks up sessions. One engine lives as long as its process.
#[derive(Debug)]
pub struct SessionEngine {
    pub(crate) clock: Clock,
    pub(crate) deadline: Duration,
    pub(crate) platform: Arc<GenesysClient>,
    pub(crate) api: BaseUrl,
    pub(crate) client_ids: String,
    pub(crate) organization: OnceCell<()>,
    pub(crate) surface: Surface,
    pub(crate) cloud: MessagingConfig,
    pub(crate) master: Arc<MasterKey>,
    /// The number of values sealed under the master key, as the store had it when this process last
    /// added to it.
    pub(crate) counted_seals: AtomicU64,
    pub(crate) keys: KeyringCache,
    pub(crate) key_schedule: RotationPolicy,
    pub(crate) store: Store,
    pub(crate) errors: ErrorCounters,
    pub(crate) figures: SessionMetrics,
    pub(crate) news: broadcast::Sender<Arc<SessionRecord>>,
    pub(crate) outbox: Option<Outbox>,
    pub(crate) driving: LeaseRegistry,
    pub(crate) fail_points: FailPoints,
    pub(crate) keep_sessions: Option<Duration>,
    pub(crate) database: Database,
    audit_key: VerifierKey,
    audit_signer: Arc<NoteSigner>,
    audit_log: PathBuf,
    queues: Mutex<HashMap<QueueId, QueueCacheEntry>>,
    heartbeat: tokio::task::JoinHandle<()>,
    measuring_clock: tokio::task::JoinHandle<()>,
    reading_keys: tokio::task::JoinHandle<()>,
}

type InFlightLookup = Shared<BoxFuture<'static, Result<(), CallError>>>;

#[derive(Debug, Clone)]
enum QueueCacheEntry {
    Exists { until: Timestamp },
    Fetching(InFlightLookup),
}

/// Capacity of the channel behind [`SessionEngine::subscribe`]; a slower subscriber loses events.
const EVENT_BUFFER: usize = 1024;

/// How long a queue that exists is not looked up again (requirement R14, docs/requirements.md).
const QUEUE_CACHE_TTL: Duration = Duration::from_secs(300);

/// How often a caller polls a session whose lease another caller holds.
const WAIT_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How often the recovery worker looks for abandoned sessions.
const RECOVER_EVERY: Duration = Duration::from_millis(500);

/// How often the local clock and the database's clock are compared.
const MEASURE_CLOCK_EVERY: Duration = Duration::from_secs(10);

/// How many abandoned sessions are resumed concurrently.
const RECOVERY_CONCURRENCY: u32 = 32;

impl SessionEngine {
    /// Opens the store, the keys, the platform client and the outbox. Sends nothing to the platform
    /// yet.
    ///
    /// The clock of the engine is that of the opened store. The engine spawns tasks that renew
    /// leases, compare clocks and reload signing keys; they end when the engine is dropped.
    /// [`SessionEngine::run_background_tasks`] is not started.
    ///
    /// # Errors
    /// Returns an error if the store, the master key, the keyring or the audit log cannot be
    /// opened. The same holds for TLS roots, and for a store that belongs to another platform.
    ///
    /// # Panics
    /// Panics outside a tokio runtime.
    pub async fn open(config: EngineConfig, clock: Clock) -> Result<Arc<Self>, Error> {
        let state = Workspace::open(&config.places, &clock).await?;
        let clock = state.store.clock();
        if config.surface.is_public_api() {
            // The store is bound to this platform only after the platform has answered.
            state
                .check_platform_binding(&config.credentials.hosts.api)
                .await?;
        } else {
            state.bind_platform(&config.credentials.hosts.api).await?;
        }
        let fail_points = config.places.fail_points.clone();
        fail_points.hit(FailPoint::PlatformStored).await;
        let platform = GenesysClient::new(
            &config.credentials,
            config.patience,
            clock.clone(),
            fail_points.clone(),
        )?;
        if let Some(fleet) = state.store.fleet(Arc::clone(&state.master), clock.clone()) {
            platform.set_coordinator(&fleet);
        }
        let platform = Arc::new(platform);
        let outbox = match config.crm {
            Some(crm) => Some(Outbox::open(&state, &crm, clock.clone()).await?),
            None => None,
        };
        state
            .store
            .release_stale_initial_leases(clock.now())
            .await?;
        let audit_key = state.audit_key().clone();
        let errors = ErrorCounters::new(
            state.store.error_counts().await?,
            Arc::clone(platform.stats()),
        );
        let driving = LeaseRegistry::default();
        let heartbeat = tokio::spawn(renew_leases(
            driving.clone(),
            state.store.clone(),
            clock.clone(),
            fail_points.clone(),
        ));
        let measuring_clock = tokio::spawn(measure_clock(state.store.clone()));
        let counted_seals = AtomicU64::new(state.store.seals(&state.master.id()).await?);
        let keys = KeyringCache::new(
            state.keyring,
            Arc::clone(&state.master),
            state.store.clone(),
        );
        let reading_keys = tokio::spawn(keys.clone().reload_loop(clock.clone()));
        Ok(Arc::new(Self {
            clock,
            deadline: config.deadline,
            platform,
            api: config.credentials.hosts.api,
            client_ids: tenant_binding::client_set_key(&config.credentials.clients),
            organization: OnceCell::new(),
            surface: config.surface,
            cloud: config.cloud,
            master: state.master,
            counted_seals,
            keys,
            key_schedule: config.keys,
            store: state.store,
            errors,
            figures: SessionMetrics::default(),
            news: broadcast::channel(EVENT_BUFFER).0,
            outbox,
            driving,
            fail_points,
            keep_sessions: config.keep_sessions,
            database: config.places.database,
            audit_key,
            audit_signer: state.audit_signer,
            audit_log: config.places.audit.path,
            queues: Mutex::default(),
            heartbeat,
            measuring_clock,
            reading_keys,
        }))
    }

    /// The store of sessions, audit records and events.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The current keyring. Another process may rotate or revoke a key at any time.
    pub fn keyring(&self) -> Arc<Keyring> {
        self.keys.ring()
    }

    /// The schedule of signing key rotation.
    pub fn key_schedule(&self) -> RotationPolicy {
        self.key_schedule
    }

    /// The public key that verifies the checkpoints of the audit log.
    pub fn audit_key(&self) -> &VerifierKey {
        &self.audit_key
    }

    /// The number of records that the checkpoint file of audit log number `log` covers. Returns
    /// `None` if the file does not exist, cannot be read, or does not verify.
    pub fn audit_signed(&self, log: u32) -> Option<u64> {
        let note =
            std::fs::read_to_string(checkpoint_path(&lines_path(&self.audit_log, log))).ok()?;
        Some(Checkpoint::open(&note, &self.audit_key).ok()?.size)
    }

    /// Signs a checkpoint with the key of the audit log.
    pub fn sign_checkpoint(&self, checkpoint: &Checkpoint) -> String {
        checkpoint.sign(&self.audit_signer)
    }

    /// The path of the first audit log file.
    pub fn audit_log(&self) -> &Path {
        &self.audit_log
    }

    /// The outbox, if webhooks are configured.
    pub fn outbox(&self) -> Option<&Outbox> {
        self.outbox.as_ref()
    }

    /// Latencies and failures of the sessions of this process.
    pub fn metrics(&self) -> &SessionMetrics {
        &self.figures
    }

    /// Subscribes to the sessions of this process: each session is sent when it opens, fails, or is
    /// parked or backed off. A receiver that is slow loses the oldest events.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<SessionRecord>> {
        self.news.subscribe()
    }

    /// The clock that all parts of the engine use.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// API of the platform that opens conversations.
    pub fn surface(&self) -> &Surface {
        &self.surface
    }

    /// Time limit of one call of [`create`](Self::create).
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Error counters by category, summed over this process and those before it (requirement R12,
    /// docs/requirements.md).
    pub fn error_counts(&self) -> ErrorCounts {
        self.errors.totals()
    }

    /// The secret under which API keys are hashed.
    ///
    /// # Errors
    /// Returns an error if the store fails, or the master key does not open the secret.
    pub async fn api_key_hash(&self) -> Result<ApiKeyHasher, Error> {
        api_key_hash(&self.store, &self.master).await
    }

    /// How long calls to the platform have been failing, if the circuit breaker is open. Returns
    /// `None` if it is closed.
    pub fn platform_down_for(&self) -> Option<Duration> {
        self.platform.pulse().open_for()
    }

    /// Metrics of the calls to the platform.
    pub fn stats(&self) -> &ClientMetrics {
        self.platform.stats()
    }

    /// Checks that the queue exists (requirement R14, docs/requirements.md). No call is made if the
    /// cache has the queue, or if the idempotency key was admitted before. A failed lookup is
    /// recorded in the audit log.
    pub(crate) async fn verify_queue(&self, request: &SessionRequest) -> Result<(), Error> {
        let now = self.clock.now();
        let known = self
            .queues
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&request.queue)
            .cloned();
        if matches!(known, Some(QueueCacheEntry::Exists { until }) if now < until) {
            return Ok(());
        }
        if self.store.find_by_key(request.key.clone()).await?.is_some() {
            return Ok(());
        }
        match self.fetch_queue(request.queue).await {
            Ok(()) => {
                self.fail_points.hit(FailPoint::QueueLookedUp).await;
                Ok(())
            }
            Err(failed) => {
                let error = queue_error(request.queue, failed);
                let advice = error.advice();
                let text = format!("{}: {}", advice.code, error.redacted());
                let entry = AuditRecord::refused(
                    &request.guest,
                    request.queue,
                    text,
                    self.errors.totals(),
                    self.clock.now(),
                );
                self.store.record_refusal(entry, self.errors.take()).await?;
                self.fail_points.hit(FailPoint::RefusalStored).await;
                Err(error)
            }
        }
    }

    /// Removes a queue from the cache, so that the next session looks it up again.
    pub(crate) fn forget_queue(&self, queue: QueueId) {
        self.queues
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&queue);
    }

    /// Looks a queue up, in single flight: concurrent callers share one call.
    async fn fetch_queue(&self, queue: QueueId) -> Result<(), CallError> {
        let asking = {
            let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            match queues.get(&queue) {
                Some(QueueCacheEntry::Exists { until }) if self.clock.now() < *until => {
                    return Ok(());
                }
                Some(QueueCacheEntry::Fetching(asking)) if asking.peek().is_none() => {
                    asking.clone()
                }
                _ => {
                    // The call runs in a task with its own deadline: the first caller may drop its
                    // future, and the other callers must still get a result.
                    let (platform, deadline) =
                        (Arc::clone(&self.platform), self.clock.now() + self.deadline);
                    let asking =
                        tokio::spawn(
                            async move { platform.queue(queue.0, deadline).await.map(drop) },
                        );
                    let asking = asking
                        .map(|ended| ended.unwrap_or_else(|_| Err(interrupted())))
                        .boxed()
                        .shared();
                    queues.insert(queue, QueueCacheEntry::Fetching(asking.clone()));
                    asking
                }
            }
        };
        let answer = asking.await;
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        match &answer {
            Ok(()) => queues.insert(
                queue,
                QueueCacheEntry::Exists {
                    until: self.clock.now() + QUEUE_CACHE_TTL,
                },
            ),
            Err(_) => queues.remove(&queue),
        };
        answer
    }

    /// Sends one probe request for a queue. Any response but a server error closes the circuit
    /// breaker, so an outage ends without user traffic.
    pub async fn probe_platform(&self, queue: QueueId) {
        let deadline = self.clock.now() + self.deadline;
        match self
            .platform
            .probe_get(
                ApiPath::new("/api/v2/routing/queues").segment(queue),
                deadline,
            )
            .await
        {
            Ok(seen) if !seen.status.is_server_error() => self.platform.pulse().record_success(),
            Ok(_) | Err(_) => {}
        }
    }

    /// Replaces the secrets of OAuth clients and returns the number of secrets that changed.
    /// Clients that are not in use are ignored.
    pub fn set_client_secrets(&self, clients: &[guestlane_genesys::OAuthClient]) -> usize {
        self.platform.set_secrets(clients)
    }

    /// Replaces the rate limit of each OAuth client. `None` removes the limit.
    pub fn set_quota(&self, quota: Option<Rate>) {
        self.platform.set_quota(quota);
    }

    /// Usage of the rate limit, for each OAuth client.
    pub fn clients(&self) -> Vec<ClientUsage> {
        self.platform.clients()
    }

    /// Claims the idempotency key: stores a new session, or finds the existing one.
    ///
    /// If the audit file cannot be written, the attempt ends here, before anything is created. A
    /// session that may have succeeded on the platform before is still returned, so that it is not
    /// hidden.
    pub(crate) async fn begin_session(
        &self,
        request: &SessionRequest,
    ) -> Result<BeginOutcome, Error> {
        let now = self.clock.now();
        let identity = TokenIdentity::new(self.keyring().active(now).kid(), now);
        let admitted = self
            .store
            .begin(
                request.clone(),
                self.session_context(request)?,
                identity,
                self.errors.totals(),
                now,
            )
            .await?;
        match (admitted.value, admitted.audit) {
            (BeginOutcome::Acquired(session), Err(error)) if !session.may_have_succeeded() => {
                let failure = Failure {
                    code: "audit_unavailable".to_owned(),
                    message: guestlane_runtime::text::display_chain(&*error),
                };
                let after = session.clone().refused(failure, 0)?;
                self.commit(self.transition(&session, after, Some(Status::Failed)))
                    .await?;
                Err(Error::Audit(error))
            }
            (admission, _) => {
                self.fail_points.hit(FailPoint::Admitted).await;
                if let BeginOutcome::Acquired(session) | BeginOutcome::InProgress(session) =
                    &admission
                    && let Some(trail) = AttemptLog::current()
                {
                    trail.mark_admitted(session.id.0);
                }
                Ok(admission)
            }
        }
    }

    /// The surface of a new session, with what must be stored before its first call.
    fn session_context(&self, request: &SessionRequest) -> Result<SessionContext, Error> {
        let way = match self.surface {
            Surface::Rest => SurfaceBinding::Rest,
            Surface::WebMessaging { deployment } => SurfaceBinding::WebMessaging {
                deployment,
                token: new_guest_session(&self.master)?,
            },
            Surface::OpenMessaging { integration } => SurfaceBinding::OpenMessaging { integration },
        };
        let contact_without_identifier =
            self.surface.is_public_api() && self.cloud.identifiers(request).is_empty();
        Ok(SessionContext {
            way,
            contact_without_identifier,
            trace: AttemptLog::current().and_then(|trail| trail.parent()),
        })
    }

    /// Waits until the session is finished, or its lease expires.
    pub(crate) async fn wait_until_released(
        &self,
        session: &SessionRecord,
        deadline: Timestamp,
    ) -> Result<(), Error> {
        let mut held = session.clone();
        while held.state.is_unfinished() && held.is_leased(self.clock.now()) {
            if self.clock.now() >= deadline {
                return Err(Error::InProgress {
                    session: held.id,
                    retry_at: held.due_at,
                });
            }
            self.clock.sleep(WAIT_POLL_INTERVAL).await;
            match self.store.session(session.id).await? {
                Some(now) => held = now,
                None => break,
            }
        }
        Ok(())
    }

    /// Claims sessions that no process is running, resumes each, and returns the results. Returns
    /// an empty vector if there are none.
    ///
    /// # Errors
    /// Returns an error if the store fails or the organization cannot be checked. The result of
    /// each session is in the vector.
    pub async fn recover_abandoned(
        self: &Arc<Self>,
    ) -> Result<Vec<Result<CreatedSession, Error>>, Error> {
        if self.store.unfinished().await? == 0 {
            return Ok(Vec::new());
        }
        self.check_organization(self.clock.now() + self.deadline)
            .await?;
        // Resuming a session makes calls again. On a failing platform, the retry budget bounds them
        // like any other retry.
        let budget = self.platform.budget();
        let paid = budget.withdraw(RECOVERY_CONCURRENCY);
        let taken = if paid == 0 {
            Vec::new()
        } else {
            self.store.claim_due(paid, self.clock.now()).await?
        };
        budget.refund(paid - u32::try_from(taken.len()).unwrap_or(paid).min(paid));
        if !taken.is_empty() {
            self.fail_points.hit(FailPoint::TakenUp).await;
        }
        let driven = stream::iter(taken).map(|session| {
            let engine = Arc::clone(self);
            async move {
                let driven = Priority::Background.scope(engine.resume(session)).await;
                if driven.is_ok() {
                    engine.platform.budget().refund(1);
                }
                driven
            }
        });
        Ok(driven
            .buffer_unordered(RECOVERY_CONCURRENCY as usize)
            .collect()
            .await)
    }

    /// Runs the background work of a process; the future never completes. It resumes abandoned
    /// sessions, delivers webhooks, deletes sessions whose retention is over, rotates signing keys,
    /// and counts sealed values.
    pub async fn run_background_tasks(self: Arc<Self>) {
        let recover = async {
            loop {
                match self.recover_abandoned().await {
                    Ok(driven) => {
                        for error in driven.iter().filter_map(|driven| driven.as_ref().err()) {
                            warn!(
                                error = error.redacted(),
                                session = error.session().map(|id| id.to_string()),
                                correlation_id = error.correlation_id(),
                                "failed to complete an unfinished session"
                            );
                        }
                    }
                    Err(error) => guestlane_store::log_failure(
                        &error,
                        "failed to look up unfinished sessions; retrying",
                    ),
                }
                self.clock.sleep(RECOVER_EVERY).await;
            }
        };
        let deliver = async {
            match &self.outbox {
                Some(outbox) => outbox.run().await,
                None => std::future::pending().await,
            }
        };
        tokio::join!(
            recover,
            deliver,
            self.prune_loop(),
            self.rotation_loop(),
            self.keep_counting_seals()
        );
    }

    /// Writes the counters that no later transition will store. Call it before the process ends.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn flush_outbox(&self) -> Result<(), Error> {
        self.count_seals().await;
        Ok(self.store.add_errors(self.errors.take()).await?)
    }
}

impl Drop for SessionEngine {
    fn drop(&mut self) {
        self.heartbeat.abort();
        self.measuring_clock.abort();
        self.reading_keys.abort();
    }
}

/// Compares the local clock with the database's clock periodically. Runs until it is aborted.
async fn measure_clock(store: Store) {
    let clock = store.clock();
    let mut may_claim = true;
    loop {
        clock.sleep(MEASURE_CLOCK_EVERY).await;
        if let Err(error) = store.measure_clock().await {
            guestlane_store::log_failure(
                &error,
                "failed to compare the clocks; keeping the last result",
            );
        }
        let offset = store.clock_offset();
        match (may_claim, store.may_claim()) {
            (true, false) => error!(
                offset,
                "this machine's clock differs from the database's; pausing claims and retention"
            ),
            (false, true) => info!(
                offset,
                "this machine's clock agrees with the database's again; resuming claims and retention"
            ),
            (true, true) | (false, false) => {}
        }
        may_claim = store.may_claim();
    }
}

/// Renews the leases of the sessions that this process is running.
async fn renew_leases(driving: LeaseRegistry, store: Store, clock: Clock, fail_points: FailPoints) {
    loop {
        clock.sleep(LEASE_RENEW_INTERVAL).await;
        let leases = driving.leases();
        if leases.is_empty() {
            continue;
        }
        match store.renew_leases(leases, clock.now()).await {
            Ok(()) => fail_points.hit(FailPoint::LeasesRenewed).await,
            Err(error) => guestlane_store::log_failure(
                &error,
                "failed to renew session leases; another process may claim the sessions",
            ),
        }
    }
}

/// The error of a queue lookup whose task ended because the runtime shut down.
fn interrupted() -> CallError {
    CallError::not_sent(Operation::Queue, "the process is shutting down")
}

fn queue_error(queue: QueueId, failed: CallError) -> Error {
    let refusal = failed.cause.refusal();
    let unknown = refusal.is_some_and(|refusal| {
        matches!(
            refusal.status,
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST
        )
    });
    let signed_in = !matches!(failed.cause, AttemptError::AuthenticationFailed(_));
    if unknown && signed_in {
        let correlation_id = failed.cause.correlation_id().cloned();
        return Error::UnknownQueue {
            queue,
            correlation_id,
        };
    }
    Error::Platform {
        session: None,
        then: SessionOutcome::NothingCreated,
        failed,
    }
}
