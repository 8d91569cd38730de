//! Changes that were made without an audit log and still need an audit record.

use guestlane_runtime::Timestamp;

use super::Postgres;
use crate::StoreError;
use guestlane_core::audit::{AuditRecord, UNRECORDED};

pub(super) async fn record_unrecorded(store: &Postgres, now: Timestamp) -> Result<(), StoreError> {
    let waits = "SELECT 1 FROM property WHERE starts_with(name, $1)";
    if store
        .workers
        .read(move |connection| connection.query_opt(waits, &[&UNRECORDED]))
        .await?
        .is_none()
    {
        return Ok(());
    }
    let recorded = store.writer.transact(move |tx, records| {
        let taken = tx.query(
            "DELETE FROM property WHERE starts_with(name, $1) RETURNING name, value",
            &[&UNRECORDED],
        )?;
        records.clear();
        for row in taken {
            records.extend(AuditRecord::unrecorded(
                row.try_get(0)?,
                row.try_get(1)?,
                now,
            ));
        }
        Ok(())
    });
    recorded.await.map(drop)
}
