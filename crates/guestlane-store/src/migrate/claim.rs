//! Which of the two stores owns the data, while a migration runs.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use guestlane_runtime::Timestamp;
use guestlane_tlog::lines_path;
use rusqlite::{Connection as File, OpenFlags, OptionalExtension};

use super::{
    super::{
        StoreError,
        postgres::{Connection, LOCK},
        sqlite::{self, Marked},
    },
    MigrationError,
};

/// Opens the file for this process alone. The second value is the lock; dropping it releases the
/// file.
pub(super) fn open_alone(from: &Path) -> Result<(File, std::fs::File), MigrationError> {
    let users = sqlite::lock_file(from)?;
    users
        .try_lock()
        .map_err(|_| MigrationError::InUse(from.to_owned()))?;
    let mut file = File::open_with_flags(
        from,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    file.busy_timeout(Duration::from_secs(5))?;
    sqlite::migrate_schema(&mut file, from)?;
    Ok((file, users))
}

/// Checks that the file is not marked for another database. Two databases with the same sessions
/// would both continue their sagas.
pub(super) fn is_not_marked_for_another(
    file: &File,
    from: &Path,
    target: &str,
) -> Result<(), MigrationError> {
    match sqlite::marked(file)? {
        Some(Marked::Moving(to)) if to != target => Err(MigrationError::WrongTarget {
            path: from.to_owned(),
            to,
        }),
        Some(Marked::Moved(to)) if to != target => Err(StoreError::Migrated {
            path: from.to_owned(),
            to,
        }
        .into()),
        Some(_) | None => Ok(()),
    }
}

/// Claims the database for this store. It must be empty, or contain rows of an earlier run for the
/// same store.
pub(super) fn begin(
    file: &File,
    database: &mut Connection,
    now: Timestamp,
) -> Result<(), MigrationError> {
    const STORE_ID: &str = "SELECT value FROM property WHERE name = 'store_id'";
    let source: Option<String> = file.query_row(STORE_ID, [], |row| row.get(0)).optional()?;
    let source = source
        .ok_or(StoreError::Row("property.store_id"))?
        .into_bytes();
    match database.transaction(|tx| take(tx, &source, now))? {
        Taken::Ours => Ok(()),
        Taken::Finished => Err(MigrationError::AlreadyMigrated),
        Taken::Others => Err(MigrationError::NotEmpty),
    }
}

/// The state of a database that a migration tries to claim.
enum Taken {
    Ours,
    Finished,
    Others,
}

/// Claims an empty database for the migration. A node that starts at the same time writes its first
/// row under the same advisory lock, so one of the two sees the other's row.
fn take(tx: &mut Connection, source: &[u8], now: Timestamp) -> Result<Taken, StoreError> {
    tx.query("SELECT pg_advisory_xact_lock($1)", &[&LOCK])?;
    let known = tx.query_opt(
        "SELECT source, completed_at IS NOT NULL FROM migration",
        &[],
    )?;
    match known.map(|row| (row.get::<_, Vec<u8>>(0), row.get::<_, bool>(1))) {
        Some((known, true)) if known == source => return Ok(Taken::Finished),
        Some((known, false)) if known == source => return Ok(Taken::Ours),
        Some(_) => return Ok(Taken::Others),
        None => {}
    }
    for table in ["session", "signing_key", "platform", "audit_log"] {
        if tx
            .query_one(&format!("SELECT EXISTS (SELECT 1 FROM {table})"), &[])?
            .get(0)
        {
            return Ok(Taken::Others);
        }
    }
    tx.execute(
        "INSERT INTO migration (source, started_at) VALUES ($1, $2)",
        &[&source, &now.unix_micros()],
    )?;
    Ok(Taken::Ours)
}

/// Returns the path of an open log's file that is missing.
pub(super) fn missing_audit_file(
    file: &File,
    first: &Path,
) -> Result<Option<PathBuf>, MigrationError> {
    let mut open = file
        .prepare("SELECT log FROM audit_log WHERE closed_at IS NULL AND size > 0 ORDER BY log")?;
    let logs = open
        .query_map([], |row| row.get(0))?
        .collect::<Result<Vec<u32>, _>>()?;
    Ok(logs
        .into_iter()
        .map(|log| lines_path(first, log))
        .find(|path| !path.exists()))
}
