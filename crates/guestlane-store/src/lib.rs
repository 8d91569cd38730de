//! Where sessions, audit records, CRM events and keys are safe: one SQLite file, or a PostgreSQL database that several processes share.
//!
//! The store takes whole transitions. What must be said is written with what was done: a [`CommitRequest`] carries the session, its audit
//! record and its CRM event, and they are committed together or not at all.

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
pub use postgres::KeptSecret;
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

/// The store. Cheap to clone; closed when the last clone is dropped.
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

/// The store cannot do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or the file cannot be made or opened.
    #[error("the store {} cannot be opened", .0.display())]
    Open(PathBuf, #[source] io::Error),
    /// Another version of the product wrote it.
    #[error("the store {} was written by a newer version of guestlane (format {found}; this one knows {known})", .path)]
    Newer {
        /// The file, or the database.
        path: String,
        /// Its format.
        found: u32,
        /// The newest format of this version.
        known: u32,
    },
    /// A newer version of the product changed the format while this process was running.
    #[error(
        "a newer version of guestlane has changed the store's format to {found} while this one ({known}) was running"
    )]
    Superseded {
        /// The format now.
        found: u32,
        /// The newest format of this version.
        known: u32,
    },
    /// SQLite's own reason.
    #[error("the store failed")]
    Database(#[from] rusqlite::Error),
    /// PostgreSQL's own reason.
    #[error("the database failed: {message}")]
    Postgres {
        /// Without the row or the values it is about: they may be personal.
        message: String,
        /// Its SQLSTATE, where the database itself said it.
        code: Option<SqlState>,
        /// Whether the outcome is unknown: the commit is in doubt.
        lost: bool,
    },
    /// Nobody answers for the database.
    #[error("the database at {at} cannot be reached: {reason}")]
    Unreachable {
        /// Host and port, without user and password.
        at: String,
        /// Why.
        reason: String,
    },
    /// The database's certificate is not trusted.
    #[error("the database at {at} cannot be trusted: {reason}")]
    Untrusted {
        /// Host and port, without user and password.
        at: String,
        /// Why.
        reason: String,
        /// The property of the certificate that was refused.
        distrust: Distrust,
    },
    /// A transaction that others were part of failed; nothing of it was kept.
    #[error("the store failed: {0}")]
    Commit(String),
    /// Somebody else drives this session by now.
    #[error("another process has taken this session over")]
    LeaseLost,
    /// A row is not what this version writes.
    #[error("the store has a row that cannot be read: {0}")]
    Row(&'static str),
    /// An internal error.
    #[error(transparent)]
    IllegalTransition(#[from] IllegalTransition),
    /// Somebody changed records in the store, past guestlane.
    #[error(
        "the records of audit log {0} in the store are not those that were written: they were changed"
    )]
    AuditTampered(u32),
    /// A record has no place to go to: the store was opened for looking only. An internal error.
    #[error("the store was opened without its audit log")]
    NoAuditLog,
    /// Another process uses the file, and it must be used by this one alone.
    #[error("another process uses the store {}", .0.display())]
    InUse(PathBuf),
    /// Somebody copies it into a database at this moment.
    #[error("the store {} is being moved", .0.display())]
    MigrationInProgress(PathBuf),
    /// A move into a database was begun, and neither finished nor abandoned.
    #[error("the move of the store {} to {to} was interrupted", .path.display())]
    MigrationUnfinished {
        /// The file.
        path: PathBuf,
        /// The database that it moves to.
        to: String,
    },
    /// The file's sessions are in a database now.
    #[error("the store {} was moved to {to}", .path.display())]
    Migrated {
        /// The file.
        path: PathBuf,
        /// Where to.
        to: String,
    },
    /// Leases are by the clocks of many machines: they must agree.
    #[error("this machine's clock is {:.1} s {}, by the database's", .0.abs(), if *.0 > 0.0 { "ahead" } else { "behind" })]
    ClockSkew(f64),
    /// What was asked last cannot be looked for there.
    #[error("a pool in front of the database gives each transaction another connection")]
    TransactionPooling,
    /// A copy was begun, and not ended.
    #[error("a store is being copied into {0}, or that was interrupted")]
    MigrationIncomplete(String),
    /// Only a database can be shared by processes on several machines.
    #[error("the store is a file, which no other machine can work on")]
    NotShared,
    /// As many reads wait as may.
    #[error("the store is busy with other reads")]
    Busy,
    /// A read was ended because it took too long.
    #[error("the read took longer than {} s and was ended", .0.as_secs())]
    ReadTimeout(Duration),
    /// The thread that writes is gone.
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
                // The server shuts down or terminates the connection: 57P01 to 57P05; connection exceptions: class 08.
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
                // Whatever it was, the database did not say that it failed.
                Self::Postgres {
                    message: guestlane_runtime::text::display_chain(&error),
                    code: None,
                    lost: true,
                }
            }
        }
    }
}

/// The property of the database's certificate that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distrust {
    /// No authority that is trusted has signed it.
    Issuer,
    /// It names another host.
    Name,
    /// It has expired, or is not valid yet.
    Time,
}

impl StoreError {
    /// Whether the database cannot be reached: the log has a line of its own for that.
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Untrusted { .. } | Self::Postgres { lost: true, .. }
        )
    }
}

/// Logs a failure of work in the background, which is tried again. While the database is away this is for `debug`: the
/// outage has its own two lines in the log.
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

/// The result of a write that is committed. Whether the audit file has it as well is a separate
/// field, because only some callers need to know.
#[derive(Debug)]
pub struct Committed<T> {
    /// What the write answered.
    pub value: T,
    /// Whether the audit file is up to date.
    pub audit: Result<(), std::sync::Arc<AuditError>>,
}

/// What the store promises, each at a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BenchOverrides {
    /// What was answered survives the power cut.
    pub durable: bool,
    /// What was done stands in the audit log.
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

/// See [`Store::changes`].
#[derive(Debug, Clone)]
pub struct ChangeListener(Option<watch::Receiver<u64>>);

impl ChangeListener {
    /// Waits for the next notification; forever on a store without notifications.
    pub async fn next(&mut self) {
        if let Some(changes) = &mut self.0
            && changes.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

/// What can be seen of a store without touching it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreInfo {
    /// The format it has.
    pub format: u32,
    /// The format that this version writes.
    pub known: u32,
    /// Whether it has signing keys; without them it was never used.
    pub has_keys: bool,
    /// The platform it belongs to.
    pub platform: Option<String>,
}

impl Store {
    /// Looks at `database` without making, changing or bringing up anything. `None`: there is none.
    pub async fn inspect(database: &Database) -> Result<Option<StoreInfo>, StoreError> {
        match database {
            Database::Sqlite(path) if !path.exists() => Ok(None),
            Database::Sqlite(path) => sqlite::Sqlite::inspect(path).map(Some),
            Database::Postgres(url) => postgres::Postgres::inspect(url).await,
        }
    }

    /// Writes to `database` and undoes it. The store must be there, in the format that this version writes.
    ///
    /// # Errors
    /// The write was refused: a right is missing, or the file or database is read-only.
    pub async fn try_to_write(database: &Database) -> Result<(), StoreError> {
        match database {
            Database::Sqlite(path) => sqlite::Sqlite::try_to_write(path),
            Database::Postgres(url) => postgres::Postgres::try_to_write(url).await,
        }
    }

    /// A secret of the store in `url`, sealed, read on a connection of its own.
    ///
    /// # Errors
    /// No connection can be opened, or the database has no store.
    pub async fn secret_at(
        url: &PostgresUrl,
        name: &'static str,
    ) -> Result<Option<KeptSecret>, StoreError> {
        postgres::Postgres::secret_at(url, name).await
    }

    /// Whether a secret that was found by a URL is in this very store, and not in a copy of it.
    pub fn is_home_of(&self, found: &KeptSecret) -> bool {
        match &self.kind {
            Kind::Sqlite(_) => false,
            Kind::Postgres(store) => store.table == found.table,
        }
    }

    /// Whether no other process uses `database` at this moment. Of a database that several machines share nothing is known.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where another process has the file open.
    pub fn expect_unused(database: &Database) -> Result<(), StoreError> {
        match database {
            Database::Sqlite(path) => sqlite::lock_file(path)?
                .try_lock()
                .map_err(|_| StoreError::InUse(path.to_owned())),
            Database::Postgres(_) => Ok(()),
        }
    }

    /// Opens `database`, making what is missing. `home` is this machine's state directory.
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

    /// The same store, whose reads have a connection, a thread and `limits` of their own: they hold up no other reads.
    ///
    /// # Errors
    /// A file cannot be opened once more, or no thread can be started.
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

    /// The results of the last commits, from memory.
    pub fn last_writes(&self) -> LastWrites {
        self.health.last()
    }

    /// Commits a row of `bytes` bytes, to learn whether the store takes writes. Its result is in [`last_writes`](Self::last_writes).
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

    /// Opens `database`, which must be there, to look at it. Where its file or directory cannot be written, it is opened
    /// read-only: then every write fails.
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

    /// The clock that leases, schedules and retention go by: the database's, where several nodes share one; else the machine's.
    pub fn clock(&self) -> Clock {
        match &self.kind {
            Kind::Sqlite(store) => store.clock(),
            Kind::Postgres(store) => store.clock(),
        }
    }

    /// How far this machine's wall clock is ahead of the database's (behind: negative), in seconds. `None` for a store in a file.
    pub fn clock_offset(&self) -> Option<f64> {
        match &self.kind {
            Kind::Sqlite(_) => None,
            Kind::Postgres(store) => store.clock_offset().map(|micros| micros as f64 / 1e6),
        }
    }

    /// Whether this machine's wall clock is close enough to the database's. Where it is not, nothing is claimed and nothing is deleted.
    pub fn may_claim(&self) -> bool {
        match &self.kind {
            Kind::Sqlite(_) => true,
            Kind::Postgres(store) => store.may_claim(),
        }
    }

    /// Compares the machine's clock with the database's once more.
    ///
    /// # Errors
    /// The database cannot be reached: then the last comparison holds.
    pub async fn measure_clock(&self) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Sqlite(_) => Ok(()),
            Kind::Postgres(store) => store.measure_clock().await,
        }
    }

    /// Word from other processes that keys changed, or that there is work: some of it is lost, and whoever needs to know looks by itself, too.
    pub fn changes(&self) -> ChangeListener {
        ChangeListener(match &self.kind {
            Kind::Sqlite(_) => None,
            Kind::Postgres(store) => Some(store.changes()),
        })
    }

    /// Goes without a guarantee, for a measurement of what it costs.
    pub async fn override_for_bench(&self, guarantees: BenchOverrides) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Sqlite(store) => store.override_for_bench(guarantees).await,
            Kind::Postgres(store) => store.override_for_bench(guarantees).await,
        }
    }

    /// Keeps the audit log from now on. With `mend`, ends what a process before began: records that are not in the files, bytes that must go.
    /// A read-only command repairs nothing, so that changes of the files stay visible.
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
