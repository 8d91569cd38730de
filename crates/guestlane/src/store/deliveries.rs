//! CRM events that wait to be delivered, and what became of them.

use guestlane_genesys::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::{
    ledger::SessionId,
    outbox::{Event, Settlement},
};

/// How an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// It will be tried (again).
    Pending,
    /// The CRM has it.
    Delivered,
    /// All tries are used up.
    Dead,
}

impl DeliveryState {
    /// The name in the store and on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Pending, Self::Delivered, Self::Dead].into_iter().find(|state| state.name() == name)
    }
}

/// An event and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The event.
    pub event: Event,
    /// How it stands.
    pub state: DeliveryState,
    /// When it was written.
    pub created_at: Timestamp,
    /// When it was delivered, or given up.
    pub settled_at: Option<Timestamp>,
    /// Why the last try failed.
    pub last_error: Option<String>,
}

const COLUMNS: &str = "id, session_id, body, state, tries, created_at, due_at, settled_at, last_error";

/// Leased to whoever wrote it: the first try is theirs.
pub(super) fn insert(connection: &Connection, event: &Event) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO outbox (id, session_id, body, state, tries, created_at, due_at) VALUES (?1, ?2, ?3, 'pending', 0, ?4, ?5)",
    )?;
    statement.execute(params![
        event.id,
        event.session.0.into_bytes(),
        event.body,
        event.created_at.unix_micros(),
        event.due_at.unix_micros()
    ])?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<Delivery, StoreError> {
    let created_at = Timestamp::from_unix_micros(row.get(5)?);
    Ok(Delivery {
        event: Event {
            id: row.get(0)?,
            session: SessionId(Uuid::from_bytes(row.get(1)?)),
            body: row.get(2)?,
            tries: row.get(4)?,
            created_at,
            due_at: Timestamp::from_unix_micros(row.get(6)?),
        },
        state: DeliveryState::from_name(&row.get::<_, String>(3)?).ok_or(StoreError::Row("outbox.state"))?,
        created_at,
        settled_at: row.get::<_, Option<i64>>(7)?.map(Timestamp::from_unix_micros),
        last_error: row.get(8)?,
    })
}

impl Store {
    /// Takes up to `limit` events whose time has come, leased until `lease_until`.
    pub async fn claim_events(&self, limit: u32, now: Timestamp, lease_until: Timestamp) -> Result<Vec<Event>, StoreError> {
        let claimed = self.writer.run(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "UPDATE outbox SET due_at = ?2 WHERE id IN \
                 (SELECT id FROM outbox WHERE state = 'pending' AND due_at <= ?1 ORDER BY due_at LIMIT ?3) RETURNING {COLUMNS}"
            ))?;
            let rows = statement.query_map(params![now.unix_micros(), lease_until.unix_micros(), limit], |row| Ok(read(row)))?;
            rows.map(|row| Ok(row??.event)).collect()
        });
        claimed.await.map(|committed| committed.value)
    }

    /// Makes all pending events due now, and says how many: for a person who says «now».
    pub async fn make_events_due(&self, now: Timestamp) -> Result<usize, StoreError> {
        let hurried = self.writer.run(move |connection| {
            let sql = "UPDATE outbox SET due_at = ?1 WHERE state = 'pending' AND due_at > ?1 AND last_error IS NOT NULL";
            Ok(connection.execute(sql, [now.unix_micros()])?)
        });
        hurried.await.map(|committed| committed.value)
    }

    /// Writes what a try came to.
    pub async fn settle_event(&self, event: Event, settlement: Settlement, now: Timestamp) -> Result<(), StoreError> {
        let settled = self.writer.run(move |connection| {
            let (state, due_at, error) = match settlement {
                Settlement::Delivered => (DeliveryState::Delivered, None, None),
                Settlement::Again { at, error } => (DeliveryState::Pending, Some(at), Some(error)),
                Settlement::Dead { error } => (DeliveryState::Dead, None, Some(error)),
            };
            let settled_at = (state != DeliveryState::Pending).then(|| now.unix_micros());
            let mut statement = connection.prepare_cached(
                "UPDATE outbox SET state = ?2, tries = tries + 1, due_at = coalesce(?3, due_at), last_error = ?4, settled_at = ?5 \
                 WHERE id = ?1 AND state = 'pending'",
            )?;
            let due_at = due_at.map(Timestamp::unix_micros);
            statement.execute(params![event.id, state.name(), due_at, error, settled_at])?;
            Ok(())
        });
        settled.await.map(drop)
    }

    /// Starts an event over, whatever became of it: the same id and the same body. False when there is no such event.
    pub async fn replay_event(&self, id: String, now: Timestamp) -> Result<bool, StoreError> {
        let replayed = self.writer.run(move |connection| {
            let sql = "UPDATE outbox SET state = 'pending', tries = 0, due_at = ?2, settled_at = NULL WHERE id = ?1";
            Ok(connection.execute(sql, params![id, now.unix_micros()])? == 1)
        });
        replayed.await.map(|committed| committed.value)
    }

    /// Events, newest first.
    pub async fn events(&self, state: Option<DeliveryState>, limit: u32) -> Result<Vec<Delivery>, StoreError> {
        self.reader
            .ask(move |connection| {
                let sql = format!("SELECT {COLUMNS} FROM outbox WHERE ?1 IS NULL OR state = ?1 ORDER BY id DESC LIMIT ?2");
                let mut statement = connection.prepare_cached(&sql)?;
                let rows = statement.query_map(params![state.map(DeliveryState::name), limit], |row| Ok(read(row)))?;
                rows.map(|row| row?).collect()
            })
            .await
    }

    /// One event.
    pub async fn event(&self, id: String) -> Result<Option<Delivery>, StoreError> {
        self.reader
            .ask(move |connection| {
                let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM outbox WHERE id = ?1"))?;
                statement.query_row([id], |row| Ok(read(row))).optional()?.transpose()
            })
            .await
    }

    /// How many events wait.
    pub async fn pending_events(&self) -> Result<u64, StoreError> {
        self.reader
            .ask(|connection| {
                let sql = "SELECT count(*) FROM outbox WHERE state = 'pending'";
                Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
            })
            .await
    }
}
