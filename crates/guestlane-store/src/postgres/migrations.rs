//! The formats of the database, in the order in which they were released. The table `format` has the number of the present one.

use super::connection::{Connection, DbResult};
use crate::StoreError;

/// Never changed once released; a new format is a new entry.
const FORMATS: &[&str] = &[include_str!("format_1.sql")];

/// Of two processes that start at once, one brings the database up, and the other one waits. Means nothing.
pub(crate) const LOCK: i64 = 0x6775_6573_746c_616e;

/// The format that this version writes.
pub(super) fn known() -> u32 {
    u32::try_from(FORMATS.len()).unwrap_or(u32::MAX)
}

/// As [`known`], as the database counts it.
pub(super) fn known_number() -> i32 {
    i32::try_from(FORMATS.len()).unwrap_or(i32::MAX)
}

/// The format that is there; `None`: none.
pub(super) fn found(connection: &mut Connection) -> DbResult<Option<u32>> {
    // Asked of the catalogue's rows: what this connection remembers of names may be older than the lock that was waited for.
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
