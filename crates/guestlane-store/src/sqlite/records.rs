//! Queries of the audit logs: records of a session or guest, the state of each log, and the leaf
//! hashes of a log.

use std::path::Path;

use async_trait::async_trait;
use guestlane_core::{
    audit::{AuditRecord, UNRECORDED},
    request::GuestId,
    session::SessionId,
};
use guestlane_runtime::Timestamp;
use guestlane_tlog::{Checkpoint, Frontier, Hash, VerifierKey, lines_path};
use rusqlite::{Connection, Params, Row, params};

use super::{
    Sqlite, Tx,
    audit::{leaves, logs, tree},
    counters, guests,
};
use crate::{
    AuditLog, LogInfo, RecordFilter, RestoreOutcome, StoreError, StoredRecord, queries,
    record::timestamp,
};

#[async_trait]
impl AuditLog for Sqlite {
    async fn records(&self, filter: RecordFilter) -> Result<Vec<StoredRecord>, StoreError> {
        self.reader
            .read(move |connection| {
                let mut found = match (filter.session, filter.guest) {
                    (Some(session), guest) => of_session(connection, session, guest.as_ref())?,
                    (None, Some(guest)) => of_guest(connection, &guest)?,
                    (None, None) => last(connection, filter.limit)?,
                };
                // Records of one log are in order. Records of different logs are ordered by the
                // timestamp in each line.
                found.sort_by(|a, b| timestamp(&a.line).cmp(timestamp(&b.line)));
                found.drain(..found.len().saturating_sub(filter.limit as usize));
                Ok(found)
            })
            .await
    }

    async fn logs(&self, first: &Path, key: &VerifierKey) -> Result<Vec<LogInfo>, StoreError> {
        let (first, key) = (first.to_owned(), key.clone());
        self.reader
            .read(move |connection| {
                let info = |log| {
                    let tree = tree(connection, log)?;
                    let closed = "SELECT closed_at IS NOT NULL FROM audit_log WHERE log = ?1";
                    let closed = connection
                        .prepare_cached(closed)?
                        .query_row([log], |row| row.get(0))?;
                    let checkpoint = Checkpoint {
                        origin: Checkpoint::origin_of(&key, log),
                        size: tree.size(),
                        root: tree.root(),
                    };
                    Ok(LogInfo {
                        log,
                        path: lines_path(&first, log),
                        checkpoint,
                        closed,
                        other_node: false,
                    })
                };
                logs(connection)?.into_iter().map(info).collect()
            })
            .await
    }

    async fn leaves(&self, log: u32) -> Result<Vec<Hash>, StoreError> {
        self.reader
            .read(move |connection| {
                // Read both in one transaction, so that they show the same state of the log.
                let connection = connection.unchecked_transaction()?;
                let (leaves, tree) = (leaves(&connection, log)?, tree(&connection, log)?);
                let true_ones = leaves.iter().copied().collect::<Frontier>() == tree;
                if true_ones {
                    Ok(leaves)
                } else {
                    Err(StoreError::AuditTampered(log))
                }
            })
            .await
    }

    async fn restore_log(&self, log: u32) -> Result<RestoreOutcome, StoreError> {
        self.writer
            .with_logs(move |logs, connection| logs.restore(connection, log))
            .await
    }

    async fn record_refusal(
        &self,
        entry: AuditRecord,
        errors: guestlane_genesys::ErrorCounts,
    ) -> Result<(), StoreError> {
        let write = self.writer.run(move |tx: &Tx<'_>| {
            tx.record(entry);
            super::counters::add(tx, &errors)
        });
        write.await.map(drop)
    }

    async fn record_unrecorded(&self, now: Timestamp) -> Result<(), StoreError> {
        if self.reader.read(unrecorded).await?.is_empty() {
            return Ok(());
        }
        let recorded = self.writer.run(move |tx| {
            for (name, subject) in unrecorded(tx)? {
                if let Some(entry) = AuditRecord::unrecorded(&name, subject, now) {
                    tx.record(entry);
                }
                tx.execute(queries::DELETE_PROPERTY, [name])?;
            }
            Ok(())
        });
        recorded.await.map(drop)
    }
}

fn of_session(
    connection: &Connection,
    session: SessionId,
    guest: Option<&GuestId>,
) -> Result<Vec<StoredRecord>, StoreError> {
    let select = queries::SELECT_AUDIT_LINES_OF_SESSION;
    let mut found = select_records(connection, select, params![session.0.into_bytes()])?;
    if let Some(guest) = guest {
        let names = guests::names(connection, guest)?;
        found.retain(|record| names.are_in(&record.line));
    }
    Ok(found)
}

/// Returns the records of the guest's sessions, and those of requests that never became a session.
/// It also reads records of erased guests' sessions, because a log with plain guest IDs still
/// contains them. If sessions were pruned, it reads every record.
fn of_guest(connection: &Connection, guest: &GuestId) -> Result<Vec<StoredRecord>, StoreError> {
    let names = guests::names(connection, guest)?;
    let (plain, pseudonym) = names.in_records();
    let mut found = if counters::has_pruned(connection)? {
        let select = "SELECT log, idx, line FROM audit_record WHERE instr(line, ?1) > 0 OR instr(line, ?2) > 0";
        select_records(connection, select, params![plain, pseudonym])?
    } else {
        let select = "SELECT log, idx, line FROM audit_record \
             WHERE session_id IN (SELECT id FROM session WHERE (guest_id = ?1 OR (guest_id >= 'erased-' AND guest_id < 'erased.'))) \
             UNION ALL SELECT log, idx, line FROM audit_record WHERE session_id IS NULL";
        select_records(connection, select, params![names.plain])?
    };
    found.retain(|record| names.are_in(&record.line));
    found.sort_by_key(|record| (record.log, record.index));
    Ok(found)
}

/// Returns the last `limit` records of each log.
fn last(connection: &Connection, limit: u32) -> Result<Vec<StoredRecord>, StoreError> {
    let mut found = Vec::new();
    for log in logs(connection)? {
        let select =
            "SELECT log, idx, line FROM audit_record WHERE log = ?1 ORDER BY idx DESC LIMIT ?2";
        let mut last = select_records(connection, select, params![log, limit])?;
        last.reverse();
        found.extend(last);
    }
    Ok(found)
}

fn select_records(
    connection: &Connection,
    sql: &str,
    parameters: impl Params,
) -> Result<Vec<StoredRecord>, StoreError> {
    let mut select = connection.prepare_cached(sql)?;
    let record = |row: &Row<'_>| {
        Ok(StoredRecord {
            log: row.get(0)?,
            index: row.get(1)?,
            line: row.get(2)?,
        })
    };
    Ok(select
        .query_map(parameters, record)?
        .collect::<Result<_, _>>()?)
}

fn unrecorded(connection: &Connection) -> Result<Vec<(String, String)>, StoreError> {
    let mut select = connection.prepare(
        "SELECT name, value FROM property WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name",
    )?;
    let rows = select.query_map([UNRECORDED], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
