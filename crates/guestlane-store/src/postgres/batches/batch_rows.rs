//! Rows of batches, as arrays by column and as results.

use std::collections::BTreeMap;

use guestlane_core::request::{Attributes, GuestId, QueueId, SessionRequest};
use guestlane_runtime::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::super::{
    connection::{Connection, DbResult},
    rows::{self, as_i64, small},
};
use crate::{
    StoreError,
    batch::{BatchId, BatchStatus, ClaimedRow, NewRow, RowFailure, RowLease, RowResult},
};

pub(super) fn result(row: &Row, at: usize) -> DbResult<RowResult> {
    let has_session = row.try_get::<_, Option<Uuid>>(0)?.is_some();
    let failure: Option<&str> = row.try_get(at + 4)?;
    Ok(RowResult {
        number: row.try_get::<_, i64>(at)?.unsigned_abs(),
        line: row.try_get::<_, i64>(at + 1)?.unsigned_abs(),
        state: row.try_get(at + 2)?,
        session: if has_session {
            Some(rows::read(row)?)
        } else {
            None
        },
        replayed: row.try_get(at + 3)?,
        failure: failure
            .map(|text| {
                serde_json::from_str(text).map_err(|_| StoreError::Row("batch_row.failure"))
            })
            .transpose()?,
    })
}

pub(super) fn statuses(
    connection: &mut Connection,
    id: Option<BatchId>,
    limit: u32,
) -> DbResult<Vec<BatchStatus>> {
    let select = "SELECT b.id, b.name, b.created_at, b.complete_at IS NOT NULL, b.cancelled_at, r.state, count(r.number), \
         count(r.number) FILTER (WHERE r.replayed) \
         FROM (SELECT * FROM batch WHERE $1::uuid IS NULL OR id = $1 ORDER BY id DESC LIMIT $2) b LEFT JOIN batch_row r ON r.batch = b.id \
         GROUP BY b.id, b.name, b.created_at, b.complete_at, b.cancelled_at, r.state";
    let mut found: BTreeMap<Uuid, BatchStatus> = BTreeMap::new();
    for row in connection.query(select, &[&id.map(|id| id.0), &i64::from(limit)])? {
        let id: Uuid = row.try_get(0)?;
        let status = match found.entry(id) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => new.insert(BatchStatus {
                batch_id: BatchId(id),
                name: row.try_get(1)?,
                created_at: Timestamp::from_unix_micros(row.try_get(2)?),
                complete: row.try_get(3)?,
                cancelled_at: row
                    .try_get::<_, Option<i64>>(4)?
                    .map(Timestamp::from_unix_micros),
                rows: 0,
                waiting: 0,
                running: 0,
                open: 0,
                replayed: 0,
                failed: 0,
                cancelled: 0,
            }),
        };
        let count = row.try_get::<_, i64>(6)?.unsigned_abs();
        status.rows += count;
        status.replayed += row.try_get::<_, i64>(7)?.unsigned_abs();
        match row.try_get::<_, Option<&str>>(5)? {
            Some("waiting") => status.waiting = count,
            Some("running") => status.running = count,
            Some("open") => status.open = count,
            Some("failed") => status.failed = count,
            Some(_) => status.cancelled = count,
            None => {}
        }
    }
    Ok(found.into_values().rev().collect())
}

pub(super) fn taken(row: &Row) -> DbResult<ClaimedRow> {
    Ok(ClaimedRow {
        place: RowLease {
            batch: BatchId(row.try_get(0)?),
            number: row.try_get::<_, i64>(1)?.unsigned_abs(),
            epoch: small(row, 2)?,
        },
        attempts: small(row, 3)?,
        since: Timestamp::from_unix_micros(row.try_get(9)?),
        request: wished(row),
    })
}

fn wished(row: &Row) -> DbResult<SessionRequest> {
    let bad = |column| move |_| StoreError::Row(column);
    let attributes: BTreeMap<String, String> = serde_json::from_str(row.try_get(7)?)
        .map_err(|_| StoreError::Row("batch_row.attributes"))?;
    Ok(SessionRequest {
        key: row
            .try_get::<_, &str>(4)?
            .parse()
            .map_err(bad("batch_row.idempotency_key"))?,
        guest: GuestId::recorded(row.try_get(5)?).map_err(bad("batch_row.guest_id"))?,
        queue: QueueId(row.try_get(6)?),
        attributes: Attributes::recorded(attributes).map_err(bad("batch_row.attributes"))?,
        contact_details: serde_json::from_str(row.try_get(8)?)
            .map_err(|_| StoreError::Row("batch_row.contact_details"))?,
    })
}

pub(super) fn places(held: &[RowLease]) -> (Vec<Uuid>, Vec<i64>, Vec<i64>) {
    let batches = held.iter().map(|place| place.batch.0).collect();
    let numbers = held.iter().map(|place| as_i64(place.number)).collect();
    (
        batches,
        numbers,
        held.iter().map(|place| place.epoch.into()).collect(),
    )
}

pub(super) fn json(value: &impl serde::Serialize) -> DbResult<String> {
    serde_json::to_string(value)
        .map_err(|_| StoreError::Row("a row that cannot be serialized as JSON"))
}

#[derive(Default)]
pub(super) struct NewRows {
    pub(super) number: Vec<i64>,
    pub(super) line: Vec<i64>,
    pub(super) key: Vec<String>,
    pub(super) guest: Vec<String>,
    pub(super) queue: Vec<Uuid>,
    pub(super) attributes: Vec<String>,
    pub(super) contact_details: Vec<String>,
    pub(super) failure: Vec<Option<String>>,
}

impl NewRows {
    /// Builds the columns. An invalid row is stored with its failure only.
    pub(super) fn of(new: &[NewRow]) -> DbResult<Self> {
        let mut columns = Self::default();
        for row in new {
            columns.number.push(as_i64(row.number));
            columns.line.push(as_i64(row.line));
            let request = row.request.as_ref().ok();
            columns.key.push(
                request
                    .map(|request| request.key.as_str().to_owned())
                    .unwrap_or_default(),
            );
            columns.guest.push(
                request
                    .map(|request| request.guest.as_str().to_owned())
                    .unwrap_or_default(),
            );
            columns
                .queue
                .push(request.map(|request| request.queue.0).unwrap_or_default());
            columns
                .attributes
                .push(request.map_or(Ok("{}".to_owned()), |request| {
                    json(request.attributes.as_map())
                })?);
            columns
                .contact_details
                .push(request.map_or(Ok("{}".to_owned()), |request| {
                    json(&request.contact_details)
                })?);
            let failure = row.request.as_ref().err();
            columns.failure.push(
                failure
                    .map(|failure: &RowFailure| json(failure))
                    .transpose()?,
            );
        }
        Ok(columns)
    }
}
