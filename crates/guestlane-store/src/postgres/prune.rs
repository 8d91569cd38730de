//! Deletion of sessions that are complete and old. Their audit records stay, because the audit log
//! must remain provable.

use std::collections::BTreeMap;

use guestlane_runtime::Timestamp;
use uuid::Uuid;

use super::{
    connection::{Connection, DbResult},
    counters,
};
use crate::Pruned;
use guestlane_core::session::SessionId;

/// SQL for the ID of a session's events. It is derived from the session ID, so the unique index on
/// event IDs finds them.
pub(super) const EVENT_OF: &str = "'msg_' || replace(session.id::text, '-', '')";

/// SQL condition for a session that may be deleted. It is open or failed, its last transition was
/// before `$2`, and none of its events is pending or a dead letter. No batch row can present its
/// idempotency key again.
const PRUNABLE: &str = "(state = 'open' OR state = 'failed') AND recorded_at < $2 AND NOT EXISTS (SELECT 1 FROM outbox \
     WHERE outbox.id = 'msg_' || replace(session.id::text, '-', '') AND (outbox.state = 'pending' OR outbox.state = 'dead')) \
     AND NOT EXISTS (SELECT 1 FROM batch_row WHERE batch_row.idempotency_key = session.idempotency_key \
     AND (batch_row.state = 'waiting' OR batch_row.state = 'running'))";

type Found = (Option<SessionId>, Vec<Uuid>);

/// Returns the session to continue after, and the sessions that may be deleted.
pub(super) fn find_prunable(
    connection: &mut Connection,
    from: Option<SessionId>,
    until: Timestamp,
    limit: u32,
) -> DbResult<Found> {
    // IDs are ordered by the time of admission. A session that was admitted after `until` cannot
    // have ended before it.
    let sql = format!(
        "SELECT id, {PRUNABLE} FROM session WHERE id > $1 AND id < $3 ORDER BY id LIMIT $4"
    );
    let (from, to) = (from.map_or(Uuid::nil(), |id| id.0), first_id_after(until));
    let rows = connection.query(&sql, &[&from, &until.unix_micros(), &to, &i64::from(limit)])?;
    let rows = rows.iter().map(|row| {
        Ok((
            row.try_get(0)?,
            row.try_get::<_, Option<bool>>(1)?.unwrap_or(false),
        ))
    });
    let rows: Vec<(Uuid, bool)> = rows.collect::<DbResult<_>>()?;
    let more = rows.len() == limit as usize;
    let next = rows.last().filter(|_| more).map(|(id, _)| SessionId(*id));
    Ok((
        next,
        rows.into_iter()
            .filter_map(|(id, old)| old.then_some(id))
            .collect(),
    ))
}

fn first_id_after(moment: Timestamp) -> Uuid {
    let millis = u64::try_from(moment.unix_micros() / 1000 + 1).unwrap_or(0);
    Uuid::from_u128(u128::from(millis) << 80)
}

/// Deletes sessions, unless they were claimed or their events replayed since they were found.
pub(super) fn delete(
    tx: &mut Connection,
    old: &[Uuid],
    until: Timestamp,
    next: Option<SessionId>,
) -> DbResult<Pruned> {
    // Lock in ID order so that all writers lock in the same order. Skip sessions that another
    // process is deleting.
    let lock = format!(
        "SELECT id FROM session WHERE id = ANY($1) AND {PRUNABLE} ORDER BY id FOR UPDATE SKIP LOCKED"
    );
    let locked = tx.query(&lock, &[&old, &until.unix_micros()])?;
    let locked = locked
        .iter()
        .map(|row| Ok(row.try_get(0)?))
        .collect::<DbResult<Vec<Uuid>>>()?;
    // Lock the events so that none can be replayed from here on, and check again for those that
    // were.
    let events = "SELECT 1 FROM outbox JOIN session ON outbox.id = 'msg_' || replace(session.id::text, '-', '') \
         WHERE session.id = ANY($1) ORDER BY outbox.seq FOR UPDATE OF outbox";
    tx.query(events, &[&locked])?;
    let still = format!("SELECT id FROM session WHERE id = ANY($1) AND {PRUNABLE}");
    let still = tx.query(&still, &[&locked, &until.unix_micros()])?;
    let locked = still
        .iter()
        .map(|row| Ok(row.try_get(0)?))
        .collect::<DbResult<Vec<Uuid>>>()?;
    let mut pruned = Pruned {
        next,
        ..Pruned::default()
    };
    let (mut sessions, mut events, mut latencies) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let delete = "DELETE FROM outbox USING session WHERE session.id = ANY($1) AND outbox.id = 'msg_' || replace(session.id::text, '-', '') \
         RETURNING outbox.state";
    for row in tx.query(delete, &[&locked])? {
        *events.entry(row.try_get(0)?).or_default() += 1;
        pruned.events += 1;
    }
    for row in tx.query(
        "DELETE FROM session WHERE id = ANY($1) RETURNING state, latency_us",
        &[&locked],
    )? {
        *sessions.entry(row.try_get(0)?).or_default() += 1;
        latencies.extend(row.try_get::<_, Option<i64>>(1)?.map(i64::unsigned_abs));
        pruned.sessions += 1;
    }
    counters::keep_pruned(tx, &sessions, &events, &latencies)?;
    Ok(pruned)
}
