//! Sessions as rows of PostgreSQL: single rows, and many rows as arrays by column.

use guestlane_genesys::Attempt;
use guestlane_runtime::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::connection::{Connection, DbResult};
use crate::{StoreError, calls, row::SessionRow};
use guestlane_core::session::SessionRecord;

pub(super) use crate::row::COLUMNS;

/// Reads a `bigint` column as a `u32`.
pub(super) fn small(row: &Row, index: usize) -> DbResult<u32> {
    u32::try_from(row.try_get::<_, i64>(index)?)
        .map_err(|_| StoreError::Row("a number that is out of range"))
}

/// Converts a number to a `bigint`; a number beyond `i64::MAX` becomes `i64::MAX`.
pub(super) fn as_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn read(row: &Row) -> DbResult<SessionRecord> {
    SessionRow {
        id: row.try_get(0)?,
        idempotency_key: row.try_get(1)?,
        guest_id: row.try_get(2)?,
        queue_id: row.try_get(3)?,
        attributes: row.try_get(4)?,
        state: row.try_get(5)?,
        token_kid: row.try_get(6)?,
        token_jti: row.try_get(7)?,
        token_iat: row.try_get(8)?,
        contact_id: row.try_get(9)?,
        conversation_id: row.try_get(10)?,
        attempts: small(row, 11)?,
        epoch: small(row, 12)?,
        admitted_at: row.try_get(13)?,
        step_started_at: row.try_get(14)?,
        due_at: row.try_get(15)?,
        opened_at: row.try_get(16)?,
        latency_us: row.try_get(17)?,
        failure_code: row.try_get(18)?,
        failure_message: row.try_get(19)?,
        outcome_unknown: row.try_get(20)?,
        surface: row.try_get(21)?,
        surface_target_id: row.try_get(22)?,
        guest_session: row.try_get(23)?,
        guest_session_expires_at: row.try_get(24)?,
        message_id: row.try_get(25)?,
        contact_id_lost: row.try_get(26)?,
        contact_details: row.try_get(27)?,
        contact_without_identifier: row.try_get(28)?,
        traceparent: row.try_get(29)?,
        owner: row.try_get(30)?,
    }
    .into_session()
}

/// Replaces NUL characters, which PostgreSQL cannot store in a text. Only text from the platform
/// can contain them.
fn text(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text
    }
}

/// Defines a struct of arrays by column, so that one statement writes many rows.
macro_rules! columns {
    ($(#[$about:meta])* $name:ident { $($column:ident: $type:ty),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Default)]
        pub(super) struct $name {
            $($column: Vec<$type>,)+
        }

        impl $name {
            /// Returns the arrays in the order of their declaration.
            pub(super) fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
                vec![$(&self.$column),+]
            }
        }
    };
}

columns! {
    /// New sessions, as arrays by column.
    NewSessions {
        id: Uuid, idempotency_key: String, fingerprint: Vec<u8>, guest_id: String, queue_id: Uuid, attributes: String, state: String,
        token_kid: String, token_jti: Uuid, token_iat: i64, attempts: i64, epoch: i64, admitted_at: i64, step_started_at: i64, due_at: i64,
        outcome_unknown: bool, surface: String, surface_target_id: Option<Uuid>, guest_session: Option<Vec<u8>>, contact_details: Option<String>, contact_without_identifier: bool,
        traceparent: Option<String>, owner: String, recorded_at: i64,
    }
}

impl NewSessions {
    /// Inserts the sessions and returns the IDs of those that were inserted. A session whose
    /// idempotency key and owner exist is left out. The statement names the columns and the types
    /// of the arrays.
    pub(super) const INSERT: &str = "INSERT INTO session (id, idempotency_key, fingerprint, guest_id, queue_id, attributes, state, token_kid, \
         token_jti, token_iat, attempts, epoch, admitted_at, step_started_at, due_at, outcome_unknown, surface, surface_target_id, guest_session, contact_details, contact_without_identifier, \
         traceparent, owner, recorded_at) SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::text[], \
         $9::uuid[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::boolean[], $17::text[], \
         $18::uuid[], $19::bytea[], $20::text[], $21::boolean[], $22::text[], $23::text[], $24::bigint[]) AS t (id, idempotency_key, fingerprint, guest_id, queue_id, attributes, state, \
         token_kid, token_jti, token_iat, attempts, epoch, admitted_at, step_started_at, due_at, outcome_unknown, surface, surface_target_id, guest_session, contact_details, \
         contact_without_identifier, traceparent, owner, recorded_at) \
         ON CONFLICT (idempotency_key, owner) DO NOTHING RETURNING id";

    pub(super) fn push(&mut self, session: &SessionRecord, now: Timestamp) -> DbResult<()> {
        let row = SessionRow::of(session)?;
        self.id.push(row.id);
        self.idempotency_key.push(row.idempotency_key);
        self.fingerprint
            .push(session.request.fingerprint().to_vec());
        self.guest_id.push(row.guest_id);
        self.queue_id.push(row.queue_id);
        self.attributes.push(row.attributes);
        self.state.push(row.state);
        self.token_kid.push(row.token_kid);
        self.token_jti.push(row.token_jti);
        self.token_iat.push(row.token_iat);
        self.attempts.push(row.attempts.into());
        self.epoch.push(row.epoch.into());
        self.admitted_at.push(row.admitted_at);
        self.step_started_at.push(row.step_started_at);
        self.due_at.push(row.due_at);
        self.outcome_unknown.push(row.outcome_unknown);
        self.surface.push(row.surface);
        self.surface_target_id.push(row.surface_target_id);
        self.guest_session.push(row.guest_session);
        self.contact_details.push(row.contact_details);
        self.contact_without_identifier
            .push(row.contact_without_identifier);
        self.traceparent.push(row.traceparent);
        self.owner.push(row.owner);
        self.recorded_at.push(now.unix_micros());
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.id.len()
    }
}

columns! {
    /// Updates of sessions, as arrays by column. An update applies only if the session's epoch is
    /// still `before`.
    GoneOn {
        id: Uuid, before: i64, state: String, token_kid: String, token_jti: Uuid, token_iat: i64, contact_id: Option<String>,
        conversation_id: Option<String>, attempts: i64, epoch: i64, step_started_at: i64, due_at: i64, opened_at: Option<i64>,
        latency_us: Option<i64>, failure_code: Option<String>, failure_message: Option<String>, outcome_unknown: bool, message_id: Option<String>,
        contact_id_lost: bool, guest_session_expires_at: Option<i64>, calls: String, most: i32, recorded_at: i64,
    }
}

impl GoneOn {
    /// Writes all that a transition changes. The surface binding is not part of it. A node that
    /// claimed the session before a master key rotation would otherwise write a guest session token
    /// that is sealed under the previous key.
    pub(super) const UPDATE: &str = "UPDATE session SET state = t.state, token_kid = t.token_kid, token_jti = t.token_jti, \
         token_iat = t.token_iat, contact_id = t.contact_id, conversation_id = t.conversation_id, attempts = t.attempts, epoch = t.epoch, \
         step_started_at = t.step_started_at, due_at = t.due_at, opened_at = t.opened_at, latency_us = t.latency_us, failure_code = t.failure_code, \
         failure_message = t.failure_message, outcome_unknown = t.outcome_unknown, message_id = t.message_id, contact_id_lost = t.contact_id_lost, \
         guest_session_expires_at = t.guest_session_expires_at, \
         calls = CASE WHEN octet_length(session.calls) < t.most THEN session.calls || t.calls ELSE session.calls END, \
         recorded_at = t.recorded_at FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::uuid[], $6::bigint[], $7::text[], $8::text[], $9::bigint[], \
         $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::text[], $16::text[], $17::boolean[], $18::text[], \
         $19::boolean[], $20::bigint[], $21::text[], $22::integer[], $23::bigint[]) \
         AS t (id, before, state, token_kid, token_jti, token_iat, contact_id, conversation_id, attempts, epoch, step_started_at, due_at, opened_at, \
         latency_us, failure_code, failure_message, outcome_unknown, message_id, contact_id_lost, guest_session_expires_at, calls, most, \
         recorded_at) WHERE session.id = t.id AND session.epoch = t.before RETURNING session.id, t.before";

    pub(super) fn push(
        &mut self,
        session: &SessionRecord,
        before: u32,
        attempts: &[Attempt],
        now: Timestamp,
    ) -> DbResult<()> {
        let row = SessionRow::of(session)?;
        self.id.push(row.id);
        self.before.push(before.into());
        self.state.push(row.state);
        self.token_kid.push(row.token_kid);
        self.token_jti.push(row.token_jti);
        self.token_iat.push(row.token_iat);
        self.contact_id.push(row.contact_id.map(text));
        self.conversation_id.push(row.conversation_id.map(text));
        self.attempts.push(row.attempts.into());
        self.epoch.push(row.epoch.into());
        self.step_started_at.push(row.step_started_at);
        self.due_at.push(row.due_at);
        self.opened_at.push(row.opened_at);
        self.latency_us.push(row.latency_us);
        self.failure_code.push(row.failure_code.map(text));
        self.failure_message.push(row.failure_message.map(text));
        self.outcome_unknown.push(row.outcome_unknown);
        self.message_id.push(row.message_id.map(text));
        self.contact_id_lost.push(row.contact_id_lost);
        self.guest_session_expires_at
            .push(row.guest_session_expires_at);
        self.calls.push(text(calls::lines(attempts)));
        self.most
            .push(i32::try_from(calls::MAX_BYTES).unwrap_or(i32::MAX));
        self.recorded_at.push(now.unix_micros());
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.id.len()
    }
}

/// Updates one session, whose row must be locked.
pub(super) fn update(
    tx: &mut Connection,
    session: &SessionRecord,
    before: u32,
    now: Timestamp,
) -> DbResult<()> {
    let mut gone_on = GoneOn::default();
    gone_on.push(session, before, &[], now)?;
    let updated = tx.execute(GoneOn::UPDATE, &gone_on.params())?;
    if updated == 1 {
        Ok(())
    } else {
        Err(StoreError::LeaseLost)
    }
}

/// Updates the surface binding of a session that restarts under the present settings.
pub(super) fn set_way(tx: &mut Connection, session: &SessionRecord) -> DbResult<()> {
    let row = SessionRow::of(session)?;
    let sql = "UPDATE session SET surface = $2, surface_target_id = $3, guest_session = $4, contact_without_identifier = $5 WHERE id = $1";
    tx.execute(
        sql,
        &[
            &row.id,
            &row.surface,
            &row.surface_target_id,
            &row.guest_session,
            &row.contact_without_identifier,
        ],
    )
    .map(drop)
}
