//! The store keeps sessions, audit records, outbox events and keys. It is one SQLite file, or a
//! PostgreSQL database that several processes share.
//!
//! The unit of a write is the transition. A [`CommitRequest`] carries the session, its audit record
//! and its outbox events, which are committed together or not at all.

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
compile_error!("guestlane needs a store: enable the feature `sqlite`, `postgres`, or both");

mod api;
pub mod batch;
mod begin;
mod calls;
mod database;
mod delivery;
mod endpoint;
mod error;
mod gauges;
mod guest;
#[cfg(all(feature = "sqlite", feature = "postgres"))]
pub mod migrate;
#[cfg(feature = "postgres")]
mod postgres;
mod pruned;
mod queries;
mod read_limits;
mod record;
mod row;
mod sealed;
#[cfg(feature = "sqlite")]
mod sqlite;
mod summary;
mod transition;
mod trusted_time;
mod verify_logs;
mod write_health;

use std::{ops::Deref, path::Path, sync::Arc};

use guestlane_runtime::{Clock, FailPoints};
use tokio::sync::watch;

pub use api::{
    Admission, ApiKeys, AuditLog, Backend, Batches, Binding, Guests, Outbox, Retention, Secrets,
    Sessions, SigningKeys, Statistics, WebhookEndpoints,
};
pub use begin::BeginOutcome;
pub use calls::CallRecord;
pub use database::{Database, InvalidDatabase};
pub use delivery::{Delivery, DeliveryOutcome, DeliveryState, ReplayFilter};
pub use endpoint::{DisabledEndpoint, SecretChange};
pub use gauges::StoreGauges;
pub use guest::{ErasureOutcome, ErasureReport};
#[cfg(feature = "postgres")]
pub use postgres::PostgresUrl;
pub use pruned::Pruned;
pub use read_limits::ReadLimits;
pub use record::{AuditSettings, GuestIdMode, LogInfo, RecordFilter, RestoreOutcome, StoredRecord};
pub use sealed::{Replacement, Sealed, SealedPlace, StoredSecret};
pub use summary::{LatencySummary, Summary};
pub use transition::{CommitRequest, CommitResult, SessionFilter, SessionPage};
pub use verify_logs::{LogVerification, retry_while_growing, verify_all};
pub use write_health::LastWrites;

pub use error::{CertificateProblem, StoreError, log_failure};
use guestlane_tlog::AuditError;

/// The store. It is cheap to clone, and it closes when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Store {
    backend: Arc<dyn Backend>,
    health: write_health::WriteHealth,
    pub(crate) fail_points: FailPoints,
}

/// The operations of the database.
impl Deref for Store {
    type Target = dyn Backend;

    fn deref(&self) -> &Self::Target {
        &*self.backend
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
            #[cfg(feature = "sqlite")]
            Database::Sqlite(path) if !path.exists() => Ok(None),
            #[cfg(feature = "sqlite")]
            Database::Sqlite(path) => sqlite::Sqlite::inspect(path).map(Some),
            #[cfg(feature = "postgres")]
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
            #[cfg(feature = "sqlite")]
            Database::Sqlite(path) => sqlite::Sqlite::try_to_write(path),
            #[cfg(feature = "postgres")]
            Database::Postgres(url) => postgres::Postgres::try_to_write(url).await,
        }
    }

    /// Reads a sealed secret of the store in `database`, on a separate connection. Returns `None` for
    /// a store in a file, which has one way to open it.
    ///
    /// # Errors
    /// Fails if no connection can be opened, or if the database has no store.
    #[cfg_attr(
        not(feature = "postgres"),
        expect(unused_variables, reason = "a file has one way to open it")
    )]
    pub async fn secret_at(
        database: &Database,
        name: &'static str,
    ) -> Result<Option<StoredSecret>, StoreError> {
        match database {
            #[cfg(feature = "sqlite")]
            Database::Sqlite(_) => Ok(None),
            #[cfg(feature = "postgres")]
            Database::Postgres(url) => postgres::Postgres::secret_at(url, name).await,
        }
    }

    /// Checks that no other process uses `database` now. For a database that several nodes can
    /// share, the check always succeeds.
    ///
    /// # Errors
    /// Returns [`StoreError::InUse`] if another process has the file open.
    pub fn expect_unused(database: &Database) -> Result<(), StoreError> {
        match database {
            #[cfg(feature = "sqlite")]
            Database::Sqlite(path) => sqlite::lock_file(path)?
                .try_lock()
                .map_err(|_| StoreError::InUse(path.to_owned())),
            #[cfg(feature = "postgres")]
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
    #[cfg_attr(
        not(feature = "postgres"),
        expect(unused_variables, reason = "a file has one way to open it")
    )]
    pub async fn open(
        database: &Database,
        home: &Path,
        clock: &Clock,
        fail_points: &FailPoints,
    ) -> Result<Self, StoreError> {
        let health = write_health::WriteHealth::default();
        let backend: Arc<dyn Backend> = match database {
            #[cfg(feature = "sqlite")]
            Database::Sqlite(path) => {
                Arc::new(sqlite::Sqlite::open(path, &health, clock, fail_points)?)
            }
            #[cfg(feature = "postgres")]
            Database::Postgres(url) => {
                Arc::new(postgres::Postgres::open(url, home, &health, clock, fail_points).await?)
            }
        };
        Ok(Self {
            backend,
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
        Ok(Self {
            backend: self.backend.with_own_reads(limits)?,
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
        let written = self.backend.write_probe(value).await;
        let now = self.clock().monotonic();
        match written {
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
            #[cfg(feature = "sqlite")]
            (Err(error), Database::Sqlite(path)) if sqlite::cannot_be_written(&error) => {
                let health = write_health::WriteHealth::default();
                let read_only = sqlite::Sqlite::open_read_only(path, &health, clock, fail_points)?;
                Ok(Self {
                    backend: Arc::new(read_only),
                    health,
                    fail_points: fail_points.clone(),
                })
            }
            (opened, _) => opened,
        }
    }

    /// Returns a listener for notifications that keys changed or that there is work. Notifications
    /// can be lost, so receivers must also poll.
    pub fn changes(&self) -> ChangeListener {
        ChangeListener(self.backend.notifications())
    }
}
