//! The SQLite store: one database file on one machine, with no server to install.

mod api_keys;
mod audit;
mod backend;
mod begin;
mod counters;
mod deliveries;
mod endpoints;
mod guests;
mod keys;
mod migrations;
mod prune;
mod read_only;
mod records;
mod retention;
mod rows;
mod sealed;
mod sessions;
mod writer;

use crate::queries;
use std::{
    fs::{self, File},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{ReadLimits, StoreError, StoreInfo, write_health::WriteHealth};
#[cfg(feature = "postgres")]
use guestlane_core::audit::{ChangeAction, UNRECORDED};
use guestlane_runtime::{
    Clock, FailPoints,
    durable_fs::{make_directory, sync_directory},
};
pub(super) use read_only::cannot_be_written;
use writer::{Reader, Tx, Writer};

/// A store in one SQLite file. Clones are cheap; the file is closed when the last clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct Sqlite {
    writer: Writer,
    reader: Reader,
    path: PathBuf,
    clock: Clock,
    fail_points: FailPoints,
    /// Shared lock that every process holds while it uses the file. It keeps a migration to
    /// PostgreSQL from starting meanwhile. It is `None` for a file that cannot be written.
    _used: Option<Arc<File>>,
}

/// Opens the lock file of a store. Processes that use the store lock it shared; a migration to
/// PostgreSQL locks it exclusively.
pub(super) fn lock_file(path: &Path) -> Result<File, StoreError> {
    let mut lock = path.to_owned().into_os_string();
    lock.push(".users.lock");
    let lock = PathBuf::from(lock);
    let opened = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock);
    opened.map_err(|error| StoreError::Open(lock, error))
}

/// Returns the code of an error that SQLite reported.
fn sqlite_code(error: &StoreError) -> Option<ErrorCode> {
    match error {
        StoreError::Sqlite(error) => error.downcast_ref::<rusqlite::Error>()?.sqlite_error_code(),
        _ => None,
    }
}

/// State of a migration to PostgreSQL, recorded in the file as a row of `maintenance_task`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Marked {
    /// The migration to this database has started. The file is refused until the migration is
    /// finished or abandoned.
    Moving(String),
    /// The sessions are in this database. The file is refused permanently.
    Moved(String),
}

const MOVING: &str = "moving to ";
const MIGRATED_PREFIX: &str = "moved to ";

/// Returns the migration mark of the file, if it has one. After a finished migration the file has
/// both marks; `Moved` sorts first and takes precedence.
pub(super) fn marked(connection: &Connection) -> Result<Option<Marked>, StoreError> {
    let mut select = connection.prepare(
        "SELECT name FROM maintenance_task WHERE name >= 'mov' AND name < 'mow' ORDER BY name",
    )?;
    let names = select
        .query_map([], |row| row.get::<_, String>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    let mark = |name: &String| {
        let moved = name
            .strip_prefix(MIGRATED_PREFIX)
            .map(|to| Marked::Moved(to.to_owned()));
        moved.or_else(|| {
            name.strip_prefix(MOVING)
                .map(|to| Marked::Moving(to.to_owned()))
        })
    };
    Ok(names.iter().find_map(mark))
}

/// Writes the migration mark to the file.
#[cfg(feature = "postgres")]
pub(super) fn mark(connection: &Connection, mark: &Marked) -> Result<(), StoreError> {
    let name = match mark {
        Marked::Moving(to) => format!("{MOVING}{to}"),
        Marked::Moved(to) => format!("{MIGRATED_PREFIX}{to}"),
    };
    connection.execute(
        "INSERT INTO maintenance_task (name) VALUES (?1) ON CONFLICT DO NOTHING",
        [name],
    )?;
    Ok(())
}

/// Removes the mark of the abandoned migration to `to`. The next start writes the audit record of
/// this change.
#[cfg(feature = "postgres")]
pub(super) fn unmark(connection: &mut Connection, to: &str) -> Result<(), StoreError> {
    let transaction = connection.transaction()?;
    transaction.execute(
        "DELETE FROM maintenance_task WHERE name >= ?1 AND name < 'moving to!'",
        [MOVING],
    )?;
    let name = format!("{UNRECORDED}{}", ChangeAction::MoveAbandoned.name());
    transaction.execute(
        "INSERT OR REPLACE INTO property (name, value) VALUES (?1, ?2)",
        [&name, to],
    )?;
    Ok(transaction.commit()?)
}

/// Migrates the schema of a file to the format that this version writes.
#[cfg(feature = "postgres")]
pub(super) fn migrate_schema(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    migrations::run(connection, path)
}

fn reader(path: &Path, limits: ReadLimits, clock: &Clock) -> Result<Reader, StoreError> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    Reader::start(connection, limits, clock.clone())
}

/// How long a connection waits for a lock that another process holds.
const BUSY: Duration = Duration::from_secs(5);

impl Sqlite {
    pub(crate) fn inspect(path: &Path) -> Result<StoreInfo, StoreError> {
        let connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        connection.busy_timeout(BUSY)?;
        let format = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let has = |sql| {
            connection
                .query_row(sql, [], |row| row.get::<_, bool>(0))
                .unwrap_or(false)
        };
        let has_keys = has("SELECT count(*) > 0 FROM signing_key");
        let platform = connection
            .query_row(queries::SELECT_PLATFORM, [], |row| row.get(0))
            .ok();
        Ok(StoreInfo {
            format,
            known: migrations::known(),
            has_keys,
            platform,
        })
    }

    pub(crate) fn open(
        path: &Path,
        health: &WriteHealth,
        clock: &Clock,
        fail_points: &FailPoints,
    ) -> Result<Self, StoreError> {
        let open = |error| StoreError::Open(path.to_owned(), error);
        make_directory(path).map_err(open)?;
        // Open the file first, because SQLite reports a directory that cannot be written as
        // `attempt to write a readonly database`.
        fs::OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(open)?;
        sync_directory(path).map_err(open)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(open)?;

        let used = lock_file(path)?;
        used.try_lock_shared()
            .map_err(|_| StoreError::MigrationInProgress(path.to_owned()))?;
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        migrations::run(&mut connection, path)?;
        match marked(&connection)? {
            Some(Marked::Moving(to)) => {
                return Err(StoreError::MigrationUnfinished {
                    path: path.to_owned(),
                    to,
                });
            }
            Some(Marked::Moved(to)) => {
                return Err(StoreError::Migrated {
                    path: path.to_owned(),
                    to,
                });
            }
            None => {}
        }
        connection.set_prepared_statement_cache_capacity(64);
        let mark = retention::begin(&mut connection, clock)?;
        let writer = Writer::start(
            connection,
            mark,
            health.clone(),
            clock.clone(),
            fail_points.clone(),
        )?;
        let reader = reader(path, ReadLimits::ENGINE, clock)?;
        Ok(Self {
            writer,
            reader,
            path: path.to_owned(),
            clock: clock.clone(),
            fail_points: fail_points.clone(),
            _used: Some(Arc::new(used)),
        })
    }
}
