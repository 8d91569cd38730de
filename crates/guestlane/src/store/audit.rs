//! The audit log's rows: each has its index from the moment it is written.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, StoreError};
use crate::{audit::Entry, ledger::SessionId};

/// Adds a record at the end.
pub(super) fn append(connection: &Connection, entry: &Entry, session: Option<SessionId>) -> Result<(), StoreError> {
    let next: i64 =
        connection.prepare_cached("SELECT coalesce(max(idx) + 1, 0) FROM audit_entry")?.query_row([], |row| row.get(0))?;
    let line = entry.line(next.unsigned_abs());
    connection.prepare_cached("INSERT INTO audit_entry (idx, session_id, line) VALUES (?1, ?2, ?3)")?.execute(params![
        next,
        session.map(|id| id.0.into_bytes()),
        line
    ])?;
    Ok(())
}

/// The rows, as the file wants them.
pub(super) struct StoredLines<'a>(pub(super) &'a Connection);

impl crate::audit::Lines for StoredLines<'_> {
    fn line(&self, index: u64) -> Result<Option<String>, String> {
        let line = || {
            let mut statement = self.0.prepare_cached("SELECT line FROM audit_entry WHERE idx = ?1")?;
            statement.query_row([index], |row| row.get(0)).optional()
        };
        line().map_err(|error: rusqlite::Error| error.to_string())
    }

    fn append_from(&self, index: u64, text: &mut Vec<u8>) -> Result<u64, String> {
        let mut append = || {
            let mut statement = self.0.prepare_cached("SELECT line FROM audit_entry WHERE idx >= ?1 ORDER BY idx")?;
            let mut rows = statement.query([index])?;
            let mut count = 0;
            while let Some(row) = rows.next()? {
                text.extend_from_slice(row.get_ref(0)?.as_bytes()?);
                text.push(b'\n');
                count += 1;
            }
            Ok(count)
        };
        append().map_err(|error: rusqlite::Error| error.to_string())
    }
}

impl Store {
    /// The last `limit` records, oldest first; of one session, or of all.
    pub async fn audit_lines(&self, session: Option<SessionId>, limit: u32) -> Result<Vec<String>, StoreError> {
        self.reader
            .ask(move |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT line FROM (SELECT idx, line FROM audit_entry WHERE ?1 IS NULL OR session_id = ?1 ORDER BY idx DESC LIMIT ?2) ORDER BY idx",
                )?;
                let session = session.map(|id| id.0.into_bytes());
                let lines = statement.query_map(params![session, limit], |row| row.get(0))?;
                Ok(lines.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// An attempt that ended before there was a session is recorded too.
    pub async fn record_refusal(&self, entry: Entry, errors: guestlane_genesys::ErrorCounts) -> Result<(), StoreError> {
        let write = self.writer.run(move |connection| {
            append(connection, &entry, None)?;
            super::counters::add(connection, &errors)
        });
        write.await.map(drop)
    }
}
