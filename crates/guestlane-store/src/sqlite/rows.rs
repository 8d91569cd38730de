//! Reads and writes a session record as a row in SQLite.

use guestlane_genesys::Attempt;
use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use super::Tx;
use crate::{StoreError, calls, row::SessionRow};
use guestlane_core::session::SessionRecord;

pub(super) use crate::row::COLUMNS;

pub(super) fn read(row: &Row<'_>) -> Result<SessionRecord, StoreError> {
    let uuid = |index| row.get(index).map(Uuid::from_bytes);
    SessionRow {
        id: uuid(0)?,
        idempotency_key: row.get(1)?,
        guest_id: row.get(2)?,
        queue_id: uuid(3)?,
        attributes: row.get(4)?,
        state: row.get(5)?,
        token_kid: row.get(6)?,
        token_jti: uuid(7)?,
        token_iat: row.get(8)?,
        contact_id: row.get(9)?,
        conversation_id: row.get(10)?,
        attempts: row.get(11)?,
        epoch: row.get(12)?,
        admitted_at: row.get(13)?,
        step_started_at: row.get(14)?,
        due_at: row.get(15)?,
        opened_at: row.get(16)?,
        latency_us: row.get(17)?,
        failure_code: row.get(18)?,
        failure_message: row.get(19)?,
        outcome_unknown: row.get(20)?,
        surface: row.get(21)?,
        surface_target_id: row.get::<_, Option<_>>(22)?.map(Uuid::from_bytes),
        guest_session: row.get(23)?,
        guest_session_expires_at: row.get(24)?,
        message_id: row.get(25)?,
        contact_id_lost: row.get(26)?,
        contact_details: row.get(27)?,
        contact_without_identifier: row.get(28)?,
        traceparent: row.get(29)?,
        owner: row.get(30)?,
    }
    .into_session()
}

/// Updates the surface binding of a session that restarts under the present settings.
pub(super) fn set_way(connection: &Connection, session: &SessionRecord) -> Result<(), StoreError> {
    let row = SessionRow::of(session)?;
    let sql = "UPDATE session SET surface = ?2, surface_target_id = ?3, guest_session = ?4, contact_without_identifier = ?5 WHERE id = ?1";
    let surface_target_id = row.surface_target_id.map(Uuid::into_bytes);
    let way = params![
        row.id.into_bytes(),
        row.surface,
        surface_target_id,
        row.guest_session,
        row.contact_without_identifier
    ];
    connection.prepare_cached(sql)?.execute(way)?;
    Ok(())
}

/// Inserts a session. Returns false if a session of the same owner already has the idempotency key.
pub(super) fn insert(tx: &Tx<'_>, session: &SessionRecord) -> Result<bool, StoreError> {
    let row = SessionRow::of(session)?;
    let mut statement = tx.prepare_cached(
        "INSERT INTO session (id, idempotency_key, fingerprint, guest_id, queue_id, attributes, state, token_kid, token_jti, token_iat, \
         attempts, epoch, admitted_at, step_started_at, due_at, outcome_unknown, surface, surface_target_id, guest_session, contact_details, contact_without_identifier, traceparent, \
         owner, recorded_at) \
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24 \
         ON CONFLICT (idempotency_key, owner) DO NOTHING",
    )?;
    let inserted = statement.execute(params![
        row.id.into_bytes(),
        row.idempotency_key,
        session.request.fingerprint(),
        row.guest_id,
        row.queue_id.into_bytes(),
        row.attributes,
        row.state,
        row.token_kid,
        row.token_jti.into_bytes(),
        row.token_iat,
        row.attempts,
        row.epoch,
        row.admitted_at,
        row.step_started_at,
        row.due_at,
        row.outcome_unknown,
        row.surface,
        row.surface_target_id.map(Uuid::into_bytes),
        row.guest_session,
        row.contact_details,
        row.contact_without_identifier,
        row.traceparent,
        row.owner,
        tx.stamp().unix_micros(),
    ])?;
    Ok(inserted == 1)
}

/// Updates all columns that can change. Returns [`StoreError::LeaseLost`] if the epoch in the store
/// is no longer `epoch`, because another process has claimed the session.
pub(super) fn update(
    tx: &Tx<'_>,
    session: &SessionRecord,
    epoch: u32,
    attempts: &[Attempt],
) -> Result<(), StoreError> {
    let row = SessionRow::of(session)?;
    let mut statement = tx.prepare_cached(
        "UPDATE session SET state = ?3, token_kid = ?4, token_jti = ?5, token_iat = ?6, contact_id = ?7, conversation_id = ?8, \
         attempts = ?9, epoch = ?10, step_started_at = ?11, due_at = ?12, opened_at = ?13, latency_us = ?14, failure_code = ?15, \
         failure_message = ?16, outcome_unknown = ?17, message_id = ?18, contact_id_lost = ?19, guest_session_expires_at = ?20, \
         calls = iif(length(calls) < ?22, calls || ?21, calls), recorded_at = ?23 WHERE id = ?1 AND epoch = ?2",
    )?;
    let updated = statement.execute(params![
        row.id.into_bytes(),
        epoch,
        row.state,
        row.token_kid,
        row.token_jti.into_bytes(),
        row.token_iat,
        row.contact_id,
        row.conversation_id,
        row.attempts,
        row.epoch,
        row.step_started_at,
        row.due_at,
        row.opened_at,
        row.latency_us,
        row.failure_code,
        row.failure_message,
        row.outcome_unknown,
        row.message_id,
        row.contact_id_lost,
        row.guest_session_expires_at,
        calls::lines(attempts),
        calls::MAX_BYTES,
        tx.stamp().unix_micros(),
    ])?;
    if updated == 1 {
        Ok(())
    } else {
        Err(StoreError::LeaseLost)
    }
}
