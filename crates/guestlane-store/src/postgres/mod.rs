//! The store in PostgreSQL (13 or newer), which any number of processes on any machine can share.
//!
//! One thread writes everything that has audit records, and commits all waiting writes together
//! (group commit). A few other threads serve the remaining reads and writes. Each thread has one
//! connection and waits for each result, so operations run in the same order as in a file.

mod api_keys;
mod backend;
mod batches;
mod begin;
mod clock;
mod connection;
mod connection_pool;
mod coordinator;
mod counters;
mod deliveries;
mod delivery_columns;
mod endpoints;
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
mod shared_store;
mod trial;
mod url;
mod writer;

use crate::queries;
use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use guestlane_runtime::{Clock, FailPoints, ReferenceClock};
use tokio::sync::watch;
use tokio_postgres::error::SqlState;

use super::{ReadLimits, StoreError, StoreInfo, write_health::WriteHealth};
pub(super) use connection::Connection;
use connection::DbResult;
use connection_pool::ConnectionPool;
pub(super) use log::NodeIdentity;
#[cfg(feature = "sqlite")]
pub(super) use migrations::{LOCK, run as migrate};
pub use url::PostgresUrl;
use writer::Writer;

/// The store in a PostgreSQL database. It is cheap to clone, and it closes when the last clone is
/// dropped.
#[derive(Debug, Clone)]
pub(super) struct Postgres {
    writer: Writer,
    workers: ConnectionPool,
    /// Serves operations that must not wait behind a query over millions of rows: leases,
    /// rate-limit leases and access tokens.
    urgent: ConnectionPool,
    home: NodeIdentity,
    url: PostgresUrl,
    /// The object ID of the table of secrets, which identifies this store among copies of it.
    table: i64,
    /// The clock that follows the database's time.
    clock: Clock,
    /// The clock of this node.
    base: Clock,
    reference: ReferenceClock,
    changes: Arc<OnceLock<watch::Receiver<u64>>>,
    fail_points: FailPoints,
}

impl Postgres {
    /// Opens the store and applies missing migrations. Waits up to
    /// [`connection::RECONNECT_TIMEOUT`] for the database, because a service manager may start both
    /// at the same time.
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
                // A migration may rewrite tables with millions of rows, so it has a time limit of
                // its own.
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
            let platform = connection.query_opt(queries::SELECT_PLATFORM, &[])?;
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
}

/// Time limit of the migrations to a new format of the database.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(3600);

/// Number of connections that serve reads, and writes without audit records.
const THREADS: usize = 3;

/// Fails with [`StoreError::TransactionPooling`] unless one server process serves a connection from
/// one transaction to the next.
///
/// With transaction pooling, the outcome of an in-doubt commit cannot be queried, and settings and
/// prepared statements apply to other clients. The check occupies the server process between two
/// transactions: a transaction pooler then assigns a different one.
pub(super) fn detect_transaction_pooling(
    connection: &mut Connection,
    beside: &mut Connection,
) -> DbResult<()> {
    // A busy pool may assign the same process by chance, so the check runs three times.
    for _ in 0..3 {
        connection.ensure_open()?;
        let opened = connection.opened_to();
        let before = connection.pid()?;
        let after = beside.within("BEGIN", |beside| {
            beside.pid()?;
            connection.pid()
        })?;
        beside.batch("ROLLBACK")?;
        // If the connection was reopened meanwhile, its server process differs for that reason.
        if before != after && opened == connection.opened_to() {
            return Err(StoreError::TransactionPooling);
        }
    }
    Ok(())
}

/// Fails unless the user may create tables in the current schema. The first start needs that
/// privilege to create the store.
fn check_create_privilege(connection: &mut Connection) -> DbResult<()> {
    let may = "SELECT has_schema_privilege(current_schema(), 'CREATE')";
    let (message, code) = match connection.query_one(may, &[])?.try_get(0)? {
        Some(true) => return Ok(()),
        Some(false) => (
            "this user has no privilege to create tables in the schema",
            SqlState::INSUFFICIENT_PRIVILEGE,
        ),
        None => ("the schema does not exist", SqlState::INVALID_SCHEMA_NAME),
    };
    Err(StoreError::Postgres {
        message: message.to_owned(),
        code: Some(code.code().to_owned()),
        lost: false,
    })
}

/// Runs `work` on a blocking thread, because a connection blocks its thread until the result
/// arrives.
async fn on_a_thread<T: Send + 'static>(
    clock: &Clock,
    work: impl FnOnce() -> DbResult<T> + Send + 'static,
) -> DbResult<T> {
    let _busy = clock.pause_auto_advance();
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| StoreError::Closed)?
}
