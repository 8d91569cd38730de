//! Looking at the audit logs: records of a session or a guest, the state of each log, the hashes of its lines.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, Params, Row, params};

use super::{
    Store, StoreError, Tx,
    audit::{Restored, leaves, logs, tree},
    counters, guests,
};
use crate::{
    audit::{Checkpoint, Entry, Frontier, Hash, VerifierKey, lines_path},
    ledger::SessionId,
    request::GuestId,
};

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its log.
    pub log: u32,
    /// Its place in it.
    pub index: u64,
    /// Its line, without the end.
    pub line: String,
}

/// Which records to look at.
#[derive(Debug, Clone, Default)]
pub struct RecordFilter {
    /// Of this session.
    pub session: Option<SessionId>,
    /// Of this guest, whatever the log calls them.
    pub guest: Option<GuestId>,
    /// At most so many: the last ones.
    pub limit: u32,
}

/// A log as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogInfo {
    /// Its number.
    pub log: u32,
    /// The file of its lines.
    pub path: PathBuf,
    /// Its state, which its file must have.
    pub checkpoint: Checkpoint,
    /// Whether it is full.
    pub closed: bool,
}

impl Store {
    /// The last records, oldest first.
    pub async fn records(&self, filter: RecordFilter) -> Result<Vec<StoredRecord>, StoreError> {
        self.reader
            .ask(move |connection| {
                let mut found = match (filter.session, filter.guest) {
                    (Some(session), guest) => of_session(connection, session, guest.as_ref())?,
                    (None, Some(guest)) => of_guest(connection, &guest)?,
                    (None, None) => last(connection, filter.limit)?,
                };
                // Each log is in order; among them time decides, which every line has.
                found.sort_by(|a, b| timestamp(&a.line).cmp(timestamp(&b.line)));
                found.drain(..found.len().saturating_sub(filter.limit as usize));
                Ok(found)
            })
            .await
    }

    /// All logs of this store.
    pub async fn logs(&self, first: &Path, key: &VerifierKey) -> Result<Vec<LogInfo>, StoreError> {
        let (first, key) = (first.to_owned(), key.clone());
        self.reader
            .ask(move |connection| {
                let info = |log| {
                    let tree = tree(connection, log)?;
                    let closed = "SELECT closed_at IS NOT NULL FROM audit_log WHERE log = ?1";
                    let closed = connection.prepare_cached(closed)?.query_row([log], |row| row.get(0))?;
                    let checkpoint =
                        Checkpoint { origin: Checkpoint::origin_of(&key, log), size: tree.size(), root: tree.root() };
                    Ok(LogInfo { log, path: lines_path(&first, log), checkpoint, closed })
                };
                logs(connection)?.into_iter().map(info).collect()
            })
            .await
    }

    /// The hashes of a log's lines. They must lead to the root that was kept with them: nobody may have changed a row since.
    pub async fn leaves(&self, log: u32) -> Result<Vec<Hash>, StoreError> {
        self.reader
            .ask(move |connection| {
                let connection = connection.unchecked_transaction()?; // one moment for both
                let (leaves, tree) = (leaves(&connection, log)?, tree(&connection, log)?);
                let true_ones = leaves.iter().copied().collect::<Frontier>() == tree;
                if true_ones { Ok(leaves) } else { Err(StoreError::RecordsChanged(log)) }
            })
            .await
    }

    /// Writes the files of a log anew.
    pub async fn restore_log(&self, log: u32) -> Result<Restored, StoreError> {
        self.writer.with_logs(move |logs, connection| logs.restore(connection, log)).await
    }

    /// An attempt that ended before there was a session is recorded too.
    pub async fn record_refusal(&self, entry: Entry, errors: guestlane_genesys::ErrorCounts) -> Result<(), StoreError> {
        let write = self.writer.run(move |tx: &Tx<'_>| {
            tx.record(entry);
            super::counters::add(tx, &errors)
        });
        write.await.map(drop)
    }
}

fn of_session(connection: &Connection, session: SessionId, guest: Option<&GuestId>) -> Result<Vec<StoredRecord>, StoreError> {
    let select = "SELECT log, idx, line FROM audit_entry WHERE session_id = ?1 ORDER BY log, idx";
    let mut found = select_records(connection, select, params![session.0.into_bytes()])?;
    if let Some(guest) = guest {
        let names = guests::names(connection, guest)?;
        found.retain(|record| names.are_in(&record.line));
    }
    Ok(found)
}

/// Those of the guest's sessions, and those of attempts that never became one. Sessions of guests who were erased are looked at, too: a log with ids
/// in plain still has them. Where sessions were forgotten, every record is looked at.
fn of_guest(connection: &Connection, guest: &GuestId) -> Result<Vec<StoredRecord>, StoreError> {
    let names = guests::names(connection, guest)?;
    let (plain, pseudonym) = names.in_records();
    let mut found = if counters::has_pruned(connection)? {
        let select = "SELECT log, idx, line FROM audit_entry WHERE instr(line, ?1) > 0 OR instr(line, ?2) > 0";
        select_records(connection, select, params![plain, pseudonym])?
    } else {
        let select = "SELECT log, idx, line FROM audit_entry \
             WHERE session_id IN (SELECT id FROM session WHERE (guest_id = ?1 OR (guest_id >= 'erased-' AND guest_id < 'erased.'))) \
             UNION ALL SELECT log, idx, line FROM audit_entry WHERE session_id IS NULL";
        select_records(connection, select, params![names.plain])?
    };
    found.retain(|record| names.are_in(&record.line));
    found.sort_by_key(|record| (record.log, record.index));
    Ok(found)
}

/// The last records of each log.
fn last(connection: &Connection, limit: u32) -> Result<Vec<StoredRecord>, StoreError> {
    let mut found = Vec::new();
    for log in logs(connection)? {
        let select = "SELECT log, idx, line FROM audit_entry WHERE log = ?1 ORDER BY idx DESC LIMIT ?2";
        let mut last = select_records(connection, select, params![log, limit])?;
        last.reverse();
        found.extend(last);
    }
    Ok(found)
}

fn select_records(connection: &Connection, sql: &str, parameters: impl Params) -> Result<Vec<StoredRecord>, StoreError> {
    let mut select = connection.prepare_cached(sql)?;
    let record = |row: &Row<'_>| Ok(StoredRecord { log: row.get(0)?, index: row.get(1)?, line: row.get(2)? });
    Ok(select.query_map(parameters, record)?.collect::<Result<_, _>>()?)
}

fn timestamp(line: &str) -> &str {
    line.split_once(r#""timestamp":""#).and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default()
}
