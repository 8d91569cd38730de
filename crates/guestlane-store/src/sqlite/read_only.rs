//! Stores that cannot be written: detection, and opening them for reads.

use std::{fs, io, path::Path};

use guestlane_runtime::{Clock, FailPoints};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{
    BUSY, Sqlite, migrations, retention, sqlite_code,
    writer::{Reader, Writer},
};
use crate::{ReadLimits, StoreError, queries, write_health::WriteHealth};
use guestlane_runtime::durable_fs::is_read_only;

impl Sqlite {
    /// Tests whether the store can be written, by a write in a transaction that is rolled back.
    pub(crate) fn try_to_write(path: &Path) -> Result<(), StoreError> {
        let connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        connection.busy_timeout(BUSY)?;
        let transaction = connection.unchecked_transaction()?;
        let write = queries::TRY_TO_WRITE;
        transaction.execute(write, [])?;
        Ok(transaction.rollback()?)
    }

    /// Opens a store for reads if its file or directory cannot be written.
    pub(crate) fn open_read_only(
        path: &Path,
        health: &WriteHealth,
        clock: &Clock,
        fail_points: &FailPoints,
    ) -> Result<Self, StoreError> {
        let (connection, reader) = (read_only(path)?, read_only(path)?);
        let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let known = migrations::known();
        if found > known {
            return Err(StoreError::Newer {
                path: path.display().to_string(),
                found,
                known,
            });
        }
        if found < known {
            let reason = format!(
                "it has format {found}, must be upgraded to format {known}, and is read-only"
            );
            return Err(StoreError::Open(
                path.to_owned(),
                io::Error::new(io::ErrorKind::ReadOnlyFilesystem, reason),
            ));
        }
        let mark = retention::as_it_is(&connection, clock)?;
        let writer = Writer::start(
            connection,
            mark,
            health.clone(),
            clock.clone(),
            fail_points.clone(),
        )?;
        let reader = Reader::start(reader, ReadLimits::ENGINE, clock.clone())?;
        Ok(Self {
            writer,
            reader,
            path: path.to_owned(),
            clock: clock.clone(),
            fail_points: fail_points.clone(),
            _used: None,
        })
    }
}

/// Returns whether opening a store failed because its file or directory cannot be written.
pub(crate) fn cannot_be_written(error: &StoreError) -> bool {
    match error {
        StoreError::Open(_, error) => is_read_only(error),
        _ => matches!(
            sqlite_code(error),
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied)
        ),
    }
}

/// Opens a connection that writes neither the file nor any file beside it. SQLite reads the
/// write-ahead log where it can be used (<https://www.sqlite.org/wal.html#read_only_databases>).
/// Without a write-ahead log, the file is opened as immutable.
fn read_only(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let absolute =
        std::path::absolute(path).map_err(|error| StoreError::Open(path.to_owned(), error))?;
    let mut url = url::Url::from_file_path(&absolute).map_err(|()| {
        StoreError::Open(
            path.to_owned(),
            io::Error::other("its path cannot be converted to a URL"),
        )
    })?;
    let open = |url: &url::Url| {
        let connection = Connection::open_with_flags(url.as_str(), flags)?;
        connection.busy_timeout(BUSY)?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok::<_, rusqlite::Error>(connection)
    };
    let failed = match open(&url) {
        Ok(connection) => return Ok(connection),
        Err(error) => error,
    };
    let mut wal = path.to_owned().into_os_string();
    wal.push("-wal");
    if fs::metadata(&wal).is_ok_and(|wal| wal.len() > 0) {
        // An immutable database ignores its write-ahead log, so the newest sessions would be
        // missing.
        return Err(failed.into());
    }
    url.set_query(Some("immutable=1"));
    Ok(open(&url)?)
}
