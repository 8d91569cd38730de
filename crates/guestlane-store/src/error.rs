//! Errors of the store.

use std::{io, path::PathBuf, time::Duration};

use guestlane_core::session::IllegalTransition;
use tracing::{debug, warn};

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
    Sqlite(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An error of PostgreSQL.
    #[error("the database failed: {message}")]
    Postgres {
        /// The message, without the row and the values that it concerns: they may be personal data.
        message: String,
        /// The SQLSTATE, if the server sent the error.
        code: Option<String>,
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

#[cfg(feature = "sqlite")]
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Box::new(error))
    }
}

#[cfg(feature = "postgres")]
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
                let lost = code.starts_with("57P") || code.starts_with("08") || code == "25P03"; // idle in transaction for too long
                Self::Postgres {
                    message: said.message().to_owned(),
                    code: Some(said.code().code().to_owned()),
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
    /// Whether a connection pool in front of the database uses another connection for each
    /// transaction (SQLSTATE 26000: the prepared statement does not exist; 42P05: it exists
    /// already).
    pub fn is_transaction_pooling(&self) -> bool {
        match self {
            Self::TransactionPooling => true,
            Self::Postgres {
                code: Some(code), ..
            } => ["26000", "42P05"].contains(&code.as_str()),
            _ => false,
        }
    }

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
