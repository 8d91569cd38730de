//! The outbox: events that wait for delivery, and the outcome of each delivery.

use async_trait::async_trait;
use guestlane_runtime::{FailPoint, Timestamp};
use rusqlite::{Connection, Row, params, types::Value};
use uuid::Uuid;

use super::Sqlite;
use crate::{
    Delivery, DeliveryOutcome, DeliveryState, Outbox, ReplayFilter, StoreError,
    queries::{self, EVENT_COLUMNS},
};
use guestlane_core::{
    event::Event,
    session::{MAX_CLOCK_SKEW, SessionId},
};

/// Inserts an event and returns whether its first attempt is due. It is not due while an earlier
/// event of the same guest waits for the same endpoint. A due event is leased to the process that
/// wrote it.
pub(super) fn insert(connection: &Connection, event: &Event) -> Result<bool, StoreError> {
    let waits =
        "SELECT 1 FROM outbox WHERE guest_id = ?1 AND endpoint = ?2 AND state = 'pending' LIMIT 1";
    let waits = connection
        .prepare_cached(waits)?
        .exists(params![event.guest.as_str(), event.endpoint])?;
    let mut statement = connection.prepare_cached(
        "INSERT INTO outbox (id, endpoint, session_id, guest_id, body, state, attempts, created_at, due_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, 'pending', 0, ?6, ?7)",
    )?;
    let due_at = if waits {
        event.created_at
    } else {
        event.due_at
    };
    statement.execute(params![
        event.id,
        event.endpoint,
        event.session.0.into_bytes(),
        event.guest.as_str(),
        event.body,
        event.created_at.unix_micros(),
        due_at.unix_micros()
    ])?;
    Ok(!waits)
}

fn read(row: &Row<'_>) -> Result<Delivery, StoreError> {
    let created_at = Timestamp::from_unix_micros(row.get(5)?);
    Ok(Delivery {
        event: Event {
            id: row.get(0)?,
            endpoint: row.get(9)?,
            session: SessionId(Uuid::from_bytes(row.get(1)?)),
            guest: row.get(10)?,
            body: row.get(2)?,
            attempts: row.get(4)?,
            epoch: row.get(13)?,
            created_at,
            due_at: Timestamp::from_unix_micros(row.get(6)?),
            trace: row
                .get::<_, Option<String>>(11)?
                .and_then(|text| text.parse().ok()),
        },
        state: DeliveryState::from_name(&row.get::<_, String>(3)?)
            .ok_or(StoreError::Row("outbox.state"))?,
        created_at,
        ended_at: row
            .get::<_, Option<i64>>(7)?
            .map(Timestamp::from_unix_micros),
        last_error: row.get(8)?,
        sequence: row.get(12)?,
    })
}

#[async_trait]
impl Outbox for Sqlite {
    async fn claim_events(
        &self,
        endpoint: u32,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Event>, StoreError> {
        let claimed = self.writer.run(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "UPDATE outbox SET due_at = ?3, epoch = epoch + 1 WHERE seq IN \
                 (SELECT seq FROM outbox o WHERE state = 'pending' AND endpoint = ?1 \
                  AND due_at <= ?2 \
                  AND NOT EXISTS (SELECT 1 FROM outbox e WHERE e.guest_id = o.guest_id AND e.endpoint = o.endpoint \
                                  AND e.state = 'pending' AND e.seq < o.seq) \
                  ORDER BY due_at LIMIT ?4) RETURNING {EVENT_COLUMNS}"
            ))?;
            let lease_until = now + Event::LEASE;
            let parameters = params![endpoint, now.unix_micros(), lease_until.unix_micros(), limit];
            let rows = statement.query_map(parameters, |row| Ok(read(row)))?;
            rows.map(|row| Ok(row??.event)).collect()
        });
        claimed.await.map(|committed| committed.value)
    }

    async fn release_stale_initial_leases(&self, now: Timestamp) -> Result<(), StoreError> {
        let release = queries::MAKE_NEW_EVENTS_DUE;
        let parameters = [now, now + Event::LEASE + MAX_CLOCK_SKEW].map(Timestamp::unix_micros);
        let released = self
            .writer
            .run(move |connection| Ok(connection.prepare_cached(release)?.execute(parameters)?));
        released.await.map(drop)
    }

    async fn expedite_events(&self, now: Timestamp) -> Result<usize, StoreError> {
        let hurried = self.writer.run(move |connection| {
            let sql = queries::MAKE_FAILED_EVENTS_DUE;
            Ok(connection.execute(sql, [now.unix_micros()])?)
        });
        hurried.await.map(|committed| committed.value)
    }

    async fn record_delivery(
        &self,
        event: Event,
        settlement: DeliveryOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let settled = self.writer.run(move |connection| {
            let (state, due_at, error) = settlement.into_parts();
            let ended_at = (state != DeliveryState::Pending).then(|| now.unix_micros());
            let mut statement = connection.prepare_cached(
                "UPDATE outbox SET state = ?2, attempts = attempts + 1, due_at = coalesce(?3, due_at), last_error = ?4, ended_at = ?5 \
                 WHERE id = ?1 AND endpoint = ?6 AND state = 'pending' AND attempts = ?7 AND epoch = ?8",
            )?;
            let due_at = due_at.map(Timestamp::unix_micros);
            statement.execute(params![
                event.id,
                state.name(),
                due_at,
                error,
                ended_at,
                event.endpoint,
                event.attempts,
                event.epoch
            ])?;
            Ok(())
        });
        settled.await.map(drop)
    }

    async fn replayable(&self, replay: ReplayFilter) -> Result<u64, StoreError> {
        self.reader
            .read(move |connection| {
                let (condition, parameters) = replay.condition();
                let sql = format!("SELECT count(*) FROM outbox WHERE {condition}");
                Ok(connection
                    .prepare_cached(&sql)?
                    .query_row(rusqlite::params_from_iter(parameters), |row| row.get(0))?)
            })
            .await
    }

    async fn replay(&self, replay: ReplayFilter, now: Timestamp) -> Result<usize, StoreError> {
        let replayed = self.writer.run(move |tx| {
            let (condition, mut parameters) = replay.condition();
            let due_at = parameters.len() + 1;
            parameters.push(now.unix_micros().into());
            let sql = format!(
                "UPDATE outbox SET state = 'pending', attempts = 0, epoch = epoch + 1, due_at = ?{due_at}, ended_at = NULL WHERE {condition}"
            );
            let count = tx.execute(&sql, rusqlite::params_from_iter(parameters))?;
            if count > 0 {
                tx.record(replay.record(count, now));
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
        self.reader
            .read(move |connection| {
                // The state is part of the SQL text, so that SQLite can use the partial indexes
                // over rare states.
                let condition = state.map_or_else(|| "TRUE".to_owned(), |state| format!("state = '{}'", state.name()));
                let sql = format!("SELECT {EVENT_COLUMNS} FROM outbox WHERE {condition} AND seq < ?2 ORDER BY seq DESC LIMIT ?1");
                let mut statement = connection.prepare_cached(&sql)?;
                let rows = statement.query_map(params![limit, before.unwrap_or(i64::MAX)], |row| Ok(read(row)))?;
                rows.map(|row| row?).collect()
            })
            .await
    }

    async fn event(&self, id: String) -> Result<Vec<Delivery>, StoreError> {
        self.reader
            .read(move |connection| {
                let mut statement = connection.prepare_cached(&format!(
                    "SELECT {EVENT_COLUMNS} FROM outbox WHERE id = ?1 ORDER BY endpoint"
                ))?;
                let rows = statement.query_map([id], |row| Ok(read(row)))?;
                rows.map(|row| row?).collect()
            })
            .await
    }

    async fn next_initial_delivery_at(
        &self,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        self.reader
            .read(move |connection| {
                let sql = queries::SELECT_NEXT_INITIAL_DELIVERY;
                let due: Option<i64> = connection
                    .prepare_cached(sql)?
                    .query_row([now.unix_micros()], |row| row.get(0))?;
                Ok(due.map(Timestamp::from_unix_micros))
            })
            .await
    }

    async fn pending_events_after(&self, endpoints: u32) -> Result<u64, StoreError> {
        self.reader
            .read(move |connection| {
                let sql = queries::COUNT_PENDING_EVENTS_BEYOND_ENDPOINT;
                Ok(connection
                    .prepare_cached(sql)?
                    .query_row([endpoints], |row| row.get(0))?)
            })
            .await
    }

    async fn pending_events(&self) -> Result<u64, StoreError> {
        self.reader
            .read(|connection| {
                let sql = queries::COUNT_PENDING_EVENTS;
                Ok(connection
                    .prepare_cached(sql)?
                    .query_row([], |row| row.get(0))?)
            })
            .await
    }
}

impl ReplayFilter {
    /// Returns the filter as an SQL condition. It excludes erased events, which have no body to
    /// deliver.
    fn condition(&self) -> (&'static str, Vec<Value>) {
        match self {
            Self::Event(id) => ("id = ?1 AND state != 'erased'", vec![id.clone().into()]),
            Self::Written {
                since,
                until,
                state,
            } => (
                "created_at >= ?1 AND created_at < ?2 AND state IN ('delivered', 'dead') AND (?3 IS NULL OR state = ?3)",
                vec![
                    since.unix_micros().into(),
                    until.unix_micros().into(),
                    state.map(|state| state.name().to_owned()).into(),
                ],
            ),
        }
    }
}
