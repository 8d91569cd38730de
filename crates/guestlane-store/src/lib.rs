//! The store keeps sessions, audit records, outbox events and keys. It is one SQLite file, or a
//! PostgreSQL database that several processes share.
//!
//! The unit of a write is the transition. A [`CommitRequest`] carries the session, its audit record
//! and its outbox events, which are committed together or not at all.

mod api;
pub mod batch;
mod begin;
mod calls;
mod coordinator;
mod database;
mod delivery;
mod endpoint;
mod gauges;
mod guest;
mod libpq;
pub mod migrate;
mod postgres;
mod pruned;
mod read_limits;
mod record;
mod row;
mod sealed;
mod sqlite;
mod summary;
mod transition;
mod trusted_time;
mod verify_logs;
mod write_health;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use guestlane_runtime::{Clock, FailPoints};
use tokio::sync::watch;
use tokio_postgres::error::SqlState;
use tracing::{debug, warn};

pub use begin::BeginOutcome;
pub use calls::CallRecord;
pub use database::{Database, InvalidDatabase, PostgresUrl};
pub use delivery::{Delivery, DeliveryOutcome, DeliveryState, ReplayFilter};
pub use endpoint::{DisabledEndpoint, SecretChange};
pub use gauges::StoreGauges;
pub use guest::{ErasureOutcome, ErasureReport};
pub use postgres::StoredSecret;
pub use pruned::Pruned;
pub use read_limits::ReadLimits;
pub use record::{AuditSettings, GuestIdMode, LogInfo, RecordFilter, RestoreOutcome, StoredRecord};
pub use sealed::{Replacement, Sealed, SealedPlace};
pub use summary::{LatencySummary, Summary};
pub use transition::{CommitRequest, CommitResult, SessionFilter, SessionPage};
pub use verify_logs::{LogVerification, retry_while_growing, verify_all};
pub use write_health::LastWrites;

use guestlane_core::session::IllegalTransition;
use guestlane_tlog::{AuditError, NoteSigner};

/// The store. It is cheap to clone, and it closes when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Store {
    kind: Kind,
    health: write_health::WriteHealth,
    pub(crate) fail_points: FailPoints,
}

#[derive(Debug, Clone)]
enum Kind {
    Sqlite(sqlite::Sqlite),
    Postgres(Arc<postgres::Postgres>),
}

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or the file cannot be created or opened.
    #[error("the store {} cannot be opened", .0.display())]
    Open(PathBuf, #[source] io::Error),
    /// A newer version of guestlane wrote the store.
    #[error("the store {} was written by a newer version of guestlane (format {found}; this version supports {known})", .path)]
    Newer {
        /// The path of the file, or the database.
        path: String,
        /// The format of the store.
        found: u32,
        /// The newest format of this version.
        known: u32,
    },
    /// A newer version of the product changed the format while this process was running.
    #[error(
        "a newer version of guestlane changed the store's format to {found} while this process (format {known}) was running"
    )]
    Superseded {
        /// The format now.
        found: u32,
        /// The newest format of this version.
        known: u32,
    },
    /// An error of SQLite.
    #[error("the store failed")]
    Database(#[from] rusqlite::Error),
    /// An error of PostgreSQL.
    #[error("the database failed: {message}")]
    Postgres {
        /// The message, without the row and the values that it concerns: they may be personal data.
        message: String,
        /// The SQLSTATE, if the server sent the error.
        code: Option<SqlState>,
        /// Whether the outcome is unknown: the commit is in doubt.
        lost: bool,
    },
    /// The database cannot be reached.
    #[error("the database at {at} cannot be reached: {reason}")]
    Unreachable {
        /// Host and port, without user and password.
        at: String,
        /// The reason.
        reason: String,
    },
    /// The database's certificate is not trusted.
    #[error("the database at {at} cannot be trusted: {reason}")]
    Untrusted {
        /// Host and port, without user and password.
        at: String,
        /// The reason.
        reason: String,
        /// The property of the certificate that was refused.
        distrust: CertificateProblem,
    },
    /// A transaction shared with other writes failed, or its result is unknown.
    #[error("the store failed: {0}")]
    Commit(String),
    /// Another process has claimed the session.
    #[error("another process has claimed this session")]
    LeaseLost,
    /// A row cannot be decoded: this version does not write such a value.
    #[error("the store has a row that cannot be read: {0}")]
    Row(&'static str),
    /// A session was in a state that does not allow the transition. This is an internal error.
    #[error(transparent)]
    IllegalTransition(#[from] IllegalTransition),
    /// Records in the store were changed by another program.
    #[error(
        "the records of audit log {0} in the store are not those that were written: they were changed"
    )]
    AuditTampered(u32),
    /// A write has an audit record, and the store was opened without its audit log. This is an
    /// internal error.
    #[error("the store was opened without its audit log")]
    NoAuditLog,
    /// Another process uses the file, which this process needs for itself alone.
    #[error("another process uses the store {}", .0.display())]
    InUse(PathBuf),
    /// Another process is migrating the file to a database.
    #[error("the store {} is being moved", .0.display())]
    MigrationInProgress(PathBuf),
    /// A migration to a database was started, and neither finished nor abandoned.
    #[error("the move of the store {} to {to} was interrupted", .path.display())]
    MigrationUnfinished {
        /// The file.
        path: PathBuf,
        /// The database that it moves to.
        to: String,
    },
    /// The file was migrated, and its sessions are in a database now.
    #[error("the store {} was moved to {to}", .path.display())]
    Migrated {
        /// The file.
        path: PathBuf,
        /// The database.
        to: String,
    },
    /// This node's clock differs too much from the database's. Leases compare times of several
    /// nodes, so their clocks must agree. The value is the offset in seconds; it is positive if the
    /// node's clock is ahead.
    #[error("this machine's clock is {:.1} s {}, compared with the database's clock", .0.abs(), if *.0 > 0.0 { "ahead" } else { "behind" })]
    ClockSkew(f64),
    /// The database is behind a pool with transaction pooling, where the result of an in-doubt
    /// commit cannot be queried.
    #[error(
        "a connection pool in front of the database uses another connection for each transaction"
    )]
    TransactionPooling,
    /// A migration into the database was started and is not complete.
    #[error("a store is being copied into {0}, or its copy was interrupted")]
    MigrationIncomplete(String),
    /// The operation needs a store that several nodes share, and this store is a file.
    #[error("the store is a file, which processes on other machines cannot share")]
    NotShared,
    /// The maximum number of reads is waiting already.
    #[error("the store is busy with other reads")]
    Busy,
    /// The read exceeded its time limit and was ended.
    #[error("the read took longer than {} s and was cancelled", .0.as_secs())]
    ReadTimeout(Duration),
    /// The thread that serves the store has ended.
    #[error("the store is closed")]
    Closed,
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(said) if said.code().code() == "GL002" => {
                let (found, known) = said.message().split_once(' ').unwrap_or_default();
                Self::Superseded {
                    found: found.parse().unwrap_or(0),
                    known: known.parse().unwrap_or(0),
                }
            }
            Some(said) => {
                // 57P01 to 57P05: the server shuts down or terminates the connection. Class 08:
                // connection exceptions.
                let code = said.code().code();
                let lost = code.starts_with("57P")
                    || code.starts_with("08")
                    || *said.code() == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT;
                Self::Postgres {
                    message: said.message().to_owned(),
                    code: Some(said.code().clone()),
                    lost,
                }
            }
            None => {
                // The server sent no error, so it is unknown whether it executed the statement.
                Self::Postgres {
                    message: guestlane_runtime::text::display_chain(&error),
                    code: None,
                    lost: true,
                }
            }
        }
    }
}

/// The property of the database's certificate that was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateProblem {
    /// No trusted authority has signed the certificate.
    Issuer,
    /// The certificate names another host.
    Name,
    /// The certificate has expired, or is not valid yet.
    Time,
}

impl StoreError {
    /// Whether the error means that the database cannot be reached. The log reports such an outage
    /// in lines of its own.
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Untrusted { .. } | Self::Postgres { lost: true, .. }
        )
    }
}

/// Logs a failure of background work that will be repeated. During an outage of the database the
/// level is `debug`, because the outage has its own two lines in the log.
pub fn log_failure(error: &(dyn std::error::Error + 'static), message: &'static str) {
    let of_store = error
        .downcast_ref::<StoreError>()
        .or_else(|| error.source()?.downcast_ref());
    let error = guestlane_runtime::text::display_chain(error);
    if of_store.is_some_and(StoreError::is_outage) {
        debug!(error, "{message}");
    } else {
        warn!(error, "{message}");
    }
}

impl Store {
    /// Returns the fail points of the process, for work that spans several writes.
    pub fn fail_points(&self) -> &FailPoints {
        &self.fail_points
    }
}

/// The result of a committed write. Whether the audit file has its records is a separate field,
/// because only some callers need to know.
#[derive(Debug)]
pub struct Committed<T> {
    /// The value that the write returned.
    pub value: T,
    /// Whether the audit file is up to date.
    pub audit: Result<(), std::sync::Arc<AuditError>>,
}

/// Guarantees of the store that a benchmark can switch off, to measure their cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BenchOverrides {
    /// Whether an acknowledged commit survives a power failure.
    pub durable: bool,
    /// Whether audit records are written.
    pub audited: bool,
}

impl Default for BenchOverrides {
    fn default() -> Self {
        Self {
            durable: true,
            audited: true,
        }
    }
}

/// Waits for change notifications; see [`Store::changes`].
#[derive(Debug, Clone)]
pub struct ChangeListener(Option<watch::Receiver<u64>>);

impl ChangeListener {
    /// Waits for the next notification. It never returns on a store without notifications.
    pub async fn next(&mut self) {
        if let Some(changes) = &mut self.0
            && changes.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

/// What [`Store::inspect`] finds in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreInfo {
    /// The format of the store.
    pub format: u32,
    /// The format that this version writes.
    pub known: u32,
    /// Whether the store has signing keys. A store without them was never used.
    pub has_keys: bool,
    /// The platform that the store is bound to.
    pub platform: Option<String>,
}

impl Store {
    /// Inspects `database` without creating, changing or migrating anything. Returns `None` if it
    /// contains no store.
    ///
    /// # Errors
    /// Returns [`StoreError::TransactionPooling`] if a pool in front of the database uses
    /// transaction pooling. Fails if the file or the database cannot be opened or read, or if the
    /// user may not create tables in an empty database.
    pub async fn inspect(database: &Database) -> Result<Option<StoreInfo>, StoreError> {
        match database {
            Database::Sqlite(path) if !path.exists() => Ok(None),
            Database::Sqlite(path) => sqlite::Sqlite::inspect(path).map(Some),
            Database::Postgres(url) => postgres::Postgres::inspect(url).await,
        }
    }

    /// Writes to `database` in a transaction that is rolled back. The store must exist in the
    /// format that this version writes.
    ///
    /// # Errors
    /// Returns the database's error if it rejects the write: a privilege is missing, or the file or
    /// database is read-only.
    pub async fn try_to_write(database: &Database) -> Result<(), StoreError> {
        match database {
            Database::Sqlite(path) => sqlite::Sqlite::try_to_write(path),
            Database::Postgres(url) => postgres::Postgres::try_to_write(url).await,
        }
    }

    /// Reads a sealed secret of the store in `url`, on a separate connection.
    ///
    /// # Errors
    /// Fails if no connection can be opened, or if the database has no store.
    pub async fn secret_at(
        url: &PostgresUrl,
        name: &'static str,
    ) -> Result<Option<StoredSecret>, StoreError> {
        postgres::Postgres::secret_at(url, name).await
    }

    /// Whether a secret that was read through a URL is in this store, and not in a copy of it.
    pub fn is_home_of(&self, found: &StoredSecret) -> bool {
        match &self.kind {
            Kind::Sqlite(_) => false,
            Kind::Postgres(store) => store.table == found.table,
        }
    }

    /// Checks that no other process uses `database` now. For a database that several nodes can
    /// share, the check always succeeds.
    ///
    /// # Errors
    /// Returns [`StoreError::InUse`] if another process has the file open.
    pub fn expect_unused(database: &Database) -> Result<(), StoreError> {
        match database {
            Database::Sqlite(path) => sqlite::lock_file(path)?
                .try_lock()
                .map_err(|_| StoreError::InUse(path.to_owned())),
            Database::Postgres(_) => Ok(()),
        }
    }

    /// Opens `database`, creates a missing store and applies missing migrations. `home` is this
    /// node's state directory.
    ///
    /// # Errors
    /// Returns [`StoreError::Newer`] if a newer version wrote the store. Returns
    /// [`StoreError::MigrationInProgress`], [`StoreError::MigrationUnfinished`],
    /// [`StoreError::Migrated`] or [`StoreError::MigrationIncomplete`] if the store is part of a
    /// migration. Returns [`StoreError::ClockSkew`] or [`StoreError::TransactionPooling`] if the
    /// database cannot be used safely. Fails if the file or the database cannot be opened.
    pub async fn open(
        database: &Database,
        home: &Path,
        clock: &Clock,
        fail_points: &FailPoints,
    ) -> Result<Self, StoreError> {
        let health = write_health::WriteHealth::default();
        let kind = match database {
            Database::Sqlite(path) => {
                Kind::Sqlite(sqlite::Sqlite::open(path, &health, clock, fail_points)?)
            }
            Database::Postgres(url) => Kind::Postgres(Arc::new(
                postgres::Postgres::open(url, home, &health, clock, fail_points).await?,
            )),
        };
        Ok(Self {
            kind,
            health,
            fail_points: fail_points.clone(),
        })
    }

    /// Returns the same store with a separate connection, thread and `limits` for its reads, so
    /// that they delay no other reads.
    ///
    /// # Errors
    /// Fails if the file cannot be opened again, or if the thread cannot be started.
    pub fn with_own_reads(&self, limits: ReadLimits) -> Result<Self, StoreError> {
        let kind = match &self.kind {
            Kind::Sqlite(store) => Kind::Sqlite(store.with_own_reads(limits)?),
            Kind::Postgres(store) => Kind::Postgres(Arc::new(store.with_own_reads(limits)?)),
        };
        Ok(Self {
            kind,
            ..self.clone()
        })
    }

    /// Returns the results of the last commits, from memory.
    pub fn last_writes(&self) -> LastWrites {
        self.health.last()
    }

    /// Commits a row of `bytes` bytes, to test whether the store accepts writes. The result is in
    /// [`last_writes`](Self::last_writes).
    pub async fn probe_write(&self, bytes: usize) {
        let value: String = std::iter::repeat_with(fastrand::alphanumeric)
            .take(bytes)
            .collect();
        let probed = match &self.kind {
            Kind::Sqlite(store) => store.probe_write(value).await,
            Kind::Postgres(store) => store.probe_write(value).await,
        };
        let now = self.clock().monotonic();
        match probed {
            Ok(()) => self.health.succeeded(now),
            Err(error) => self.health.failed(&error, now),
        }
    }

    /// Opens an existing `database` for a command that only reads. If its file or directory cannot
    /// be written, it is opened read-only, and every write fails.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the store does not exist, has another format, or cannot be read.
    pub async fn open_to_look(
        database: &Database,
        home: &Path,
        clock: &Clock,
        fail_points: &FailPoints,
    ) -> Result<Self, StoreError> {
        match (
            Self::open(database, home, clock, fail_points).await,
            database,
        ) {
            (Err(error), Database::Sqlite(path)) if sqlite::cannot_be_written(&error) => {
                let health = write_health::WriteHealth::default();
                let kind = Kind::Sqlite(sqlite::Sqlite::open_read_only(
                    path,
                    &health,
                    clock,
                    fail_points,
                )?);
                Ok(Self {
                    kind,
                    health,
                    fail_points: fail_points.clone(),
                })
            }
            (opened, _) => opened,
        }
    }

    /// Returns the clock for leases, schedules and retention: the database's clock on PostgreSQL,
    /// otherwise the machine's.
    pub fn clock(&self) -> Clock {
        match &self.kind {
            Kind::Sqlite(store) => store.clock(),
            Kind::Postgres(store) => store.clock(),
        }
    }

    /// Returns how far this node's wall clock is ahead of the database's, in seconds; a negative
    /// value means behind. Returns `None` for a store in a file.
    pub fn clock_offset(&self) -> Option<f64> {
        match &self.kind {
            Kind::Sqlite(_) => None,
            Kind::Postgres(store) => store.clock_offset().map(|micros| micros as f64 / 1e6),
        }
    }

    /// Whether this node's wall clock is close enough to the database's. Otherwise the node claims
    /// nothing and deletes nothing.
    pub fn may_claim(&self) -> bool {
        match &self.kind {
            Kind::Sqlite(_) => true,
            Kind::Postgres(store) => store.may_claim(),
        }
    }

    /// Measures the offset between this node's clock and the database's again.
    ///
    /// # Errors
    /// Fails if the database cannot be reached. The last measurement stays valid then.
    pub async fn measure_clock(&self) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Sqlite(_) => Ok(()),
            Kind::Postgres(store) => store.measure_clock().await,
        }
    }

    /// Returns a listener for notifications that keys changed or that there is work. Notifications
    /// can be lost, so receivers must also poll.
    pub fn changes(&self) -> ChangeListener {
        ChangeListener(match &self.kind {
            Kind::Sqlite(_) => None,
            Kind::Postgres(store) => Some(store.changes()),
        })
    }

    /// Switches off a guarantee, to measure its cost.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the write fails.
    pub async fn override_for_bench(&self, guarantees: BenchOverrides) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Sqlite(store) => store.override_for_bench(guarantees).await,
            Kind::Postgres(store) => store.override_for_bench(guarantees).await,
        }
    }

    /// Attaches the audit log. With `mend`, first completes what an earlier process left
    /// unfinished: records that are missing in the files, and bytes of erased guests in the store.
    /// A read-only command repairs nothing, so that changes of the files stay visible.
    ///
    /// # Errors
    /// Returns [`StoreError::Closed`] if the store is closed. On PostgreSQL, it also fails if the
    /// open logs cannot be read or their lock files cannot be opened.
    pub async fn attach_audit_log(
        &self,
        settings: AuditSettings,
        signer: Arc<NoteSigner>,
        mend: bool,
    ) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Sqlite(store) => store.attach_audit_log(settings, signer, mend).await,
            Kind::Postgres(store) => store.attach_audit_log(settings, signer, mend).await,
        }
    }
}
