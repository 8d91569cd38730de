//! The test harness: a platform, a clock and a state directory. Engines start and stop on it as
//! processes do.

use std::{path::Path, sync::Arc};

use futures_util::{StreamExt, stream};
use guestlane::{
    CreatedSession, EngineConfig, Error, SessionEngine, StorageConfig, TokenRequestAuth, Workspace,
};
use guestlane_core::{
    request::{Attributes, ContactDetails, IdempotencyKey, SessionRequest},
    surface::Surface,
};
use guestlane_runtime::{Clock, ManualClock, Timestamp};
use guestlane_sim::{
    DEPLOYMENT_ID, EXTERNAL_SOURCE_ID, Entry, Flow, INTEGRATION_ID, Options, Simulator,
};
use guestlane_store::{Database, LogInfo};
use tempfile::TempDir;

use crate::{Backend, config::engine_config};

/// ID of a queue of the simulator.
pub const SALES: &str = "5e0c0000-0000-4000-8000-000000000001";
/// ID of another queue.
pub const SUPPORT: &str = "5e0c0000-0000-4000-8000-000000000002";
/// The key that signs the events of tests.
pub const CRM_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";

/// The surface `web-messaging` of the simulator.
pub const WEB_MESSAGING: Surface = Surface::WebMessaging {
    deployment: DEPLOYMENT_ID,
};
/// The surface `open-messaging` of the simulator.
pub const OPEN_MESSAGING: Surface = Surface::OpenMessaging {
    integration: INTEGRATION_ID,
};

/// A simulated platform, a clock and a state directory.
pub struct TestPlatform {
    /// The simulator.
    pub sim: Simulator,
    /// The clock of the simulator and of all engines. It advances while nothing happens.
    pub clock: ManualClock,
    /// The state directory.
    pub directory: TempDir,
    /// The settings of the engines; tests change them before they start one.
    pub config: EngineConfig,
    /// The database of the store.
    pub backend: Backend,
    /// The URL of the PostgreSQL schema, if the store is there.
    pub postgres: Option<String>,
}

impl TestPlatform {
    /// Creates a platform for `rest`, and an empty store in this database.
    pub async fn new(backend: Backend) -> Self {
        Self::with(backend, |_| {}).await
    }

    /// Registers the guest token keys of another store only, so that the platform refuses all guest
    /// tokens of this one.
    pub async fn register_foreign_keys(&self, backend: Backend) {
        let elsewhere = Self::new(backend).await;
        let keyring = elsewhere.engine().await.keyring();
        let keys = keyring.jwks(self.clock.now()).to_string();
        self.sim.register_guest_keys(&keys).unwrap();
    }

    /// Creates a harness with changed simulator options.
    pub async fn with(backend: Backend, change: impl FnOnce(&mut Options)) -> Self {
        let clock = ManualClock::new(Timestamp::from_unix_micros(1_795_361_029_000_000));
        clock.auto_advance();
        let mut options = Options {
            clock: clock.clone().into(),
            crm_secret: Some(CRM_SECRET.to_owned()),
            quota: None,
            ..Options::default()
        };
        change(&mut options);
        let client = options.clients[0].clone();
        let sim = Simulator::start(options).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let database = backend.new_database(directory.path());
        let storage = StorageConfig::new(database.parse().unwrap(), directory.path());
        let postgres = (backend == Backend::Postgres).then_some(database);
        let config = engine_config(&sim, client, storage, Some(CRM_SECRET));
        Self {
            sim,
            clock,
            directory,
            config,
            backend,
            postgres,
        }
    }

    /// Creates a harness on a surface. The contact is found by the guest ID and linked, and the
    /// inbound flow ignores queues.
    pub async fn on(backend: Backend, surface: &Surface) -> Self {
        let mut platform = Self::with(backend, |options| {
            if surface.is_public_api() {
                options.flow = Flow::Ignores;
                options.queues.reverse(); // the flow's own choice must never be the requested queue
                options.prefetch = false;
            }
        })
        .await;
        platform.config.surface = surface.clone();
        if surface.is_public_api() {
            platform.config.credentials.sign_in = TokenRequestAuth::Basic;
            platform.config.messaging.external_source = Some(EXTERNAL_SOURCE_ID);
            platform.config.messaging.move_to_queue = true;
        }
        platform
    }

    /// Starts an engine, as a process start does.
    pub async fn engine(&self) -> Arc<SessionEngine> {
        self.try_engine().await.unwrap()
    }

    /// Starts an engine, or returns why it refuses to start.
    ///
    /// # Errors
    /// See [`SessionEngine::open`].
    pub async fn try_engine(&self) -> Result<Arc<SessionEngine>, Error> {
        SessionEngine::open(self.config.clone(), self.clock()).await
    }

    /// Lets each call retry 8 times. At a fault rate of 5 %, all 9 attempts fail in one of 5 × 10¹¹
    /// calls; the 4 attempts of the default fail in one of 160 000, so that a test that expects
    /// thousands of calls to succeed would fail now and then.
    pub const fn outlast_random_faults(&mut self) {
        self.config.call_policy.retry.retries = 8;
    }

    /// Returns the clock.
    pub fn clock(&self) -> Clock {
        self.clock.clone().into()
    }

    /// Replaces the faults of the simulator, such as `contact:500:first=1`.
    pub fn faults(&self, specs: &[&str]) {
        self.sim
            .set_faults(specs.iter().map(|spec| spec.parse().unwrap()).collect());
    }

    /// On PostgreSQL: replaces the database's clock by the test's. Nodes compare their clocks with
    /// it.
    pub async fn install_database_clock(&self) {
        if self.postgres.is_some() {
            drop(self.state().await);
            self.sql(
                "CREATE TABLE true_time (us bigint NOT NULL); INSERT INTO true_time VALUES (0); \
                 CREATE OR REPLACE FUNCTION now_us() RETURNS bigint LANGUAGE sql AS 'SELECT us FROM true_time'",
            );
            self.clock.compare_with_others();
            self.set_database_clock();
        }
    }

    /// Sets the database's clock to the true elapsed time.
    pub fn set_database_clock(&self) {
        if self.postgres.is_some() {
            let truth = self.clock().monotonic().unix_micros();
            self.sql(&format!("UPDATE true_time SET us = {truth}"));
        }
    }

    /// Waits until the platform withholds the response to a call.
    pub async fn hanging(&self) {
        while self.sim.state().hanging == 0 {
            tokio::task::yield_now().await;
        }
    }

    /// Returns the requests on a route.
    pub fn journal(&self, route: &str) -> Vec<Entry> {
        self.sim
            .journal()
            .into_iter()
            .filter(|entry| entry.route.is_some_and(|known| known.name() == route))
            .collect()
    }

    /// Returns the records of the first audit log's file.
    pub fn audit(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.audit_path()).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Returns the path of the first audit log's file.
    pub fn audit_path(&self) -> &Path {
        &self.config.storage.audit.path
    }

    /// Opens the stored state, as a process does at its start.
    pub async fn state(&self) -> Workspace {
        Workspace::open(&self.config.storage, &self.clock())
            .await
            .unwrap()
    }

    /// Returns all logs after verification against their files, the key and the other logs. Each
    /// log has all records of the store.
    pub async fn proven_logs(&self) -> Vec<LogInfo> {
        let state = self.state().await;
        let logs = state
            .store
            .logs(self.audit_path(), state.audit_key())
            .await
            .unwrap();
        let kept: Vec<_> = logs
            .iter()
            .flat_map(|log| guestlane_tlog::rotation_checkpoints(&log.path, state.audit_key()))
            .collect();
        for log in &logs {
            assert_eq!(
                guestlane_tlog::verify_log(&log.path, state.audit_key(), &kept).unwrap(),
                log.checkpoint
            );
        }
        logs
    }

    /// Changes the store directly, without the product.
    pub fn sql(&self, sql: &str) {
        match (&self.config.storage.database, &self.postgres) {
            (Database::Sqlite(path), _) => rusqlite::Connection::open(path)
                .unwrap()
                .execute_batch(sql)
                .unwrap(),
            (Database::Postgres(_), url) => crate::execute(url.as_ref().unwrap(), sql),
        }
    }

    /// Returns all bytes that a reader of the store can see.
    pub fn stored_bytes(&self) -> Vec<u8> {
        match (&self.config.storage.database, &self.postgres) {
            (Database::Sqlite(path), _) => std::fs::read(path).unwrap(),
            (Database::Postgres(_), url) => {
                let url = url.as_ref().unwrap();
                let tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()";
                let tables = crate::column(url, tables);
                assert!(tables.len() > 10, "{tables:?}");
                let rows = |table: &String| {
                    crate::column(url, &format!("SELECT t::text FROM {table} AS t"))
                };
                tables
                    .iter()
                    .flat_map(rows)
                    .flat_map(String::into_bytes)
                    .collect()
            }
        }
    }

    /// Returns the numbers of the logs that are not full. A SQLite store is read from its copy in
    /// `state`.
    pub fn open_logs(&self, state: &Path) -> Vec<u32> {
        let select = "SELECT log FROM audit_log WHERE closed_at IS NULL";
        match &self.postgres {
            Some(url) => crate::column(url, select)
                .iter()
                .map(|log| log.parse().unwrap())
                .collect(),
            None => {
                let store = rusqlite::Connection::open(state.join("guestlane.db")).unwrap();
                let mut open = store.prepare(select).unwrap();
                let logs = open.query_map([], |row| row.get(0)).unwrap();
                logs.map(Result::unwrap).collect()
            }
        }
    }

    /// Asserts that each guest has one contact and one conversation, and that nothing exists twice.
    pub fn assert_each_guest_once(&self, guests: u64) {
        let state = self.sim.state();
        assert_eq!(
            (state.contacts, state.conversations, state.guests),
            (guests, guests, guests)
        );
        assert_eq!(state.duplicates, guestlane_sim::Duplicates::default());
    }
}

/// Returns a request whose idempotency key is derived from the guest ID.
pub fn request(guest: &str) -> SessionRequest {
    SessionRequest {
        guest: guest.parse().unwrap(),
        contact_details: ContactDetails::default(),
        queue: SALES.parse().unwrap(),
        attributes: Attributes::from_pairs([("source", "web-portal"), ("tier", "premium")])
            .unwrap(),
        key: format!("key-of-{guest}").parse().unwrap(),
    }
}

/// Returns a request with a new idempotency key.
pub fn fresh(guest: &str) -> SessionRequest {
    SessionRequest {
        key: IdempotencyKey::generate(),
        ..request(guest)
    }
}

/// Creates sessions for `guests` guests, `at_once` of them concurrently.
pub async fn create_many(
    engine: &Arc<SessionEngine>,
    guests: usize,
    at_once: usize,
) -> Vec<Result<CreatedSession, Error>> {
    stream::iter(0..guests)
        .map(|n| {
            let engine = Arc::clone(engine);
            async move { engine.create(request(&format!("guest-{n}"))).await }
        })
        .buffer_unordered(at_once)
        .collect()
        .await
}

/// Returns a number from the environment, for longer runs.
#[expect(clippy::disallowed_methods, reason = "a setting of tests")]
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().unwrap())
}

/// Prints a line, which `--nocapture` shows.
#[expect(
    clippy::disallowed_macros,
    clippy::print_stdout,
    reason = "a test may, and here it does"
)]
pub fn tell(line: &str) {
    println!("{line}");
}
