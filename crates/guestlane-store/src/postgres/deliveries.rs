//! The outbox: events that wait for delivery to the CRM, and the outcomes of deliveries.

use async_trait::async_trait;
use guestlane_runtime::{FailPoint, Timestamp};
use tokio_postgres::{Row, types::ToSql};

use super::{
    Postgres,
    connection::{Connection, DbResult},
    delivery_columns::DeliveryUpdate,
    rows::small,
    sessions::count,
    writer::WriteOp,
};
use crate::{
    Delivery, DeliveryOutcome, DeliveryState, Outbox, ReplayFilter, StoreError,
    queries::{self, EVENT_COLUMNS},
};
use guestlane_core::{
    event::Event,
    session::{MAX_CLOCK_SKEW, SessionId},
};

fn read(row: &Row) -> DbResult<Delivery> {
    let created_at = Timestamp::from_unix_micros(row.try_get(5)?);
    Ok(Delivery {
        event: Event {
            id: row.try_get(0)?,
            endpoint: u32::try_from(row.try_get::<_, i32>(9)?)
                .map_err(|_| StoreError::Row("outbox.endpoint"))?,
            session: SessionId(row.try_get(1)?),
            guest: row.try_get(10)?,
            body: row.try_get(2)?,
            attempts: small(row, 4)?,
            epoch: small(row, 13)?,
            created_at,
            due_at: Timestamp::from_unix_micros(row.try_get(6)?),
            trace: row
                .try_get::<_, Option<&str>>(11)?
                .and_then(|text| text.parse().ok()),
        },
        state: DeliveryState::from_name(row.try_get(3)?).ok_or(StoreError::Row("outbox.state"))?,
        created_at,
        ended_at: row
            .try_get::<_, Option<i64>>(7)?
            .map(Timestamp::from_unix_micros),
        last_error: row.try_get(8)?,
        sequence: row.try_get(12)?,
    })
}

#[async_trait]
impl Outbox for Postgres {
    async fn claim_events(
        &self,
        endpoint: u32,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Event>, StoreError> {
        if !self.is_clock_close() {
            return Ok(Vec::new());
        }
        let (endpoint, lease) = (
            i32::try_from(endpoint).unwrap_or(i32::MAX),
            (now + Event::LEASE).unix_micros(),
        );
        // Claim only the first pending event of each guest. `SKIP LOCKED` leaves out events that
        // another process is claiming.
        let sql = format!(
            "UPDATE outbox SET due_at = $3, epoch = epoch + 1 WHERE seq IN \
             (SELECT seq FROM outbox o WHERE state = 'pending' AND endpoint = $1 AND due_at <= $2 \
              AND NOT EXISTS (SELECT 1 FROM outbox e WHERE e.guest_id = o.guest_id AND e.endpoint = o.endpoint \
                              AND e.state = 'pending' AND e.seq < o.seq) \
              ORDER BY due_at LIMIT $4 FOR UPDATE SKIP LOCKED) RETURNING {EVENT_COLUMNS}"
        );
        self.workers
            .read(move |connection| {
                // Usually no event is due. This query avoids locks and writes then.
                let any = "SELECT 1 FROM outbox WHERE state = 'pending' AND endpoint = $1 AND due_at <= $2 LIMIT 1";
                if connection.query(any, &[&endpoint, &now.unix_micros()])?.is_empty() {
                    return Ok(Vec::new());
                }
                let rows = connection.query(&sql, &[&endpoint, &now.unix_micros(), &lease, &i64::from(limit)])?;
                rows.iter().map(|row| Ok(read(row)?.event)).collect()
            })
            .await
    }

    async fn release_stale_initial_leases(&self, now: Timestamp) -> Result<(), StoreError> {
        let release = queries::MAKE_NEW_EVENTS_DUE;
        let (now, lease) = (
            now.unix_micros(),
            (now + Event::LEASE + MAX_CLOCK_SKEW).unix_micros(),
        );
        self.workers
            .read(move |connection| connection.execute(release, &[&now, &lease]).map(drop))
            .await
    }

    async fn expedite_events(&self, now: Timestamp) -> Result<usize, StoreError> {
        let sql = queries::MAKE_FAILED_EVENTS_DUE;
        let now = now.unix_micros();
        self.workers
            .read(move |connection| Ok(connection.execute(sql, &[&now])? as usize))
            .await
    }

    async fn record_delivery(
        &self,
        event: Event,
        settlement: DeliveryOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (state, due_at, error) = settlement.into_parts();
        let settled = DeliveryUpdate {
            id: event.id,
            endpoint: i32::try_from(event.endpoint).unwrap_or(i32::MAX),
            attempts: event.attempts.into(),
            epoch: event.epoch.into(),
            state: state.name(),
            due_at: due_at.map(Timestamp::unix_micros),
            error,
            ended_at: (state != DeliveryState::Pending).then(|| now.unix_micros()),
        };
        self.writer
            .write(WriteOp::RecordDelivery(settled))
            .await
            .map(drop)
    }

    async fn replayable(&self, replay: ReplayFilter) -> Result<u64, StoreError> {
        self.workers
            .read(move |connection| {
                let (condition, values) = condition(&replay);
                count(
                    connection,
                    &format!("SELECT count(*) FROM outbox WHERE {condition}"),
                    &refs(&values),
                )
            })
            .await
    }

    async fn replay(&self, replay: ReplayFilter, now: Timestamp) -> Result<usize, StoreError> {
        let replayed = self.writer.transact(move |tx, records| {
            records.clear();
            let (condition, mut values) = condition(&replay);
            values.push(Box::new(now.unix_micros()));
            let due_at = values.len();
            let sql = format!(
                "UPDATE outbox SET state = 'pending', attempts = 0, epoch = epoch + 1, due_at = ${due_at}, ended_at = NULL WHERE {condition}"
            );
            let count = tx.execute(&sql, &refs(&values))? as usize;
            if count > 0 {
                records.push(replay.record(count, now));
            }
            Ok(count)
        });
        let replayed = replayed.await?.value;
        self.fail_points.hit(FailPoint::EventsReplayed).await;
        Ok(replayed)
    }

    async fn events(
        &self,
        state: Option<DeliveryState>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Delivery>, StoreError> {
        // The state is part of the SQL text, so that the partial indexes on the rare states are
        // used.
        let condition = state.map_or_else(
            || "TRUE".to_owned(),
            |state| format!("state = '{}'", state.name()),
        );
        let sql = format!(
            "SELECT {EVENT_COLUMNS} FROM outbox WHERE {condition} AND seq < $2 ORDER BY seq DESC LIMIT $1"
        );
        self.workers
            .read(move |connection| {
                let rows =
                    connection.query(&sql, &[&i64::from(limit), &before.unwrap_or(i64::MAX)])?;
                rows.iter().map(read).collect()
            })
            .await
    }

    async fn event(&self, id: String) -> Result<Vec<Delivery>, StoreError> {
        let sql = format!("SELECT {EVENT_COLUMNS} FROM outbox WHERE id = $1 ORDER BY endpoint");
        self.workers
            .read(move |connection| connection.query(&sql, &[&id])?.iter().map(read).collect())
            .await
    }

    async fn next_initial_delivery_at(
        &self,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        let sql = queries::SELECT_NEXT_INITIAL_DELIVERY;
        self.workers
            .read(move |connection| {
                let due: Option<i64> = connection
                    .query_one(sql, &[&now.unix_micros()])?
                    .try_get(0)?;
                Ok(due.map(Timestamp::from_unix_micros))
            })
            .await
    }

    async fn pending_events_after(&self, endpoints: u32) -> Result<u64, StoreError> {
        let sql = queries::COUNT_PENDING_EVENTS_BEYOND_ENDPOINT;
        let endpoints = i32::try_from(endpoints).unwrap_or(i32::MAX);
        self.workers
            .read(move |connection| count(connection, sql, &[&endpoints]))
            .await
    }

    async fn pending_events(&self) -> Result<u64, StoreError> {
        let sql = queries::COUNT_PENDING_EVENTS;
        self.workers
            .read(move |connection| count(connection, sql, &[]))
            .await
    }
}

type Values = Vec<Box<dyn ToSql + Sync>>;

fn refs(values: &Values) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(AsRef::as_ref).collect()
}

/// Returns the filter as an SQL condition with its values. An erased event has no body and cannot
/// be sent.
fn condition(replay: &ReplayFilter) -> (&'static str, Values) {
    match replay {
        ReplayFilter::Event(id) => ("id = $1 AND state <> 'erased'", vec![Box::new(id.clone())]),
        ReplayFilter::Written {
            since,
            until,
            state,
        } => (
            "created_at >= $1 AND created_at < $2 AND state IN ('delivered', 'dead') AND ($3::text IS NULL OR state = $3)",
            vec![
                Box::new(since.unix_micros()),
                Box::new(until.unix_micros()),
                Box::new(state.map(|state| state.name().to_owned())),
            ],
        ),
    }
}

/// Whether a delivery about the guest is in flight or may be: a pending event's due time is within
/// one lease from now.
pub(super) fn is_under_way(tx: &mut Connection, guest: &str, now: Timestamp) -> DbResult<bool> {
    let sql = "SELECT 1 FROM outbox WHERE guest_id = $1 AND state = 'pending' AND due_at > $2 AND due_at <= $3 LIMIT 1";
    let soon = (now + Event::LEASE).unix_micros();
    Ok(tx
        .query_opt(sql, &[&guest, &now.unix_micros(), &soon])?
        .is_some())
}
