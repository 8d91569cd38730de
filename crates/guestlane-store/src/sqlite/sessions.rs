//! Session records: transitions, leases, claims of expired sessions, and queries.

use async_trait::async_trait;
use guestlane_runtime::Timestamp;
use rusqlite::{Connection, OptionalExtension, params, types::Value};

use super::{Sqlite, Tx, counters, deliveries, rows};
use crate::{
    CallRecord, CommitRequest, CommitResult, Committed, SessionFilter, SessionPage, Sessions,
    StoreError, calls, queries,
    row::{DUE_AT, SELECTED, UNFINISHED},
};
use guestlane_core::{
    request::GuestId,
    session::{LEASE_TTL, MAX_CLOCK_SKEW, SessionId, SessionRecord, SessionState},
};

/// Maximum number of rows that one page scans. Without it, a query for a rare queue could scan
/// millions of rows and block all other reads.
const MAX_SCANNED_ROWS: u32 = 20_000;

#[async_trait]
impl Sessions for Sqlite {
    async fn commit_transition(
        &self,
        transition: CommitRequest,
    ) -> Result<Committed<CommitResult>, StoreError> {
        self.writer
            .run(move |tx| {
                let CommitRequest {
                    epoch,
                    after,
                    audit,
                    events,
                    errors,
                    calls,
                } = transition;
                rows::update(tx, &after, epoch, &calls)?;
                if let Some(entry) = audit {
                    tx.record(entry);
                }
                let mut first = Vec::new();
                for event in events {
                    if deliveries::insert(tx, &event)? {
                        first.push(event);
                    }
                }
                counters::add(tx, &errors)?;
                Ok(CommitResult {
                    session: after,
                    first,
                })
            })
            .await
    }

    async fn renew_leases(
        &self,
        leases: Vec<(SessionId, u32)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let renewed = self.writer.run(move |connection| {
            let mut statement = connection.prepare_cached(
                "UPDATE session SET lease_expires_at = ?3 \
                 WHERE id = ?1 AND epoch = ?2 AND lease_expires_at IS NOT NULL",
            )?;
            for (id, epoch) in leases {
                statement.execute(params![
                    id.0.into_bytes(),
                    epoch,
                    (now + LEASE_TTL).unix_micros()
                ])?;
            }
            Ok(())
        });
        renewed.await.map(drop)
    }

    async fn claim_due(
        &self,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let taken = self.writer.run(move |connection| {
            // An expiry beyond the longest lease or backoff plus `MAX_CLOCK_SKEW` was written
            // before the wall clock moved backwards. Claim such a session.
            let sql = format!(
                "SELECT {} FROM session WHERE {UNFINISHED} AND ({DUE_AT} <= ?1 OR (state != 'parked' \
                 AND {DUE_AT} > iif(lease_expires_at IS NULL, ?3, ?2))) ORDER BY {DUE_AT} LIMIT ?4",
                *SELECTED
            );
            let moments = [now, now + LEASE_TTL + MAX_CLOCK_SKEW, now + SessionRecord::MAX_BACKOFF + MAX_CLOCK_SKEW]
                .map(|moment| Value::from(moment.unix_micros()));
            let [now_, lease, rest] = moments;
            let due = select(connection, &sql, &[now_, lease, rest, Value::from(limit)])?;
            due.into_iter().map(|session| claim_one(connection, session, now)).collect()
        });
        taken.await.map(|committed| committed.value)
    }

    async fn claim(
        &self,
        id: SessionId,
        now: Timestamp,
    ) -> Result<Option<SessionRecord>, StoreError> {
        let taken = self
            .writer
            .run(move |connection| match by_id(connection, id)? {
                Some(session) if !session.is_blocked(now) && !session.is_erased() => {
                    claim_one(connection, session, now).map(Some)
                }
                _ => Ok(None),
            });
        taken.await.map(|committed| committed.value)
    }

    async fn latest_contact_id(
        &self,
        guest: GuestId,
        except: SessionId,
    ) -> Result<Option<String>, StoreError> {
        self.reader
            .read(move |connection| {
                let sql = "SELECT contact_id FROM session WHERE guest_id = ?1 AND id != ?2 AND contact_id IS NOT NULL \
                     AND surface != 'rest' ORDER BY id DESC LIMIT 1";
                let mut statement = connection.prepare_cached(sql)?;
                Ok(statement.query_row(params![guest.as_str(), except.0.into_bytes()], |row| row.get(0)).optional()?)
            })
            .await
    }

    async fn session(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        self.reader
            .read(move |connection| by_id(connection, id))
            .await
    }

    async fn sessions(&self, filter: SessionFilter) -> Result<SessionPage, StoreError> {
        self.reader
            .read(move |connection| {
                let SessionFilter { guest, state, queue, before, limit } = filter;
                let before = before.map_or(vec![0xff; 16], |id| id.0.into_bytes().to_vec());
                // An index narrows the rows for a guest or for a state other than open. Without a
                // filter every row matches. Neither case needs the scan limit.
                let by_index = guest.is_some() || state.is_some_and(|state| state != SessionState::Open);
                let shows_all = queue.is_none() && state.is_none();
                let unlimited = by_index || shows_all;
                let last: Option<Vec<u8>> = if unlimited {
                    None
                } else {
                    let sql = queries::SELECT_LAST_SCANNED_SESSION;
                    let mut last = connection.prepare_cached(sql)?;
                    last.query_row(params![before, MAX_SCANNED_ROWS - 1], |row| row.get(0)).optional()?
                };
                let in_state = match state {
                    None => "TRUE".to_owned(),
                    Some(state) if state.is_unfinished() => format!("{UNFINISHED} AND state = '{}'", state.name()),
                    Some(state) => format!("state = '{}'", state.name()),
                };
                let of_guest = if guest.is_some() { "guest_id = ?1" } else { "?1 IS NULL" };
                let by = if state.is_some_and(SessionState::is_unfinished) { "+id" } else { "id" };
                let sql = format!(
                    "SELECT {} FROM session WHERE {of_guest} AND {in_state} AND (?2 IS NULL OR queue_id = ?2) AND id < ?3 \
                     AND id >= ?4 ORDER BY {by} DESC LIMIT ?5",
                    *SELECTED
                );
                let parameters = [
                    Value::from(guest),
                    Value::from(queue.map(|queue| queue.0.into_bytes().to_vec())),
                    Value::from(before),
                    Value::from(last.clone().unwrap_or_default()),
                    Value::from(limit),
                ];
                let sessions = select(connection, &sql, &parameters)?;
                let full = sessions.len() == limit as usize;
                let looked_at = || last.and_then(|id| uuid::Uuid::from_slice(&id).ok()).map(SessionId);
                let next = if full { sessions.last().map(|session| session.id) } else { looked_at() };
                Ok(SessionPage { sessions, next })
            })
            .await
    }

    async fn unfinished_sessions(&self, limit: u32) -> Result<Vec<SessionRecord>, StoreError> {
        self.reader
            .read(move |connection| {
                let sql = format!(
                    "SELECT {} FROM session WHERE {UNFINISHED} ORDER BY {DUE_AT} LIMIT ?1",
                    *SELECTED
                );
                select(connection, &sql, &[Value::from(limit)])
            })
            .await
    }

    async fn unfinished(&self) -> Result<u64, StoreError> {
        self.reader
            .read(|connection| {
                let sql = format!("SELECT count(*) FROM session WHERE {UNFINISHED}");
                Ok(connection
                    .prepare_cached(&sql)?
                    .query_row([], |row| row.get(0))?)
            })
            .await
    }

    async fn calls(&self, session: SessionId) -> Result<Vec<CallRecord>, StoreError> {
        self.reader
            .read(move |connection| {
                let mut statement = connection.prepare_cached(queries::SELECT_CALLS)?;
                let text: Option<String> = statement
                    .query_row(params![session.0.into_bytes()], |row| row.get(0))
                    .optional()?;
                calls::read(&text.unwrap_or_default())
            })
            .await
    }
}

/// Claims a session, whichever process held its lease before.
pub(super) fn claim_one(
    tx: &Tx<'_>,
    session: SessionRecord,
    now: Timestamp,
) -> Result<SessionRecord, StoreError> {
    let epoch = session.epoch;
    let taken = session.claimed(now)?;
    rows::update(tx, &taken, epoch, &[])?;
    Ok(taken)
}

fn by_id(connection: &Connection, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {} FROM session WHERE id = ?1", *SELECTED))?;
    statement
        .query_row([id.0.into_bytes()], |row| Ok(rows::read(row)))
        .optional()?
        .transpose()
}

fn select(
    connection: &Connection,
    sql: &str,
    parameters: &[Value],
) -> Result<Vec<SessionRecord>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(rusqlite::params_from_iter(parameters), |row| {
        Ok(rows::read(row))
    })?;
    rows.map(|row| row?).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sql_unfinished_condition_matches_the_state_table() {
        let connection = Connection::open_in_memory().unwrap();
        for state in SessionState::ALL {
            let sql = format!("SELECT {UNFINISHED} FROM (SELECT ?1 AS state)");
            let unfinished: bool = connection
                .query_row(&sql, [state.name()], |row| row.get(0))
                .unwrap();
            assert_eq!(unfinished, state.is_unfinished(), "{state}");
        }
    }
}
