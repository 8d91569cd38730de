//! Migrates a store from an SQLite file to a PostgreSQL database. Afterwards the file is refused.
//!
//! Before the first row is copied, the file is durably marked. From then on no process opens it, so
//! it cannot change after its rows were copied. The same command finishes an interrupted migration,
//! or [`abandon`] ends it.
//!
//! The file can still change, after an abandoned migration or a restored backup. A resumed
//! migration therefore compares the rows and replaces them from the first difference on. At the end
//! the digests of all tables and the roots of all audit logs must be equal.

mod claim;
mod rows;
mod table;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use claim::{begin, is_not_marked_for_another, missing_audit_file, open_alone};
use guestlane_core::audit::{ChangeAction, UNRECORDED};
use guestlane_runtime::{FailPoint, FailPoints, Timestamp};
use guestlane_tlog::{Frontier, leaf_hash};
use rusqlite::{Connection as File, TransactionBehavior};
use table::TABLES;

use super::{
    PostgresUrl, StoreError,
    postgres::{Connection, NodeIdentity, detect_transaction_pooling, migrate},
    sqlite::{self, Marked},
    trusted_time::{HORIZON, MARK},
};

/// The result of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationReport {
    /// Number of rows of each table. The file and the database have the same rows, with the same
    /// digest.
    pub rows: BTreeMap<&'static str, u64>,
    /// SHA-256 over all columns of all rows of each table, in hexadecimal.
    pub digests: BTreeMap<&'static str, String>,
    /// Number of rows that this run copied. An interrupted earlier run copied the others.
    pub copied_now: u64,
    /// Number and size of each audit log. Its root is the same in the file and in the database.
    pub logs: Vec<(u32, u64)>,
}

/// Progress of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigrationProgress {
    /// Name of the table.
    pub table: &'static str,
    /// Number of its rows in the database.
    pub done: u64,
    /// Number of its rows in the file.
    pub of: u64,
}

/// The reason why a migration failed.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// One of the stores cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database contains another store.
    #[error("the database already has another store")]
    NotEmpty,
    /// Another process has the file open.
    #[error("another process uses the store {}", .0.display())]
    InUse(PathBuf),
    /// The migration is finished. The database may have been used since.
    #[error("this store was already copied into the database")]
    AlreadyMigrated,
    /// A migration to another database was started, and neither finished nor abandoned.
    #[error("the store {} is being moved to {to}", .path.display())]
    WrongTarget {
        /// Path of the SQLite file.
        path: PathBuf,
        /// The database that the mark in the file names.
        to: String,
    },
    /// There is no migration to abandon.
    #[error("the store {} has no move to abandon", .0.display())]
    NotStarted(PathBuf),
    /// A file of an open audit log is missing from the state directory.
    #[error("the audit log file {} is missing", .0.display())]
    NoAuditFile(PathBuf),
    /// The two stores differ after the copy.
    #[error("{what} differs: {from} in the file, {to} in the database")]
    Differs {
        /// The table or audit log that differs.
        what: String,
        /// Its digest or root in the file.
        from: String,
        /// Its digest or root in the database.
        to: String,
    },
}

impl From<rusqlite::Error> for MigrationError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Time limit of one statement, which may read all rows of a table.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(600);

/// Migrates the store in the file `from` to the database `to`. Blocks the thread.
///
/// Afterwards the audit logs belong to the state directory `home`, which contains their files.
/// `audit_log` is the path of the first file.
///
/// # Errors
/// Returns a [`MigrationError`] if a store cannot be used, or if the two differ after the copy.
/// Once the file is marked, it stays refused until the migration is finished or ended by
/// [`abandon`].
pub fn migrate_store(
    from: &Path,
    to: &PostgresUrl,
    home: &Path,
    audit_log: &Path,
    now: Timestamp,
    fail_points: &FailPoints,
    mut progress: impl FnMut(MigrationProgress),
) -> Result<MigrationReport, MigrationError> {
    let (mut file, _locked) = open_alone(from)?;
    if let Some(missing) = missing_audit_file(&file, audit_log)? {
        return Err(MigrationError::NoAuditFile(missing));
    }
    let home = NodeIdentity::in_directory(home.to_owned())?;
    let mut database = Connection::new(to.clone(), "", STATEMENT_TIMEOUT)?;
    database.ensure_open()?;
    detect_transaction_pooling(
        &mut database,
        &mut Connection::new(to.clone(), "", STATEMENT_TIMEOUT)?,
    )?;
    migrate(&mut database, &to.to_string())?;
    // Two schemas of one database are two stores.
    let schema: String = database
        .query_one("SELECT current_schema()::text", &[])?
        .get(0);
    let target = format!("{to}, schema {schema}");
    is_not_marked_for_another(&file, from, &target)?;
    begin(&file, &mut database, now)?;
    if sqlite::marked(&file)?.is_none() {
        sqlite::mark(&file, &Marked::Moving(target.clone()))?;
    }
    fail_points.hit_blocking(FailPoint::MoveMarked);

    let file = file.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut copied = MigrationReport {
        rows: BTreeMap::new(),
        digests: BTreeMap::new(),
        copied_now: 0,
        logs: Vec::new(),
    };
    for table in TABLES {
        let of = count(&file, table.name)?;
        let report = |done| {
            progress(MigrationProgress {
                table: table.name,
                done,
                of,
            })
        };
        copied.copied_now += table.copy(&file, &mut database, home.id, fail_points, report)?;
        copied.rows.insert(table.name, of);
    }
    database
        .execute("SELECT setval(pg_get_serial_sequence('outbox', 'seq'), (SELECT coalesce(max(seq), 0) + 1 FROM outbox))", &[])?;
    // The interrupted run may have used another state directory.
    database.execute(
        "UPDATE audit_log SET home = $1 WHERE home <> $1",
        &[&home.id],
    )?;
    for table in TABLES {
        let (in_file, in_database) = table.digests(&file, &mut database)?;
        if in_file != in_database {
            return Err(differs(table.name, in_file, in_database));
        }
        copied.digests.insert(table.name, in_file);
    }
    copied.logs = compare_logs(&file, &mut database)?;
    // Mark the file as moved before the database may be opened, so that both stores are never in
    // use at once.
    sqlite::mark(&file, &Marked::Moved(target))?;
    file.commit()?;
    fail_points.hit_blocking(FailPoint::StoreMoved);
    finish(&mut database, now)?;
    Ok(copied)
}

/// Opens the database for use. The first process that uses it records the migration in the audit
/// log.
fn finish(database: &mut Connection, now: Timestamp) -> Result<(), MigrationError> {
    // Retention restarts with the database's clock, because the mark of the file does not apply to
    // it.
    database.execute(
        "DELETE FROM property WHERE name = ANY($1)",
        &[&[MARK, HORIZON].as_slice()],
    )?;
    let name = format!("{UNRECORDED}{}", ChangeAction::StoreMoved.name());
    let sql = "WITH moved AS (INSERT INTO property (name, value) SELECT $2, value FROM property WHERE name = 'store_id' \
         ON CONFLICT (name) DO UPDATE SET value = excluded.value) UPDATE migration SET completed_at = $1 WHERE completed_at IS NULL";
    database.repeated(|database| {
        database
            .execute(sql, &[&now.unix_micros(), &name])
            .map(drop)
    })?;
    Ok(())
}

/// Returns the database that an unfinished migration of the file goes to. Does not
/// change the state of the migration. Blocks the thread.
///
/// # Errors
/// Returns the same errors as [`abandon`].
pub fn unfinished(from: &Path) -> Result<String, MigrationError> {
    let (file, _locked) = open_alone(from)?;
    match sqlite::marked(&file)? {
        Some(Marked::Moving(to)) => Ok(to),
        Some(Marked::Moved(to)) => Err(StoreError::Migrated {
            path: from.to_owned(),
            to,
        }
        .into()),
        None => Err(MigrationError::NotStarted(from.to_owned())),
    }
}

/// Ends an unfinished migration, so that the file can be used again. Blocks the thread.
///
/// Returns the database that the migration went to. The database stays refused, because its rows
/// are out of date. A later [`migrate_store`] to it updates them.
///
/// # Errors
/// Returns [`MigrationError::NotStarted`] if no migration was started. Returns
/// [`StoreError::Migrated`] if it is finished, because the database may be in use.
pub fn abandon(from: &Path) -> Result<String, MigrationError> {
    let (mut file, _locked) = open_alone(from)?;
    match sqlite::marked(&file)? {
        Some(Marked::Moving(to)) => {
            sqlite::unmark(&mut file, &to)?;
            Ok(to)
        }
        Some(Marked::Moved(to)) => Err(StoreError::Migrated {
            path: from.to_owned(),
            to,
        }
        .into()),
        None => Err(MigrationError::NotStarted(from.to_owned())),
    }
}

fn differs(what: impl Into<String>, from: impl ToString, to: impl ToString) -> MigrationError {
    MigrationError::Differs {
        what: what.into(),
        from: from.to_string(),
        to: to.to_string(),
    }
}

fn count(file: &File, table: &str) -> Result<u64, MigrationError> {
    Ok(
        file.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
            row.get(0)
        })?,
    )
}

/// Checks that the lines of each log in the database lead to the root in the file. Returns the
/// number and size of each log.
fn compare_logs(file: &File, database: &mut Connection) -> Result<Vec<(u32, u64)>, MigrationError> {
    let mut logs = Vec::new();
    let mut select = file.prepare("SELECT log, size, frontier FROM audit_log ORDER BY log")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (log, size, frontier): (u32, u64, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let wanted =
            Frontier::from_bytes(size, &frontier).ok_or(StoreError::Row("audit_log.frontier"))?;
        let mut found = Frontier::default();
        loop {
            let from = i64::try_from(found.size()).unwrap_or(i64::MAX);
            let lines = "SELECT line FROM audit_record WHERE log = $1 AND idx >= $2 ORDER BY idx LIMIT 10000";
            let lines = database.query(lines, &[&i64::from(log), &from])?;
            if lines.is_empty() {
                break;
            }
            lines
                .iter()
                .for_each(|row| found.push(leaf_hash(row.get::<_, &str>(0).as_bytes())));
        }
        if found != wanted {
            return Err(differs(
                format!("the audit log {log}"),
                hex(&wanted.root()),
                hex(&found.root()),
            ));
        }
        logs.push((log, size));
    }
    Ok(logs)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
