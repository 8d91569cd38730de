//! Batches. Every worker may claim rows; a lease gives each row to one worker at a time.

mod batch_rows;

use async_trait::async_trait;
use batch_rows::{NewRows, json, places, result, statuses, taken};
use guestlane_core::session::LEASE_TTL;
use guestlane_runtime::Timestamp;
use uuid::Uuid;

use super::{Postgres, listen::CHANGED, migrations, rows::as_i64};
use crate::{
    Batches, StoreError,
    batch::{BatchId, BatchStatus, ClaimedRow, NewRow, RowLease, RowOutcome, RowResult},
    row::SELECTED,
};

#[async_trait]
impl Batches for Postgres {
    async fn begin_batch(
        &self,
        id: BatchId,
        name: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.workers
            .write(move |tx| {
                let broken = "DELETE FROM batch_row USING batch WHERE batch_row.batch = batch.id AND batch.name = $1 AND batch.complete_at IS NULL";
                tx.execute(broken, &[&name])?;
                tx.execute("DELETE FROM batch WHERE name = $1 AND complete_at IS NULL", &[&name])?;
                let insert = "INSERT INTO batch (id, name, created_at) VALUES ($1, $2, $3)";
                tx.execute(insert, &[&id.0, &name, &now.unix_micros()]).map(drop)
            })
            .await
    }

    async fn add_rows(
        &self,
        id: BatchId,
        new: Vec<NewRow>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let columns = NewRows::of(&new)?;
        let insert = "INSERT INTO batch_row (batch, number, line, state, idempotency_key, guest_id, queue_id, attributes, contact_details, due_at, failure, ended_at) \
             SELECT $1, number, line, CASE WHEN failure IS NULL THEN 'waiting' ELSE 'failed' END, key, guest, queue, attributes, contact_details, 9223372036854775807, \
             failure, CASE WHEN failure IS NULL THEN NULL ELSE $2::bigint END \
             FROM unnest($3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::uuid[], $8::text[], $9::text[], $10::text[]) \
             AS t (number, line, key, guest, queue, attributes, contact_details, failure) ON CONFLICT DO NOTHING";
        self.workers
            .read(move |connection| {
                let NewRows {
                    number,
                    line,
                    key,
                    guest,
                    queue,
                    attributes,
                    contact_details,
                    failure,
                } = &columns;
                let params: [&(dyn tokio_postgres::types::ToSql + Sync); 10] = [
                    &id.0,
                    &now.unix_micros(),
                    number,
                    line,
                    key,
                    guest,
                    queue,
                    attributes,
                    contact_details,
                    failure,
                ];
                connection.execute(insert, &params).map(drop)
            })
            .await
    }

    async fn complete_batch(&self, id: BatchId, now: Timestamp) -> Result<(), StoreError> {
        self.workers
            .write(move |tx| {
                if tx.execute(
                    "UPDATE batch SET complete_at = $2 WHERE id = $1 AND cancelled_at IS NULL",
                    &[&id.0, &now.unix_micros()],
                )? == 0
                {
                    return Err(StoreError::Commit(
                        "another process started a batch of the same name in the meantime, or the batch was cancelled".to_owned(),
                    ));
                }
                // Before this, the rows were not due, so no worker claimed them.
                let due = "UPDATE batch_row SET due_at = $2 WHERE batch = $1 AND state = 'waiting'";
                tx.execute(due, &[&id.0, &now.unix_micros()])?;
                tx.batch(CHANGED)
            })
            .await
    }

    async fn claim_rows(&self, limit: u32, now: Timestamp) -> Result<Vec<ClaimedRow>, StoreError> {
        let limit = if self.is_clock_close() { limit } else { 0 };
        let (due, lease) = (now.unix_micros(), (now + LEASE_TTL).unix_micros());
        // Rows of a batch are claimed mostly in their order. `SKIP LOCKED` leaves out rows that
        // another process is claiming.
        let sql = "UPDATE batch_row SET state = 'running', epoch = epoch + 1, due_at = $2 FROM \
             (SELECT r.batch, r.number, b.created_at FROM batch_row r JOIN batch b ON b.id = r.batch \
              WHERE (r.state = 'waiting' OR r.state = 'running') AND r.due_at <= $1 AND b.complete_at IS NOT NULL \
              AND (r.state = 'running' OR b.cancelled_at IS NULL) AND (SELECT number FROM format) = $4 \
              ORDER BY r.due_at, r.batch, r.number LIMIT $3 FOR UPDATE OF r SKIP LOCKED) AS t \
             WHERE batch_row.batch = t.batch AND batch_row.number = t.number \
             RETURNING batch_row.batch, batch_row.number, epoch, attempts, idempotency_key, guest_id, queue_id, attributes, contact_details, t.created_at";
        self.workers
            .read(move |connection| {
                let mut rows = connection.query(
                    sql,
                    &[&due, &lease, &i64::from(limit), &migrations::known_number()],
                )?;
                rows.sort_by_key(|row| (row.get::<_, Uuid>(0), row.get::<_, i64>(1)));
                rows.iter().map(taken).collect()
            })
            .await
    }

    async fn renew_rows(&self, held: Vec<RowLease>, now: Timestamp) -> Result<(), StoreError> {
        let until = (now + LEASE_TTL).unix_micros();
        let sql = "UPDATE batch_row SET due_at = $4 FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS t (batch, number, epoch) \
             WHERE batch_row.batch = t.batch AND batch_row.number = t.number AND batch_row.epoch = t.epoch AND state = 'running'";
        self.urgent
            .read(move |connection| {
                let (batches, numbers, epochs) = places(&held);
                connection
                    .execute(sql, &[&batches, &numbers, &epochs, &until])
                    .map(drop)
            })
            .await
    }

    async fn release_rows(&self, held: Vec<RowLease>, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE batch_row SET due_at = $4::bigint, state = CASE WHEN b.cancelled_at IS NULL THEN 'waiting' ELSE 'cancelled' END, \
             ended_at = CASE WHEN b.cancelled_at IS NULL THEN NULL ELSE $4::bigint END, \
             attributes = CASE WHEN b.cancelled_at IS NULL THEN attributes ELSE '{}' END, \
             contact_details = CASE WHEN b.cancelled_at IS NULL THEN contact_details ELSE '{}' END \
             FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS t (batch, number, epoch) JOIN batch b ON b.id = t.batch \
             WHERE batch_row.batch = t.batch AND batch_row.number = t.number AND batch_row.epoch = t.epoch AND state = 'running'";
        self.workers
            .read(move |connection| {
                let (batches, numbers, epochs) = places(&held);
                connection
                    .execute(sql, &[&batches, &numbers, &epochs, &now.unix_micros()])
                    .map(drop)
            })
            .await
    }

    async fn complete_rows(
        &self,
        ended: Vec<(RowLease, RowOutcome)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        // A row that ended no longer needs its personal data.
        let sql = "UPDATE batch_row SET attempts = attempts + 1, due_at = coalesce(t.due_at, batch_row.due_at), \
             state = CASE WHEN t.state = 'waiting' AND t.cancelled THEN 'cancelled' ELSE t.state END, session_id = t.session, replayed = t.replayed, failure = t.failure, ended_at = CASE WHEN t.state = 'waiting' AND NOT t.cancelled THEN NULL ELSE $9::bigint END, \
             attributes = CASE WHEN t.state = 'waiting' AND NOT t.cancelled THEN attributes ELSE '{}' END, \
             contact_details = CASE WHEN t.state = 'waiting' AND NOT t.cancelled THEN contact_details ELSE '{}' END \
             FROM (SELECT u.*, b.cancelled_at IS NOT NULL AS cancelled FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::uuid[], $7::boolean[], $8::text[]) \
             AS u (batch, number, epoch, state, due_at, session, replayed, failure) JOIN batch b ON b.id = u.batch) AS t \
             WHERE batch_row.batch = t.batch AND batch_row.number = t.number AND batch_row.epoch = t.epoch AND batch_row.state = 'running'";
        self.workers
            .read(move |connection| {
                let held: Vec<RowLease> = ended.iter().map(|(place, _)| *place).collect();
                let (batches, numbers, epochs) = places(&held);
                let (mut states, mut dues, mut sessions, mut replays, mut failures) =
                    (vec![], vec![], vec![], vec![], vec![]);
                for (_, end) in &ended {
                    let (state, due, session, replayed, failure) = match end {
                        RowOutcome::Open { session, replayed } => {
                            ("open", None, Some(session.0), *replayed, None)
                        }
                        RowOutcome::Failed(failure) => ("failed", None, None, false, Some(failure)),
                        RowOutcome::Retry(at, failure) => (
                            "waiting",
                            Some(at.unix_micros()),
                            None,
                            false,
                            Some(failure),
                        ),
                    };
                    states.push(state);
                    dues.push(due);
                    sessions.push(session);
                    replays.push(replayed);
                    failures.push(failure.map(json).transpose()?);
                }
                let now = now.unix_micros();
                let params: [&(dyn tokio_postgres::types::ToSql + Sync); 9] = [
                    &batches, &numbers, &epochs, &states, &dues, &sessions, &replays, &failures,
                    &now,
                ];
                connection.execute(sql, &params).map(drop)
            })
            .await
    }

    async fn cancel_batch(&self, id: BatchId, now: Timestamp) -> Result<bool, StoreError> {
        self.workers
            .write(move |tx| {
                let now = now.unix_micros();
                let cancel = "UPDATE batch SET cancelled_at = coalesce(cancelled_at, $2) WHERE id = $1";
                if tx.execute(cancel, &[&id.0, &now])? == 0 {
                    return Ok(false);
                }
                let rows = "UPDATE batch_row SET state = 'cancelled', ended_at = $2, attributes = '{}', contact_details = '{}' WHERE batch = $1 AND state = 'waiting'";
                tx.execute(rows, &[&id.0, &now]).map(|_| true)
            })
            .await
    }

    async fn list_batches(
        &self,
        id: Option<BatchId>,
        limit: u32,
    ) -> Result<Vec<BatchStatus>, StoreError> {
        self.workers
            .read(move |connection| statuses(connection, id, limit))
            .await
    }

    async fn row_results(
        &self,
        id: BatchId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<RowResult>, StoreError> {
        let columns: Vec<String> = SELECTED
            .split(',')
            .map(|column| format!("session.{}", column.trim()))
            .collect();
        let sql = format!(
            "SELECT {}, r.number, r.line, r.state, r.replayed, r.failure FROM batch_row r LEFT JOIN session ON session.id = r.session_id \
             WHERE r.batch = $1 AND r.number > $2 ORDER BY r.number LIMIT $3",
            columns.join(", ")
        );
        self.workers
            .read(move |connection| {
                connection
                    .query(&sql, &[&id.0, &as_i64(after), &i64::from(limit)])?
                    .iter()
                    .map(|row| result(row, columns.len()))
                    .collect()
            })
            .await
    }
}
