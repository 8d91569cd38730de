//! Queries of the audit logs: records of a session or a guest, the state of each log, and the
//! hashes of its lines.

use std::path::Path;

use async_trait::async_trait;
use guestlane_core::{
    audit::{AuditRecord, UNRECORDED},
    request::GuestId,
    session::SessionId,
};
use guestlane_genesys::ErrorCounts;
use guestlane_runtime::Timestamp;
use guestlane_tlog::{Checkpoint, Frontier, Hash, VerifierKey, leaf_hash, lines_path};

use super::{
    Postgres,
    connection::{Connection, DbResult, Params},
    counters, guests,
    log::{number_of, state},
    writer::WriteOp,
};
use crate::{
    AuditLog, LogInfo, RecordFilter, RestoreOutcome, StoreError, StoredRecord, queries,
    record::timestamp,
};

#[async_trait]
impl AuditLog for Postgres {
    async fn records(&self, filter: RecordFilter) -> Result<Vec<StoredRecord>, StoreError> {
        self.workers
            .read(move |connection| {
                let mut found = match (filter.session, &filter.guest) {
                    (Some(session), guest) => of_session(connection, session, guest.as_ref())?,
                    (None, Some(guest)) => of_guest(connection, guest)?,
                    (None, None) => last(connection, filter.limit)?,
                };
                // Each log is in order. Records of different logs are ordered by the timestamp in
                // their lines.
                found.sort_by(|a, b| timestamp(&a.line).cmp(timestamp(&b.line)));
                found.drain(..found.len().saturating_sub(filter.limit as usize));
                Ok(found)
            })
            .await
    }

    async fn logs(&self, first: &Path, key: &VerifierKey) -> Result<Vec<LogInfo>, StoreError> {
        let (first, key, here) = (first.to_owned(), key.clone(), self.home.id);
        self.workers
            .read(move |connection| {
                let logs = connection.query(
                    "SELECT log, home, closed_at IS NOT NULL FROM audit_log ORDER BY log",
                    &[],
                )?;
                let mut infos = Vec::with_capacity(logs.len());
                for row in logs {
                    let (tree, _) = state(connection, row.try_get(0)?)?;
                    let log = number_of(row.try_get(0)?)?;
                    let checkpoint = Checkpoint {
                        origin: Checkpoint::origin_of(&key, log),
                        size: tree.size(),
                        root: tree.root(),
                    };
                    let elsewhere = row.try_get::<_, uuid::Uuid>(1)? != here;
                    infos.push(LogInfo {
                        log,
                        path: lines_path(&first, log),
                        checkpoint,
                        closed: row.try_get(2)?,
                        other_node: elsewhere,
                    });
                }
                Ok(infos)
            })
            .await
    }

    async fn leaves(&self, log: u32) -> Result<Vec<Hash>, StoreError> {
        self.workers
            .read(move |connection| {
                // Use one snapshot for both queries.
                connection.within(
                    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
                    |connection| {
                        let leaves = leaves(connection, log)?;
                        let (tree, _) = state(connection, log.into())?;
                        connection.batch("COMMIT")?;
                        let true_ones = leaves.iter().copied().collect::<Frontier>() == tree;
                        if true_ones {
                            Ok(leaves)
                        } else {
                            Err(StoreError::AuditTampered(log))
                        }
                    },
                )
            })
            .await
    }

    async fn restore_log(&self, log: u32) -> Result<RestoreOutcome, StoreError> {
        self.writer.alone(move |thread| thread.restore(log)).await?
    }

    async fn record_refusal(
        &self,
        entry: AuditRecord,
        errors: ErrorCounts,
    ) -> Result<(), StoreError> {
        self.writer
            .write(WriteOp::AppendRecord(Some(entry), errors))
            .await
            .map(drop)
    }

    async fn record_unrecorded(&self, now: Timestamp) -> Result<(), StoreError> {
        let waits = "SELECT 1 FROM property WHERE starts_with(name, $1)";
        if self
            .workers
            .read(move |connection| connection.query_opt(waits, &[&UNRECORDED]))
            .await?
            .is_none()
        {
            return Ok(());
        }
        let recorded = self.writer.transact(move |tx, records| {
            let taken = tx.query(
                "DELETE FROM property WHERE starts_with(name, $1) RETURNING name, value",
                &[&UNRECORDED],
            )?;
            records.clear();
            for row in taken {
                records.extend(AuditRecord::unrecorded(
                    row.try_get(0)?,
                    row.try_get(1)?,
                    now,
                ));
            }
            Ok(())
        });
        recorded.await.map(drop)
    }
}

/// Number of records that one query reads.
const CHUNK: i64 = 10_000;

fn leaves(connection: &mut Connection, log: u32) -> DbResult<Vec<Hash>> {
    let select = format!(
        "SELECT line FROM audit_record WHERE log = $1 AND idx >= $2 ORDER BY idx LIMIT {CHUNK}"
    );
    let mut leaves = Vec::new();
    loop {
        let from = i64::try_from(leaves.len()).unwrap_or(i64::MAX);
        let rows = connection.query(&select, &[&i64::from(log), &from])?;
        if rows.is_empty() {
            return Ok(leaves);
        }
        for row in rows {
            leaves.push(leaf_hash(row.try_get::<_, &str>(0)?.as_bytes()));
        }
    }
}

fn of_session(
    connection: &mut Connection,
    session: SessionId,
    guest: Option<&GuestId>,
) -> DbResult<Vec<StoredRecord>> {
    let select = queries::SELECT_AUDIT_LINES_OF_SESSION;
    let mut found = select_records(connection, select, &[&session.0])?;
    if let Some(guest) = guest {
        let names = guests::names(connection, guest)?;
        found.retain(|record| names.are_in(&record.line));
    }
    Ok(found)
}

/// Returns the records of the guest's sessions, and of attempts that never became a session.
/// Includes sessions of erased guests, because a log with plain guest IDs still contains them.
/// Reads every record if sessions were ever pruned.
fn of_guest(connection: &mut Connection, guest: &GuestId) -> DbResult<Vec<StoredRecord>> {
    let names = guests::names(connection, guest)?;
    let (plain, pseudonym) = names.in_records();
    let mut found = if counters::has_pruned(connection)? {
        let select = "SELECT log, idx, line FROM audit_record WHERE strpos(line, $1) > 0 OR strpos(line, $2) > 0";
        select_records(connection, select, &[&plain, &pseudonym])?
    } else {
        let select = "SELECT log, idx, line FROM audit_record \
             WHERE session_id IN (SELECT id FROM session WHERE guest_id = $1 OR starts_with(guest_id, 'erased-')) \
             UNION ALL SELECT log, idx, line FROM audit_record WHERE session_id IS NULL";
        select_records(connection, select, &[&names.plain])?
    };
    found.retain(|record| names.are_in(&record.line));
    found.sort_by_key(|record| (record.log, record.index));
    Ok(found)
}

/// Returns the last records of each log.
fn last(connection: &mut Connection, limit: u32) -> DbResult<Vec<StoredRecord>> {
    let select = "SELECT e.log, e.idx, e.line FROM audit_log l CROSS JOIN LATERAL \
         (SELECT log, idx, line FROM audit_record WHERE log = l.log ORDER BY idx DESC LIMIT $1) e ORDER BY e.log, e.idx";
    select_records(connection, select, &[&i64::from(limit)])
}

fn select_records(
    connection: &mut Connection,
    sql: &str,
    params: Params<'_>,
) -> DbResult<Vec<StoredRecord>> {
    let rows = connection.query(sql, params)?;
    let record = |row: &tokio_postgres::Row| {
        let index = row.try_get::<_, i64>(1)?.unsigned_abs();
        Ok(StoredRecord {
            log: number_of(row.try_get(0)?)?,
            index,
            line: row.try_get(2)?,
        })
    };
    rows.iter().map(record).collect()
}
