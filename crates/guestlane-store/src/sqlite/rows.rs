//! Reads and writes a session record as a row in SQLite.

use std::sync::LazyLock;

use guestlane_genesys::Attempt;
use rusqlite::{Connection, Row, ToSql, params};

use super::Tx;
use crate::{
    StoreError, calls,
    row::{SessionRow, Written, session_columns, written_columns},
};
use guestlane_core::session::SessionRecord;

macro_rules! define_access {
    ($($name:ident: $type:ty, $pg_type:literal, $written:ident;)*) => {
        pub(super) fn read(row: &Row<'_>) -> Result<SessionRecord, StoreError> {
            let mut index = 0..;
            let mut next = || index.next().unwrap_or_default();
            SessionRow {
                $($name: row.get(next())?,)*
            }
            .into_session()
        }

        /// Returns the values that a statement of this kind writes, in the order of its columns.
        fn values(row: &SessionRow, statement: Written) -> Vec<&dyn ToSql> {
            let mut values: Vec<&dyn ToSql> = Vec::with_capacity(40);
            $(if Written::$written.in_statement(statement) {
                values.push(&row.$name);
            })*
            values
        }
    };
}
session_columns!(define_access);

static INSERT: LazyLock<String> = LazyLock::new(|| {
    let names: Vec<_> = written_columns(Written::Insert)
        .map(|column| column.name)
        .collect();
    format!(
        "INSERT INTO session ({}, fingerprint, recorded_at) VALUES ({}?, ?) \
         ON CONFLICT (idempotency_key, owner) DO NOTHING",
        names.join(", "),
        "?, ".repeat(names.len())
    )
});

static UPDATE: LazyLock<String> = LazyLock::new(|| {
    let assignments: String = written_columns(Written::Update)
        .map(|column| format!("{} = ?, ", column.name))
        .collect();
    format!(
        "UPDATE session SET {assignments}calls = iif(length(calls) < ?, calls || ?, calls), \
         recorded_at = ? WHERE id = ? AND epoch = ?"
    )
});

/// Updates the surface binding of a session that restarts under the present settings.
pub(super) fn update_surface_binding(
    connection: &Connection,
    session: &SessionRecord,
) -> Result<(), StoreError> {
    let row = SessionRow::of(session)?;
    let sql = "UPDATE session SET surface = ?2, surface_target_id = ?3, guest_session = ?4, \
               contact_without_identifier = ?5 WHERE id = ?1";
    connection.prepare_cached(sql)?.execute(params![
        row.id,
        row.surface,
        row.surface_target_id,
        row.guest_session,
        row.contact_without_identifier
    ])?;
    Ok(())
}

/// Inserts a session. Returns false if a session of the same owner already has the idempotency key.
pub(super) fn insert(tx: &Tx<'_>, session: &SessionRecord) -> Result<bool, StoreError> {
    let row = SessionRow::of(session)?;
    let (fingerprint, recorded_at) = (session.request.fingerprint(), tx.stamp().unix_micros());
    let mut values = values(&row, Written::Insert);
    values.extend([&fingerprint as &dyn ToSql, &recorded_at]);
    let inserted = tx.prepare_cached(&INSERT)?.execute(values.as_slice())?;
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
    let (lines, recorded_at) = (calls::lines(attempts), tx.stamp().unix_micros());
    let mut values = values(&row, Written::Update);
    values.extend([
        &calls::MAX_BYTES as &dyn ToSql,
        &lines,
        &recorded_at,
        &row.id,
        &epoch,
    ]);
    match tx.prepare_cached(&UPDATE)?.execute(values.as_slice())? {
        1 => Ok(()),
        _ => Err(StoreError::LeaseLost),
    }
}
