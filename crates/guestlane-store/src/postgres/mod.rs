//! The store in PostgreSQL (13 or newer): any number of processes, on any machine, share it.
//!
//! What the audit log tells of goes through one thread, which commits together whatever is waiting. The rest is asked and written by a few
//! others. Each thread has one connection, and waits for its answers: the order of things is as plain as in a file.

mod api_keys;
mod batches;
mod begin;
mod calls;
mod clock;
mod connection;
mod connection_pool;
mod coordinator;
mod counters;
mod deliveries;
mod endpoints;
mod gauges;
mod guests;
mod keys;
mod listen;
mod log;
mod migrations;
mod prune;
mod records;
mod retention;
mod rows;
mod sealed;
mod sessions;
mod trial;
mod unrecorded;
mod writer;

use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use guestlane_runtime::{Clock, FailPoints, ReferenceClock};
use tokio::sync::watch;
use tokio_postgres::error::SqlState;

use super::{
    AuditSettings, BenchOverrides, PostgresUrl, ReadLimits, StoreError, StoreInfo,
    write_health::WriteHealth,
};
pub(super) use connection::Connection;
use connection::DbResult;
use connection_pool::ConnectionPool;
use guestlane_tlog::NoteSigner;
pub(super) use log::NodeIdentity;
pub(super) use migrations::{LOCK, run as migrate};
pub use trial::KeptSecret;
use writer::Writer;

/// The store in a database. Cheap to clone; closed when the last clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct Postgres {
    writer: Writer,
    workers: ConnectionPool,
    /// For what cannot wait for a look through millions of rows: leases, slices, tokens.
    urgent: ConnectionPool,
    home: NodeIdentity,
    url: PostgresUrl,
    /// The number of its table of secrets in the database.
    pub(super) table: i64,
    /// The database's time.
    clock: Clock,
    /// This node's own clock.
    base: Clock,
    reference: ReferenceClock,
    changes: Arc<OnceLock<watch::Receiver<u64>>>,
    fail_points: FailPoints,
}

impl Postgres {
    /// Waits for the database for a while, as whoever starts both at once wants it.
    pub(crate) async fn open(
        url: &PostgresUrl,
        home: &Path,
        health: &WriteHealth,
        clock: &Clock,
        fail_points: &FailPoints,
    ) -> DbResult<Self> {
        let home = NodeIdentity::in_directory(home.to_owned())?;
        let reference = ReferenceClock::new(clock.clone());
        let (at, machine, measured) = (url.to_string(), clock.clone(), reference.clone());
        let mut connection = Writer::connection(url)?;
        let mut beside = Connection::new(url.clone(), "", Duration::from_secs(10))?;
        let mut migrating = Connection::new(url.clone(), "", MIGRATION_TIMEOUT)?;
        let connection = on_a_thread(clock, move || {
            connection.ensure_open()?;
            detect_transaction_pooling(&mut connection, &mut beside)?;
            if migrations::found(&mut connection)? != Some(migrations::known()) {
                // A new format may rewrite tables with millions of rows.
                migrations::run(&mut migrating, &at)?;
            }
            if connection
                .query_opt("SELECT 1 FROM migration WHERE completed_at IS NULL", &[])?
                .is_some()
            {
                return Err(StoreError::MigrationIncomplete(at));
            }
            if machine.is_comparable() {
                clock::measure(&mut connection, &machine, &measured)?;
                clock::is_close_enough(&measured)?;
            }
            let table = trial::table_of(&mut connection)?;
            Ok((connection, table))
        });
        let (connection, table) = connection.await?;
        let (base, clock) = (clock.clone(), reference.clock());
        let clock = &clock;
        let writer = Writer::start(
            connection,
            home.clone(),
            health.clone(),
            clock.clone(),
            fail_points.clone(),
        )?;
        let workers = ConnectionPool::start(
            url,
            THREADS,
            ReadLimits::ENGINE,
            clock.clone(),
            fail_points.clone(),
        )?;
        let urgent = ConnectionPool::start(
            url,
            1,
            ReadLimits::ENGINE,
            clock.clone(),
            fail_points.clone(),
        )?;
        let (url, clock, fail_points) = (url.clone(), clock.clone(), fail_points.clone());
        Ok(Self {
            writer,
            workers,
            urgent,
            home,
            url,
            table,
            clock,
            base,
            reference,
            changes: Arc::default(),
            fail_points,
        })
    }

    pub(crate) async fn inspect(url: &PostgresUrl) -> DbResult<Option<StoreInfo>> {
        let connect = || Connection::new(url.clone(), "", Duration::from_secs(10));
        let (mut connection, mut beside) = (connect()?, connect()?);
        on_a_thread(&Clock::system(), move || {
            connection.try_open()?;
            detect_transaction_pooling(&mut connection, &mut beside)?;
            let Some(format) = migrations::found(&mut connection)? else {
                check_create_privilege(&mut connection)?;
                return Ok(None);
            };
            let known = migrations::known();
            let has_keys = connection
                .query_one("SELECT EXISTS (SELECT 1 FROM signing_key)", &[])?
                .try_get(0)?;
            let platform = connection.query_opt("SELECT base_url FROM platform", &[])?;
            let platform = platform.map(|row| row.try_get(0)).transpose()?;
            Ok(Some(StoreInfo {
                format,
                known,
                has_keys,
                platform,
            }))
        })
        .await
    }

    /// The same store, whose reads go through a connection and a thread of their own.
    pub(crate) fn with_own_reads(&self, limits: ReadLimits) -> DbResult<Self> {
        let workers = ConnectionPool::start(
            &self.url,
            1,
            limits,
            self.clock.clone(),
            self.fail_points.clone(),
        )?;
        Ok(Self {
            workers,
            ..self.clone()
        })
    }

    /// Writes a row of so many bytes.
    pub(crate) async fn probe_write(&self, value: String) -> DbResult<()> {
        let upsert = "INSERT INTO property (name, value) VALUES ('write_probe', $1) ON CONFLICT (name) DO UPDATE SET value = $1";
        self.workers
            .write(move |tx| tx.execute(upsert, &[&value]).map(drop))
            .await
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Must be called within a tokio runtime.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        // The first who wants to know begins to listen, on a connection more.
        let listen = || {
            let (heard, changes) = watch::channel(0);
            tokio::spawn(listen::listen(self.url.clone(), heard, self.clock.clone()));
            changes
        };
        self.changes.get_or_init(listen).clone()
    }

    pub(crate) async fn override_for_bench(&self, guarantees: BenchOverrides) -> DbResult<()> {
        self.writer
            .alone(move |thread| thread.override_for_bench(guarantees))
            .await?
    }

    pub(crate) async fn attach_audit_log(
        &self,
        settings: AuditSettings,
        signer: Arc<NoteSigner>,
        mend: bool,
    ) -> DbResult<()> {
        self.writer
            .alone(move |thread| thread.keep(settings, signer, mend))
            .await?
    }
}

/// How long a new format of the database may take.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(3600);

/// Connections that ask.
const THREADS: usize = 3;

/// Whether it is the same process of the server that serves a connection from one transaction to the next: else nobody could find out what became of
/// a transaction whose answer was lost, and settings and prepared statements would be somebody else's. A pool that gives each transaction whichever
/// process is free gives another one when that is taken.
pub(super) fn detect_transaction_pooling(
    connection: &mut Connection,
    beside: &mut Connection,
) -> DbResult<()> {
    // In a pool that is busy others take and give back meanwhile.
    for _ in 0..3 {
        connection.ensure_open()?;
        let opened = connection.opened_to();
        let before = connection.pid()?;
        let after = beside.within("BEGIN", |beside| {
            beside.pid()?;
            connection.pid()
        })?;
        beside.batch("ROLLBACK")?;
        // One that broke meanwhile is another one, and says nothing of a pool.
        if before != after && opened == connection.opened_to() {
            return Err(StoreError::TransactionPooling);
        }
    }
    Ok(())
}

/// What the first session will need.
fn check_create_privilege(connection: &mut Connection) -> DbResult<()> {
    let may = "SELECT has_schema_privilege(current_schema(), 'CREATE')";
    let (message, code) = match connection.query_one(may, &[])?.try_get(0)? {
        Some(true) => return Ok(()),
        Some(false) => (
            "this user may make no tables in the schema",
            SqlState::INSUFFICIENT_PRIVILEGE,
        ),
        None => ("there is no such schema", SqlState::INVALID_SCHEMA_NAME),
    };
    Err(StoreError::Postgres {
        message: message.to_owned(),
        code: Some(code),
        lost: false,
    })
}

/// A connection belongs to a thread that may wait for it.
async fn on_a_thread<T: Send + 'static>(
    clock: &Clock,
    work: impl FnOnce() -> DbResult<T> + Send + 'static,
) -> DbResult<T> {
    let _busy = clock.pause_auto_advance();
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| StoreError::Closed)?
}
