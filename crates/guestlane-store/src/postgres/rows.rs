//! Sessions as rows of PostgreSQL: single rows, and many rows as arrays by column.

use std::sync::LazyLock;

use guestlane_genesys::Attempt;
use guestlane_runtime::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::connection::{Connection, DbResult};
use crate::{
    StoreError, calls,
    row::{SessionRow, Written, session_columns, without_nul, written_columns},
};
use guestlane_core::session::SessionRecord;

/// Reads a `bigint` column as a `u32`.
pub(super) fn small(row: &Row, index: usize) -> DbResult<u32> {
    u32::try_from(row.try_get::<_, i64>(index)?)
        .map_err(|_| StoreError::Row("a number that is out of range"))
}

/// Converts a number to a `bigint`; a number beyond `i64::MAX` becomes `i64::MAX`.
pub(super) fn as_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

macro_rules! define_access {
    ($($name:ident: $type:ty, $pg_type:literal, $written:ident;)*) => {
        pub(super) fn read(row: &Row) -> DbResult<SessionRecord> {
            let mut index = 0..;
            let mut next = || index.next().unwrap_or_default();
            SessionRow {
                $($name: row.try_get(next())?,)*
            }
            .into_session()
        }

        /// Rows as arrays by column, so that one statement writes many rows.
        #[derive(Default)]
        struct Arrays {
            $($name: Vec<$type>,)*
        }

        impl Arrays {
            fn push(&mut self, row: SessionRow) {
                $(self.$name.push(row.$name);)*
            }

            /// Returns the arrays that a statement of this kind writes, in the order of its
            /// columns.
            fn params(&self, statement: Written) -> Vec<&(dyn ToSql + Sync)> {
                let mut params: Vec<&(dyn ToSql + Sync)> = Vec::with_capacity(40);
                $(if Written::$written.in_statement(statement) {
                    params.push(&self.$name);
                })*
                params
            }
        }
    };
}
session_columns!(define_access);

/// Returns `unnest($1::type[], …) AS t (name, …)` for the columns of a statement and `others`.
fn unnest(statement: Written, others: &[(&str, &str)]) -> String {
    let columns: Vec<_> = written_columns(statement)
        .map(|column| (column.name, column.pg_type))
        .chain(others.iter().copied())
        .collect();
    let arrays: Vec<_> = (1..)
        .zip(&columns)
        .map(|(number, (_, pg_type))| format!("${number}::{pg_type}[]"))
        .collect();
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    format!("unnest({}) AS t ({})", arrays.join(", "), names.join(", "))
}

/// New sessions. The statement inserts them and returns the IDs of those that were inserted. A
/// session whose idempotency key and owner exist is left out.
#[derive(Default)]
pub(super) struct NewSessions {
    rows: Arrays,
    fingerprint: Vec<Vec<u8>>,
    recorded_at: Vec<i64>,
}

static INSERT: LazyLock<String> = LazyLock::new(|| {
    let names: String = written_columns(Written::Insert)
        .map(|column| format!("{}, ", column.name))
        .collect();
    let others = [("fingerprint", "bytea"), ("recorded_at", "bigint")];
    format!(
        "INSERT INTO session ({names}fingerprint, recorded_at) SELECT * FROM {} \
         ON CONFLICT (idempotency_key, owner) DO NOTHING RETURNING id",
        unnest(Written::Insert, &others)
    )
});

impl NewSessions {
    pub(super) fn statement() -> &'static str {
        &INSERT
    }

    pub(super) fn push(&mut self, session: &SessionRecord, now: Timestamp) -> DbResult<()> {
        self.rows.push(SessionRow::of(session)?);
        self.fingerprint
            .push(session.request.fingerprint().to_vec());
        self.recorded_at.push(now.unix_micros());
        Ok(())
    }

    pub(super) fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut params = self.rows.params(Written::Insert);
        params.extend([&self.fingerprint as &(dyn ToSql + Sync), &self.recorded_at]);
        params
    }

    pub(super) fn len(&self) -> usize {
        self.recorded_at.len()
    }
}

/// Updates of sessions: all that a transition changes. An update applies only if the session's epoch
/// is still `before`; the statement returns the ID and `before` of each session that it updated.
///
/// The surface binding is not part of it. A node that claimed the session before a master key
/// rotation would otherwise write a guest session token that is sealed under the previous key.
#[derive(Default)]
pub(super) struct SessionUpdates {
    rows: Arrays,
    id: Vec<Uuid>,
    before: Vec<i64>,
    calls: Vec<String>,
    max_calls: Vec<i32>,
    recorded_at: Vec<i64>,
}

static UPDATE: LazyLock<String> = LazyLock::new(|| {
    let assignments: String = written_columns(Written::Update)
        .map(|column| format!("{0} = t.{0}, ", column.name))
        .collect();
    let others = [
        ("id", "uuid"),
        ("before", "bigint"),
        ("calls", "text"),
        ("max_calls", "integer"),
        ("recorded_at", "bigint"),
    ];
    format!(
        "UPDATE session SET {assignments}calls = CASE WHEN octet_length(session.calls) < t.max_calls \
         THEN session.calls || t.calls ELSE session.calls END, recorded_at = t.recorded_at \
         FROM {} WHERE session.id = t.id AND session.epoch = t.before RETURNING session.id, t.before",
        unnest(Written::Update, &others)
    )
});

impl SessionUpdates {
    pub(super) fn statement() -> &'static str {
        &UPDATE
    }

    pub(super) fn push(
        &mut self,
        session: &SessionRecord,
        before: u32,
        attempts: &[Attempt],
        now: Timestamp,
    ) -> DbResult<()> {
        self.rows.push(SessionRow::of(session)?);
        self.id.push(session.id.0);
        self.before.push(before.into());
        self.calls.push(without_nul(&calls::lines(attempts)));
        self.max_calls
            .push(i32::try_from(calls::MAX_BYTES).unwrap_or(i32::MAX));
        self.recorded_at.push(now.unix_micros());
        Ok(())
    }

    pub(super) fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut params = self.rows.params(Written::Update);
        params.extend([
            &self.id as &(dyn ToSql + Sync),
            &self.before,
            &self.calls,
            &self.max_calls,
            &self.recorded_at,
        ]);
        params
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
    let mut updates = SessionUpdates::default();
    updates.push(session, before, &[], now)?;
    match tx.execute(SessionUpdates::statement(), &updates.params())? {
        1 => Ok(()),
        _ => Err(StoreError::LeaseLost),
    }
}

/// Updates the surface binding of a session that restarts under the present settings.
pub(super) fn update_surface_binding(tx: &mut Connection, session: &SessionRecord) -> DbResult<()> {
    let row = SessionRow::of(session)?;
    let sql = "UPDATE session SET surface = $2, surface_target_id = $3, guest_session = $4, \
               contact_without_identifier = $5 WHERE id = $1";
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
