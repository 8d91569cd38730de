//! The attempt log of a session: the outcome of each of its calls.

use rusqlite::{OptionalExtension, params};

use super::Sqlite;
use crate::{CallRecord, StoreError, calls};
use guestlane_core::session::SessionId;

pub(super) async fn calls(
    store: &Sqlite,
    session: SessionId,
) -> Result<Vec<CallRecord>, StoreError> {
    store
        .reader
        .read(move |connection| {
            let mut statement =
                connection.prepare_cached("SELECT calls FROM session WHERE id = ?1")?;
            let text: Option<String> = statement
                .query_row(params![session.0.into_bytes()], |row| row.get(0))
                .optional()?;
            calls::read(&text.unwrap_or_default())
        })
        .await
}
