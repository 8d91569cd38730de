//! The formats of the database, in the order of their release. The table `format` holds the current
//! number.

use super::connection::{Connection, DbResult};
use crate::StoreError;

/// The migrations. A released one never changes; a new format is a new entry.
const FORMATS: &[&str] = &[include_str!("format_1.sql")];

/// Key of the advisory lock that migrations and `store migrate` hold, so that only one process at a
/// time changes the format. The number is arbitrary.
pub(crate) const LOCK: i64 = 0x6775_6573_746c_616e;

/// The format that this version writes.
pub(super) fn known() -> u32 {
    u32::try_from(FORMATS.len()).unwrap_or(u32::MAX)
}

/// Like [`known`], in the type of the database column.
pub(super) fn known_number() -> i32 {
    i32::try_from(FORMATS.len()).unwrap_or(i32::MAX)
}

/// Returns the format of the database, or `None` if the database has no store.
pub(super) fn found(connection: &mut Connection) -> DbResult<Option<u32>> {
    // Query the catalog tables: this connection may cache names from before it waited for the lock.
    let is_there = "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relname = 'format' AND n.nspname = current_schema()";
    if connection.query(is_there, &[])?.is_empty() {
        return Ok(None);
    }
    let row = connection.query_opt("SELECT number FROM format", &[])?;
    row.map(|row| u32::try_from(row.get::<_, i32>(0)).map_err(|_| StoreError::Row("format.number")))
        .transpose()
}

pub(crate) fn run(connection: &mut Connection, at: &str) -> DbResult<()> {
    let known = known();
    if found(connection)? == Some(known) {
        return Ok(());
    }
    connection.transaction(|tx| {
        tx.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])?;
        let found = found(tx)?.unwrap_or(0);
        if found > known {
            return Err(StoreError::Newer { path: at.to_owned(), found, known });
        }
        if found == 0 {
            tx.batch(
                "CREATE TABLE IF NOT EXISTS format (number integer NOT NULL); DELETE FROM format; INSERT INTO format VALUES (0)",
            )?;
        }
        for format in FORMATS.iter().skip(found as usize) {
            tx.batch(format)?;
        }
        tx.execute("UPDATE format SET number = $1", &[&known_number()])?;
        Ok(())
    })
}
