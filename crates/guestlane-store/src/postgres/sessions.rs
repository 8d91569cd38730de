//! Sessions: transitions, leases, claims of abandoned sessions, and queries.

use async_trait::async_trait;
use guestlane_runtime::Timestamp;
use uuid::Uuid;

use super::{
    Postgres,
    connection::{Connection, DbResult, Params},
    rows,
    writer::{UpdateSession, WriteOp},
};
use crate::{
    CallRecord, CommitRequest, CommitResult, Committed, SessionFilter, SessionPage, Sessions,
    StoreError, calls, queries,
    row::{DUE_AT, SELECTED, UNFINISHED},
};
use guestlane_core::{
    request::GuestId,
    session::{LEASE_TTL, MAX_CLOCK_SKEW, SessionId, SessionRecord, SessionState},
};

/// Maximum number of rows that one page scans. Without it, the query for a rare queue would scan
/// millions of rows.
const MAX_SCANNED_ROWS: i64 = 20_000;

#[async_trait]
impl Sessions for Postgres {
    async fn commit_transition(
        &self,
        transition: CommitRequest,
    ) -> Result<Committed<CommitResult>, StoreError> {
        let CommitRequest {
            epoch,
            after,
            audit,
            events,
            errors,
            calls,
        } = transition;
        let step = UpdateSession {
            before: epoch,
            after: after.clone(),
            audit,
            events: events.clone(),
            errors,
            calls,
        };
        let Committed { value: kept, audit } =
            self.writer.write(WriteOp::Update(Box::new(step))).await?;
        if !kept.done {
            return Err(StoreError::LeaseLost);
        }
        let first = events
            .into_iter()
            .zip(kept.first)
            .filter_map(|(event, first)| first.then_some(event))
            .collect();
        Ok(Committed {
            value: CommitResult {
                session: after,
                first,
            },
            audit,
        })
    }

    async fn renew_leases(
        &self,
        leases: Vec<(SessionId, u32)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut leases = leases;
        leases.sort_unstable(); // sort by ID so that all writers lock rows in the same order
        let (ids, epochs): (Vec<Uuid>, Vec<i64>) = leases
            .into_iter()
            .map(|(id, epoch)| (id.0, i64::from(epoch)))
            .unzip();
        let until = (now + LEASE_TTL).unix_micros();
        let sql = "UPDATE session SET lease_expires_at = $3 \
             FROM unnest($1::uuid[], $2::bigint[]) AS t (id, epoch) \
             WHERE session.id = t.id AND session.epoch = t.epoch AND lease_expires_at IS NOT NULL";
        self.urgent
            .read(move |connection| connection.execute(sql, &[&ids, &epochs, &until]).map(drop))
            .await
    }

    async fn claim_due(
        &self,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        if !self.is_clock_close() {
            return Ok(Vec::new());
        }
        let moments = [
            now,
            now + LEASE_TTL + MAX_CLOCK_SKEW,
            now + SessionRecord::MAX_BACKOFF + MAX_CLOCK_SKEW,
        ]
        .map(Timestamp::unix_micros);
        self.workers
            .write(move |tx| {
                let [now_, lease, rest] = &moments;
                // An expiry beyond the longest lease or backoff was written before the wall clock
                // moved backwards; treat it as expired. `SKIP LOCKED` leaves out sessions that
                // another process is claiming.
                let sql = format!(
                    "SELECT {} FROM session WHERE {UNFINISHED} AND ({DUE_AT} <= $1 OR (state <> 'parked' AND \
                     {DUE_AT} > CASE WHEN lease_expires_at IS NULL THEN $3::bigint ELSE $2 END)) \
                     ORDER BY {DUE_AT} LIMIT $4 FOR UPDATE SKIP LOCKED",
                    *SELECTED
                );
                let due = select(tx, &sql, &[now_, lease, rest, &i64::from(limit)])?;
                claim_all(tx, due, now)
            })
            .await
    }

    async fn claim(
        &self,
        id: SessionId,
        now: Timestamp,
    ) -> Result<Option<SessionRecord>, StoreError> {
        self.workers
            .write(move |tx| {
                let sql = format!("SELECT {} FROM session WHERE id = $1 FOR UPDATE", *SELECTED);
                let mut found = select(tx, &sql, &[&id.0])?;
                found.retain(|session| !session.is_blocked(now) && !session.is_erased());
                Ok(claim_all(tx, found, now)?.pop())
            })
            .await
    }

    async fn latest_contact_id(
        &self,
        guest: GuestId,
        except: SessionId,
    ) -> Result<Option<String>, StoreError> {
        self.workers
            .read(move |connection| {
                let sql = "SELECT contact_id FROM session WHERE guest_id = $1 AND id <> $2 AND contact_id IS NOT NULL \
                     AND surface <> 'rest' ORDER BY id DESC LIMIT 1";
                Ok(connection.query_opt(sql, &[&guest.as_str(), &except.0])?.map(|row| row.try_get(0)).transpose()?)
            })
            .await
    }

    async fn session(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        let sql = format!("SELECT {} FROM session WHERE id = $1", *SELECTED);
        self.workers
            .read(move |connection| {
                connection
                    .query_opt(&sql, &[&id.0])?
                    .as_ref()
                    .map(rows::read)
                    .transpose()
            })
            .await
    }

    async fn sessions(&self, filter: SessionFilter) -> Result<SessionPage, StoreError> {
        self.workers
            .read(move |connection| {
                let SessionFilter { guest, state, queue, before, limit } = &filter;
                let (before, queue) = (before.map_or(Uuid::max(), |id| id.0), queue.map(|queue| queue.0));
                // If an index leads to the matching sessions, or all sessions match, the scan needs
                // no limit beyond the page's.
                let by_index = guest.is_some() || state.is_some_and(|state| state != SessionState::Open);
                let shows_all = queue.is_none() && state.is_none();
                let last: Option<Uuid> = if by_index || shows_all {
                    None
                } else {
                    let sql = queries::SELECT_LAST_SCANNED_SESSION;
                    connection.query_opt(sql, &[&before, &(MAX_SCANNED_ROWS - 1)])?.map(|row| row.try_get(0)).transpose()?
                };
                // The state is part of the SQL text, so that the partial indexes on the rare states
                // are used.
                let in_state = match state {
                    None => "TRUE".to_owned(),
                    Some(state) if state.is_unfinished() => format!("{UNFINISHED} AND state = '{}'", state.name()),
                    Some(state) => format!("state = '{}'", state.name()),
                };
                let of_guest = if guest.is_some() { "guest_id = $1" } else { "$1::text IS NULL" };
                let sql = format!(
                    "SELECT {} FROM session WHERE {of_guest} AND {in_state} AND ($2::uuid IS NULL OR queue_id = $2) AND id < $3 \
                     AND id >= $4 ORDER BY id DESC LIMIT $5",
                    *SELECTED
                );
                let from = last.unwrap_or_default();
                let sessions = select(connection, &sql, &[guest, &queue, &before, &from, &i64::from(*limit)])?;
                let full = sessions.len() == *limit as usize;
                let next = if full { sessions.last().map(|session| session.id) } else { last.map(SessionId) };
                Ok(SessionPage { sessions, next })
            })
            .await
    }

    async fn unfinished_sessions(&self, limit: u32) -> Result<Vec<SessionRecord>, StoreError> {
        let sql = format!(
            "SELECT {} FROM session WHERE {UNFINISHED} ORDER BY {DUE_AT} LIMIT $1",
            *SELECTED
        );
        self.workers
            .read(move |connection| select(connection, &sql, &[&i64::from(limit)]))
            .await
    }

    async fn unfinished(&self) -> Result<u64, StoreError> {
        let sql = format!("SELECT count(*) FROM session WHERE {UNFINISHED}");
        self.workers
            .read(move |connection| count(connection, &sql, &[]))
            .await
    }

    async fn calls(&self, session: SessionId) -> Result<Vec<CallRecord>, StoreError> {
        self.workers
            .read(move |connection| {
                match connection.query_opt(queries::SELECT_CALLS, &[&session.0])? {
                    Some(row) => calls::read(row.try_get(0)?),
                    None => Ok(Vec::new()),
                }
            })
            .await
    }
}

/// Claims sessions for this process. Their rows must be locked.
fn claim_all(
    tx: &mut Connection,
    sessions: Vec<SessionRecord>,
    now: Timestamp,
) -> DbResult<Vec<SessionRecord>> {
    let mut updates = rows::SessionUpdates::default();
    let mut taken = Vec::with_capacity(sessions.len());
    for session in sessions {
        let epoch = session.epoch;
        let after = session.claimed(now)?;
        updates.push(&after, epoch, &[], now)?;
        taken.push(after);
    }
    if !taken.is_empty() {
        tx.execute(rows::SessionUpdates::statement(), &updates.params())?;
    }
    Ok(taken)
}

fn select(
    connection: &mut Connection,
    sql: &str,
    params: Params<'_>,
) -> DbResult<Vec<SessionRecord>> {
    connection
        .query(sql, params)?
        .iter()
        .map(rows::read)
        .collect()
}

/// Returns the single number that a query selects.
pub(super) fn count(connection: &mut Connection, sql: &str, params: Params<'_>) -> DbResult<u64> {
    Ok(connection
        .query_one(sql, params)?
        .try_get::<_, i64>(0)?
        .unsigned_abs())
}
