//! Where sessions, audit records, CRM events and keys are safe: one SQLite file.
//!
//! The store takes whole transitions. What must be said is written with what was done: a [`Transition`] carries the session, its audit
//! record and its CRM event, and they are committed together or not at all.

mod admission;
mod api_keys;
mod audit;
mod calls;
mod counters;
mod deliveries;
mod guests;
mod keys;
mod migrations;
mod prune;
mod records;
mod rows;
mod sessions;
mod standing;
mod writer;

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use guestlane_genesys::{Clock, Seams};
use rusqlite::{Connection, OpenFlags};
use tracing::warn;

pub use admission::Admission;
pub use audit::{AuditSettings, GuestIds, Restored};
pub use calls::KeptCall;
pub use counters::{LatencySummary, Summary};
pub use deliveries::{Delivery, DeliveryState, Replay};
pub use guests::{Done, Erased};
pub use prune::Pruned;
pub use records::{LogInfo, RecordFilter, StoredRecord};
pub use sessions::{Advanced, Page, SessionFilter, Transition};
pub use standing::Standing;

use crate::{
    audit::{AuditError, NoteSigner},
    disk::{make_directory, sync_directory},
    ledger::IllegalMove,
};
use audit::Logs;
use writer::{Reader, Tx, Writer};

/// The store. Cheap to clone; closed when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Store {
    writer: Writer,
    reader: Reader,
    path: PathBuf,
    clock: Clock,
    pub(crate) seams: Seams,
}

/// The store cannot do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or the file cannot be made or opened.
    #[error("the store {} cannot be opened", .0.display())]
    Open(PathBuf, #[source] io::Error),
    /// Another version of the product wrote it.
    #[error("the store {} was written by a newer version of guestlane (format {found}; this one knows {known})", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format of this version.
        known: u32,
    },
    /// The database's own reason.
    #[error("the store failed")]
    Database(#[from] rusqlite::Error),
    /// A transaction that others were part of failed; nothing of it was kept.
    #[error("the store failed: {0}")]
    Commit(String),
    /// Somebody else drives this session by now.
    #[error("another process has taken this session over")]
    LeaseLost,
    /// A row is not what this version writes.
    #[error("the store has a row that cannot be read: {0}")]
    Row(&'static str),
    /// A defect of ours.
    #[error(transparent)]
    IllegalMove(#[from] IllegalMove),
    /// Somebody changed records in the store, past guestlane.
    #[error("the records of audit log {0} in the store are not those that were written: somebody changed them")]
    RecordsChanged(u32),
    /// A record has no place to go to: the store was opened for looking only. A defect of ours.
    #[error("the store was opened without its audit log")]
    NoAuditLog,
    /// The thread that writes is gone.
    #[error("the store is closed")]
    Closed,
}

/// What a write came to: it is in the store. Whether the audit file has it too is told apart, because only some must care.
#[derive(Debug)]
pub struct Committed<T> {
    /// What the write answered.
    pub value: T,
    /// Whether the audit file is up to date.
    pub audit: Result<(), std::sync::Arc<AuditError>>,
}

/// What the store promises, each at a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guarantees {
    /// What was answered survives the power cut.
    pub durable: bool,
    /// What was done stands in the audit log.
    pub audited: bool,
}

impl Default for Guarantees {
    fn default() -> Self {
        Self { durable: true, audited: true }
    }
}

/// How long a write waits for another process to finish its own.
const BUSY: Duration = Duration::from_secs(5);

/// What can be seen of a store without touching it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glance {
    /// The format it has.
    pub format: u32,
    /// The format that this version writes.
    pub known: u32,
    /// Whether it has keys: nobody has used it before that.
    pub has_keys: bool,
    /// The platform it belongs to.
    pub platform: Option<String>,
}

impl Store {
    /// Looks at `path` without making, changing or bringing up anything.
    pub fn glance(path: &Path) -> Result<Glance, StoreError> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY)?;
        let format = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let has = |sql| connection.query_row(sql, [], |row| row.get::<_, bool>(0)).unwrap_or(false);
        let has_keys = has("SELECT count(*) > 0 FROM signing_key");
        let platform = connection.query_row("SELECT base_url FROM platform", [], |row| row.get(0)).ok();
        Ok(Glance { format, known: migrations::known(), has_keys, platform })
    }

    /// Opens `path`, making it and its directory when missing.
    pub fn open(path: &Path, clock: &Clock, seams: &Seams) -> Result<Self, StoreError> {
        let open = |error| StoreError::Open(path.to_owned(), error);
        make_directory(path).map_err(open)?;
        // SQLite's own message for a directory that cannot be written is «attempt to write a readonly database».
        fs::OpenOptions::new().read(true).append(true).create(true).open(path).map_err(open)?;
        sync_directory(path).map_err(open)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(open)?;

        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        migrations::run(&mut connection, path)?;
        let reader = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        reader.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(64);
        reader.set_prepared_statement_cache_capacity(64);
        let writer = Writer::start(connection, clock.clone(), seams.clone())?;
        let reader = Reader::start(reader, clock.clone())?;
        Ok(Self { writer, reader, path: path.to_owned(), clock: clock.clone(), seams: seams.clone() })
    }

    /// Goes without a guarantee, for a measurement of what it costs.
    pub(crate) async fn go_without(&self, guarantees: Guarantees) -> Result<(), StoreError> {
        if guarantees == Guarantees::default() { Ok(()) } else { self.writer.go_without(guarantees).await }
    }

    /// Keeps the audit log from now on. With `mend`, ends what a process before began: records that are not in the files, bytes that must go.
    /// Who only looks, mends nothing: what somebody did to the files must be seen.
    pub async fn keep_audit_log(&self, settings: AuditSettings, signer: Arc<NoteSigner>, mend: bool) -> Result<(), StoreError> {
        let logs = Logs::new(settings, signer, self.path.clone(), self.clock.clone(), self.seams.clone());
        self.writer.keep(logs, mend).await?;
        if !mend {
            return Ok(());
        }
        if let Err(error) = self.end_chores().await {
            warn!(
                error = crate::error::chain(&error),
                "an erased guest's bytes are still in the store's file; the next start tries again"
            );
        }
        Ok(())
    }
}
