//! The session engine: store, keys, platform client and outbox, opened once per process.

mod config;
mod create;
mod organization;
pub(crate) mod queues;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use guestlane_core::{
    api_key::ApiKeyHasher,
    request::QueueId,
    session::{LEASE_RENEW_INTERVAL, SessionRecord},
    surface::Surface,
    token::{Keyring, RotationPolicy},
};
use guestlane_genesys::{
    ApiPath, CallContext, ClientMetrics, ClientUsage, ErrorCounts, GenesysClient, Rate,
};
use guestlane_runtime::{Clock, FailPoint, FailPoints};
use guestlane_store::{Database, Store};
use guestlane_tlog::{Checkpoint, NoteSigner, VerifierKey, checkpoint_path, lines_path};
use tokio::{sync::broadcast, task::JoinSet};
use tracing::{error, info};

pub use config::{EngineConfig, WebhookConfig};
pub use create::CreatedSession;
use organization::OrganizationBinding;
use queues::QueueCache;

use crate::{
    Error, Workspace,
    error::Diagnosis,
    keyring_cache::KeyringCache,
    lease_registry::LeaseRegistry,
    metrics::{ErrorCounters, SessionMetrics},
    outbox::Outbox,
    saga::SagaExecutor,
    workspace::api_key_hash,
};

/// Creates, resumes and looks up sessions. One engine lives as long as its process.
#[derive(Debug)]
pub struct SessionEngine {
    pub(crate) saga: SagaExecutor,
    pub(crate) surface: Surface,
    pub(crate) deadline: Duration,
    pub(crate) organization: OrganizationBinding,
    pub(crate) key_rotation_policy: RotationPolicy,
    /// The number of values sealed under the master key, as the store had it when this process last
    /// added to it.
    pub(crate) counted_seals: AtomicU64,
    pub(crate) keep_sessions: Option<Duration>,
    pub(crate) database: Database,
    /// Describes the errors that are stored and counted.
    pub(crate) diagnose: fn(&Error) -> Diagnosis,
    audit_key: VerifierKey,
    audit_signer: Arc<NoteSigner>,
    audit_log: PathBuf,
    /// Tasks that end with the engine: they renew leases, compare clocks and reload keys.
    _tasks: JoinSet<()>,
}

/// Capacity of the channel behind [`SessionEngine::subscribe`]; a slower subscriber loses events.
const EVENT_BUFFER: usize = 1024;

/// How often the local clock and the database's clock are compared.
const MEASURE_CLOCK_EVERY: Duration = Duration::from_secs(10);

impl SessionEngine {
    /// Opens the store, the keys, the platform client and the outbox. Sends nothing to the platform
    /// yet.
    ///
    /// The clock of the engine is that of the opened store. The engine spawns tasks that renew
    /// leases, compare clocks and reload signing keys; they end when the engine is dropped. Run
    /// [`Workers`](crate::Workers) besides it.
    ///
    /// # Errors
    /// Returns an error if the store, the master key, the keyring or the audit log cannot be
    /// opened. The same holds for TLS roots, and for a store that belongs to another platform.
    ///
    /// # Panics
    /// Panics outside a tokio runtime.
    pub async fn open(config: EngineConfig, clock: Clock) -> Result<Arc<Self>, Error> {
        let state = Workspace::open(&config.storage, &clock).await?;
        let clock = state.store.clock();
        let api = config.credentials.hosts.api.clone();
        if config.surface.is_public_api() {
            // The store is bound to this platform only after the platform has answered.
            state.check_platform_binding(&api).await?;
        } else {
            state.bind_platform(&api).await?;
        }
        let fail_points = config.storage.fail_points();
        fail_points.hit(FailPoint::PlatformStored).await;
        let platform = GenesysClient::new(
            &config.credentials,
            config.call_policy,
            clock.clone(),
            fail_points.clone(),
        )?;
        if let Some(fleet) = state
            .store
            .coordinator(Arc::clone(&state.master), clock.clone())
        {
            platform.set_coordinator(&fleet);
        }
        let platform = Arc::new(platform);
        let outbox = match config.webhooks {
            Some(crm) => Some(Outbox::open(&state, &crm, clock.clone()).await?),
            None => None,
        };
        state
            .store
            .release_stale_initial_leases(clock.now())
            .await?;
        let errors = ErrorCounters::new(
            state.store.error_counts().await?,
            Arc::clone(platform.stats()),
        );
        let counted_seals = AtomicU64::new(state.store.seals(&state.master.id()).await?);
        let audit_key = state.audit_key().clone();
        let keys = KeyringCache::new(
            state.keyring,
            Arc::clone(&state.master),
            state.store.clone(),
        );
        let leases = LeaseRegistry::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(renew_leases(
            leases.clone(),
            state.store.clone(),
            clock.clone(),
            fail_points.clone(),
        ));
        tasks.spawn(measure_clock(state.store.clone()));
        tasks.spawn(keys.clone().reload_loop(clock.clone()));
        Ok(Arc::new(Self {
            diagnose: config.diagnose,
            organization: OrganizationBinding::new(api, &config.credentials.clients),
            saga: SagaExecutor {
                queues: QueueCache::new(Arc::clone(&platform), clock.clone(), config.deadline),
                clock,
                platform,
                messaging: config.messaging,
                store: state.store,
                master: state.master,
                keys,
                outbox,
                leases,
                errors,
                metrics: SessionMetrics::default(),
                changes: broadcast::channel(EVENT_BUFFER).0,
                fail_points,
            },
            surface: config.surface,
            deadline: config.deadline,
            key_rotation_policy: config.key_rotation,
            counted_seals,
            keep_sessions: config.retention,
            database: config.storage.database,
            audit_key,
            audit_signer: state.audit_signer,
            audit_log: config.storage.audit.path,
            _tasks: tasks,
        }))
    }

    /// The store of sessions, audit records and events.
    pub fn store(&self) -> &Store {
        &self.saga.store
    }

    /// The current keyring. Another process may rotate or revoke a key at any time.
    pub fn keyring(&self) -> Arc<Keyring> {
        self.saga.keys.ring()
    }

    /// The schedule of signing key rotation.
    pub fn key_schedule(&self) -> RotationPolicy {
        self.key_rotation_policy
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
        self.saga.outbox.as_ref()
    }

    /// Latencies and failures of the sessions of this process.
    pub fn metrics(&self) -> &SessionMetrics {
        &self.saga.metrics
    }

    /// Subscribes to the sessions of this process: each session is sent when it opens, fails, or is
    /// parked or backed off. A receiver that is slow loses the oldest events.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<SessionRecord>> {
        self.saga.changes.subscribe()
    }

    /// The clock that all parts of the engine use.
    pub fn clock(&self) -> &Clock {
        &self.saga.clock
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
        self.saga.errors.totals()
    }

    /// The secret under which API keys are hashed.
    ///
    /// # Errors
    /// Returns an error if the store fails, or the master key does not open the secret.
    pub async fn api_key_hash(&self) -> Result<ApiKeyHasher, Error> {
        api_key_hash(&self.saga.store, &self.saga.master).await
    }

    /// How long calls to the platform have been failing, if the circuit breaker is open. Returns
    /// `None` if it is closed.
    pub fn platform_down_for(&self) -> Option<Duration> {
        self.saga.platform.pulse().open_for()
    }

    /// Metrics of the calls to the platform.
    pub fn platform_metrics(&self) -> &ClientMetrics {
        self.saga.platform.stats()
    }

    /// Sends one probe request for a queue. Any response but a server error closes the circuit
    /// breaker, so an outage ends without user traffic.
    pub async fn probe_platform(&self, queue: QueueId) {
        let context = CallContext::until(self.saga.clock.now() + self.deadline);
        match self
            .saga
            .platform
            .probe_get(
                ApiPath::new("/api/v2/routing/queues").segment(queue),
                &context,
            )
            .await
        {
            Ok(seen) if !seen.status.is_server_error() => {
                self.saga.platform.pulse().record_success()
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// Replaces the secrets of OAuth clients and returns the number of secrets that changed.
    /// Clients that are not in use are ignored.
    pub fn set_client_secrets(&self, clients: &[guestlane_genesys::OAuthClient]) -> usize {
        self.saga.platform.set_secrets(clients)
    }

    /// Replaces the rate limit of each OAuth client. `None` removes the limit.
    pub fn set_rate_limit(&self, quota: Option<Rate>) {
        self.saga.platform.set_quota(quota);
    }

    /// Usage of the rate limit, for each OAuth client.
    pub fn client_usage(&self) -> Vec<ClientUsage> {
        self.saga.platform.clients()
    }

    /// Writes the counters that no later transition will store. Call it before the process ends.
    ///
    /// # Errors
    /// Returns an error if the store fails.
    pub async fn flush_counters(&self) -> Result<(), Error> {
        self.count_seals().await;
        Ok(self.saga.store.add_errors(self.saga.errors.take()).await?)
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
async fn renew_leases(leases: LeaseRegistry, store: Store, clock: Clock, fail_points: FailPoints) {
    loop {
        clock.sleep(LEASE_RENEW_INTERVAL).await;
        let held = leases.leases();
        if held.is_empty() {
            continue;
        }
        match store.renew_leases(held, clock.now()).await {
            Ok(()) => fail_points.hit(FailPoint::LeasesRenewed).await,
            Err(error) => guestlane_store::log_failure(
                &error,
                "failed to renew session leases; another process may claim the sessions",
            ),
        }
    }
}
