//! The schema formats of the store, in the order of their release. `user_version` is the number of
//! a file's present format.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::StoreError;

/// A released format never changes; a new format is a new entry.
const FORMATS: &[&str] = &[include_str!("format_1.sql")];

/// Returns the number of the format that this version writes.
pub(super) fn known() -> u32 {
    u32::try_from(FORMATS.len()).unwrap_or(u32::MAX)
}

/// Returns [`StoreError::Superseded`] if another version has changed the format of the file. A
/// running process then stops writing, because it does not know the rules of the new columns.
pub(super) fn expect_known(connection: &Connection) -> Result<(), StoreError> {
    let known = known();
    let found = connection
        .prepare_cached("PRAGMA user_version")?
        .query_row([], |row| row.get(0))?;
    if found == known {
        Ok(())
    } else {
        Err(StoreError::Superseded { found, known })
    }
}

pub(super) fn run(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    // WAL is a property of the file, and `synchronous = FULL` one of the connection. With both, an
    // acknowledged commit survives a power failure.
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", "on")?;
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found as usize == FORMATS.len() {
        // Nothing is to be written, so do not wait for the write lock.
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = known();
    if found > known {
        return Err(StoreError::Newer {
            path: path.display().to_string(),
            found,
            known,
        });
    }
    for format in FORMATS.iter().skip(found as usize) {
        transaction.execute_batch(format)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}
