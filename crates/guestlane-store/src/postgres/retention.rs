//! How far retention deletes in a database, by the database's clock, and the deletion of batches.

use std::time::Duration;

use async_trait::async_trait;
use guestlane_core::session::SessionId;
use guestlane_runtime::Timestamp;
use uuid::Uuid;

use super::{
    Postgres,
    connection::{Connection, DbResult},
    prune,
};
use crate::{
    Pruned, Retention, StoreError, queries,
    trusted_time::{HORIZON, Horizon},
};

/// Number of rows of ended batches that one transaction deletes.
const ROWS: i64 = 1000;

#[async_trait]
impl Retention for Postgres {
    async fn advance_retention(
        &self,
        keep: Option<Duration>,
    ) -> Result<Option<Timestamp>, StoreError> {
        if !self.is_clock_close() {
            return Ok(None);
        }
        let Some(keep) = keep else { return Ok(None) };
        let now = self.clock.now();
        let horizon = self.workers.write(move |tx| {
            // The lock of the row serializes nodes that advance the horizon at the same moment.
            let lock = "INSERT INTO property (name, value) VALUES ($1, '') ON CONFLICT (name) DO UPDATE SET name = excluded.name \
                 RETURNING value";
            let before = Horizon::from_text(tx.query_one(lock, &[&HORIZON])?.try_get(0)?);
            let oldest = tx.query_opt(queries::SELECT_OLDEST_SESSION, &[])?;
            let oldest = oldest.map(|row| row.try_get(0)).transpose()?.map_or(now, Timestamp::from_unix_micros);
            let horizon = Horizon::advanced(before, oldest, now - keep, now);
            tx.execute("UPDATE property SET value = $2 WHERE name = $1", &[&HORIZON, &horizon.to_text()])?;
            Ok(horizon)
        });
        Ok(Some(horizon.await?.until()))
    }

    async fn prune_batches(&self, until: Timestamp) -> Result<u64, StoreError> {
        self.workers
            .write(move |tx| prune_ended_batch(tx, until))
            .await
    }

    async fn prune(
        &self,
        from: Option<SessionId>,
        until: Timestamp,
        limit: u32,
    ) -> Result<Pruned, StoreError> {
        let (next, old) = self
            .workers
            .read(move |connection| prune::find_prunable(connection, from, until, limit))
            .await?;
        if old.is_empty() {
            return Ok(Pruned {
                next,
                ..Pruned::default()
            });
        }
        self.workers
            .write(move |tx| prune::delete(tx, &old, until, next))
            .await
    }
}

fn prune_ended_batch(tx: &mut Connection, until: Timestamp) -> DbResult<u64> {
    // An incomplete batch is still being read from its file, or was abandoned. Its age counts from
    // its creation.
    let ended = "SELECT id FROM batch b WHERE coalesce(complete_at, created_at) < $1 AND NOT EXISTS \
         (SELECT 1 FROM batch_row r WHERE r.batch = b.id AND (r.ended_at >= $1 OR b.complete_at IS NOT NULL AND r.state IN ('waiting', 'running'))) \
         ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED";
    let Some(batch) = tx.query_opt(ended, &[&until.unix_micros()])? else {
        return Ok(0);
    };
    let batch: Uuid = batch.try_get(0)?;
    // Cancel an abandoned batch first, so that no later process completes it with the remaining
    // rows.
    let give_up = "UPDATE batch SET cancelled_at = coalesce(cancelled_at, $2) WHERE id = $1 AND complete_at IS NULL";
    tx.execute(give_up, &[&batch, &until.unix_micros()])?;
    let rows = "DELETE FROM batch_row WHERE batch = $1 AND number IN (SELECT number FROM batch_row WHERE batch = $1 ORDER BY number LIMIT $2)";
    let deleted = tx.execute(rows, &[&batch, &ROWS])?;
    let batches =
        "DELETE FROM batch WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM batch_row WHERE batch = $1)";
    Ok(deleted + tx.execute(batches, &[&batch])?)
}
