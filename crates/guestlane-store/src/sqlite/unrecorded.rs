//! Changes whose audit records are still to be written.

use guestlane_runtime::Timestamp;
use rusqlite::Connection;

use super::Sqlite;
use crate::StoreError;
use guestlane_core::audit::{AuditRecord, UNRECORDED};

pub(super) async fn record_unrecorded(store: &Sqlite, now: Timestamp) -> Result<(), StoreError> {
    if store.reader.read(unrecorded).await?.is_empty() {
        return Ok(());
    }
    let recorded = store.writer.run(move |tx| {
        for (name, subject) in unrecorded(tx)? {
            if let Some(entry) = AuditRecord::unrecorded(&name, subject, now) {
                tx.record(entry);
            }
            tx.execute("DELETE FROM property WHERE name = ?1", [name])?;
        }
        Ok(())
    });
    recorded.await.map(drop)
}

fn unrecorded(connection: &Connection) -> Result<Vec<(String, String)>, StoreError> {
    let mut select = connection.prepare(
        "SELECT name, value FROM property WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name",
    )?;
    let rows = select.query_map([UNRECORDED], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
