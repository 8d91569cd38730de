//! Gauges of the store. They are read every second and use only indexes, so that their cost does
//! not grow with the number of sessions.

use guestlane_runtime::Timestamp;

use super::Sqlite;
use crate::{StoreError, StoreGauges, row::UNFINISHED};

pub(super) async fn gauges(store: &Sqlite) -> Result<StoreGauges, StoreError> {
    store.reader
        .read(|connection| {
            let counted = |sql: &str| {
                let row =
                    connection.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?)))?;
                Ok::<_, StoreError>((row.0, row.1.map(Timestamp::from_unix_micros)))
            };
            // IDs are in the order of admission and part of the index, so finding the oldest
            // session scans no table.
            let (unfinished, _) = counted(&format!("SELECT count(*), NULL FROM session WHERE {UNFINISHED}"))?;
            let oldest =
                format!("SELECT 0, admitted_at FROM session WHERE id = (SELECT min(id) FROM session WHERE {UNFINISHED})");
            let oldest_unfinished = if unfinished > 0 { counted(&oldest)?.1 } else { None };
            let (failed, _) = counted("SELECT count(*), NULL FROM session WHERE state = 'failed'")?;
            let (needs_attention, _) = counted("SELECT count(*), NULL FROM session WHERE state = 'needs_attention'")?;
            let (pending_events, oldest_event) =
                counted("SELECT count(*), min(created_at) FROM outbox WHERE state = 'pending'")?;
            let (dead_events, _) = counted("SELECT count(*), NULL FROM outbox WHERE state = 'dead'")?;
            let mut log = connection.prepare_cached("SELECT log, size FROM audit_log ORDER BY log DESC LIMIT 1")?;
            let audit = log.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.next().transpose()?;
            Ok(StoreGauges {
                unfinished,
                oldest_unfinished,
                failed,
                needs_attention,
                pending_events,
                oldest_event,
                dead_events,
                audit,
            })
        })
        .await
}
