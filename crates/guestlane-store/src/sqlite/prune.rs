//! Deletes finished sessions after the retention period. Their audit records stay, so that the log
//! remains provable.

use guestlane_runtime::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::{Tx, counters};
use crate::{Pruned, StoreError};
use guestlane_core::session::SessionId;

/// SQL for the event ID of a session. It is derived from the session ID, so the index over event
/// IDs finds the events.
pub(super) const EVENT_OF: &str = "'msg_' || lower(hex(session.id))";

/// SQL condition of a session that may be deleted. It is open or failed, its last transition was
/// before `?2`, and none of its events is pending or a dead letter.
const PRUNABLE: &str = "(state = 'open' OR state = 'failed') AND recorded_at < ?2 AND NOT EXISTS \
     (SELECT 1 FROM outbox WHERE outbox.id = 'msg_' || lower(hex(session.id)) AND (outbox.state = 'pending' OR outbox.state = 'dead'))";

type Found = (Option<SessionId>, Vec<SessionId>);

/// Returns the ID after which the next search continues, and the sessions that may be deleted.
pub(super) fn find_prunable(
    connection: &Connection,
    from: Option<SessionId>,
    until: Timestamp,
    limit: u32,
) -> Result<Found, StoreError> {
    // IDs are ordered by admission time. A session that was admitted after `until` cannot have
    // finished before it.
    let sql = format!(
        "SELECT id, {PRUNABLE} FROM session WHERE id > ?1 AND id < ?3 ORDER BY id LIMIT ?4"
    );
    let (from, to) = (
        from.map_or([0; 16], |id| id.0.into_bytes()),
        first_id_after(until),
    );
    let mut select = connection.prepare_cached(&sql)?;
    let rows = select.query_map(params![from, until.unix_micros(), to, limit], |row| {
        Ok((
            SessionId(Uuid::from_bytes(row.get(0)?)),
            row.get::<_, Option<bool>>(1)?.unwrap_or(false),
        ))
    })?;
    let rows: Vec<_> = rows.collect::<Result<_, _>>()?;
    let more = rows.len() == limit as usize;
    let next = rows.last().filter(|_| more).map(|(id, _)| *id);
    Ok((
        next,
        rows.into_iter()
            .filter_map(|(id, old)| old.then_some(id))
            .collect(),
    ))
}

fn first_id_after(moment: Timestamp) -> [u8; 16] {
    let millis = u64::try_from(moment.unix_micros() / 1000 + 1).unwrap_or(0);
    (u128::from(millis) << 80).to_be_bytes()
}

/// Deletes a session, unless it was claimed or its event was replayed after the search.
pub(super) fn delete(
    tx: &Tx<'_>,
    id: SessionId,
    until: Timestamp,
    pruned: &mut Pruned,
) -> Result<(), StoreError> {
    let delete = format!(
        "DELETE FROM session WHERE id = ?1 AND {PRUNABLE} RETURNING state, latency_us, {EVENT_OF}"
    );
    let mut delete = tx.prepare_cached(&delete)?;
    let gone = delete.query_row(params![id.0.into_bytes(), until.unix_micros()], |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, Option<u64>>(1)?,
            row.get::<_, String>(2)?,
        ))
    });
    let Some((state, latency, event)) = gone.optional()? else {
        return Ok(());
    };
    let mut delete = tx.prepare_cached("DELETE FROM outbox WHERE id = ?1 RETURNING state")?;
    let events: Vec<String> = delete
        .query_map([event], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    pruned.sessions += 1;
    pruned.events += events.len() as u64;
    counters::keep_pruned(tx, &state, &events, latency)
}

#[cfg(test)]
mod tests {
    use super::*;
    use guestlane_core::event::event_id;

    #[test]
    fn event_id_is_derived_from_the_session_id() {
        let connection = Connection::open_in_memory().unwrap();
        let id = Uuid::from_u128(0x0192_abcd_ef01_7000_8000_0123_4567_89ab);
        let sql = format!("SELECT {EVENT_OF} FROM (SELECT ?1 AS id) AS session");
        let found: String = connection
            .query_row(&sql, [id.into_bytes()], |row| row.get(0))
            .unwrap();
        assert_eq!(found, event_id(id));
        assert!(PRUNABLE.contains(EVENT_OF));
    }

    #[test]
    fn ids_of_a_moment_precede_the_first_id_after_it() {
        let now = Timestamp::from_unix_micros(1_795_361_029_000_000);
        let id = |seconds| {
            Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0)).into_bytes()
        };
        assert!(id(1_795_361_029) < first_id_after(now) && first_id_after(now) < id(1_795_361_030));
    }
}
