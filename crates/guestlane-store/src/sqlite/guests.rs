//! Guests: their names in the audit log, and their erasure.

use async_trait::async_trait;
use guestlane_runtime::{FailPoint, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use tracing::warn;
use uuid::Uuid;

use super::{Sqlite, Tx, counters, prune};
use crate::{
    ErasureOutcome, ErasureReport, Guests, StoreError,
    guest::{GuestNames, keyed_hash, new_key},
    queries,
    row::UNFINISHED,
};
use guestlane_core::{
    audit::{AuditRecord, Erasure},
    event::Event,
    request::GuestId,
    session::SessionId,
};

/// Returns all names that the audit log may use for a guest.
pub(super) fn names(connection: &Connection, guest: &GuestId) -> Result<GuestNames, StoreError> {
    Ok(GuestNames::of(guest, pseudonym(connection, guest)?))
}

/// Returns the guest's pseudonym, if it exists.
fn pseudonym(connection: &Connection, guest: &GuestId) -> Result<Option<String>, StoreError> {
    let mut select = connection.prepare_cached(queries::SELECT_PSEUDONYM_KEY)?;
    let key: Option<Vec<u8>> = select
        .query_row([guest.as_str()], |row| row.get(0))
        .optional()?;
    Ok(key.map(|key| keyed_hash(&key, guest)))
}

/// Returns the guest's pseudonym, and creates it on first use.
pub(super) fn pseudonym_or_new(
    connection: &Connection,
    guest: &GuestId,
) -> Result<String, StoreError> {
    if let Some(known) = pseudonym(connection, guest)? {
        return Ok(known);
    }
    let key = new_key()?;
    let insert = "INSERT INTO pseudonym_key (guest_id, key) VALUES (?1, ?2)";
    connection
        .prepare_cached(insert)?
        .execute(params![guest.as_str(), key])?;
    Ok(keyed_hash(&key, guest))
}

/// Maintenance task: the store's file still contains bytes of an erased guest.
const VACUUM: &str = "vacuum";

impl Sqlite {
    /// Removes the bytes of erased guests from the file, if that is still to be done. Returns false
    /// if another process must close the store first.
    pub(super) async fn run_maintenance(&self) -> Result<bool, StoreError> {
        let due = self.reader.read(is_due).await?;
        if !due {
            return Ok(true);
        }
        let fail_points = self.fail_points.clone();
        self.writer
            .exclusive(move |connection| {
                // VACUUM rewrites the file without deleted rows. The checkpoint then empties the
                // write-ahead log, which may still contain them.
                connection.execute_batch("VACUUM")?;
                fail_points.hit_blocking(FailPoint::StoreVacuumed);
                let busy: bool =
                    connection
                        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
                if !busy {
                    connection.execute("DELETE FROM maintenance_task WHERE name = ?1", [VACUUM])?;
                }
                Ok(!busy)
            })
            .await
    }
}

#[async_trait]
impl Guests for Sqlite {
    async fn would_erase_guest(
        &self,
        guest: GuestId,
        now: Timestamp,
    ) -> Result<ErasureOutcome, StoreError> {
        // The erasure runs, and is rolled back.
        let would = self.writer.run(move |tx| {
            tx.execute_batch("SAVEPOINT preview")?;
            let erased = erase_rows(tx, &guest, now);
            tx.execute_batch("ROLLBACK TO preview; RELEASE preview")?;
            erased
        });
        Ok(would.await?.value)
    }

    async fn erase_guest(
        &self,
        guest: GuestId,
        now: Timestamp,
    ) -> Result<ErasureOutcome, StoreError> {
        let erased = self
            .writer
            .run(move |tx| erase(tx, &guest, now))
            .await?
            .value;
        let ErasureOutcome::Erased(mut done) = erased else {
            return Ok(erased);
        };
        self.fail_points.hit(FailPoint::GuestErased).await;
        // The erasure is committed. If the bytes cannot be removed now, the next start removes
        // them.
        done.bytes_removed = self.run_maintenance().await.unwrap_or_else(|error| {
            warn!(
                error = guestlane_runtime::text::display_chain(&error),
                "failed to remove an erased guest's bytes from the store's file; retrying at the next start"
            );
            false
        });
        Ok(ErasureOutcome::Erased(done))
    }
}

fn is_due(connection: &Connection) -> Result<bool, StoreError> {
    Ok(connection.query_row(
        "SELECT count(*) FROM maintenance_task WHERE name = ?1",
        [VACUUM],
        |row| row.get::<_, u32>(0),
    )? > 0)
}

fn erase(tx: &Tx<'_>, guest: &GuestId, now: Timestamp) -> Result<ErasureOutcome, StoreError> {
    let erased = erase_rows(tx, guest, now)?;
    if let ErasureOutcome::Erased(ErasureReport {
        sessions,
        events,
        pseudonym,
        ..
    }) = &erased
    {
        tx.execute(
            "INSERT INTO maintenance_task (name) VALUES (?1) ON CONFLICT DO NOTHING",
            [VACUUM],
        )?;
        let pseudonym = pseudonym.clone();
        tx.record(AuditRecord::Erasure(Erasure {
            timestamp: now,
            pseudonym,
            sessions: *sessions,
            events: *events,
        }));
    }
    Ok(erased)
}

fn erase_rows(
    tx: &Connection,
    guest: &GuestId,
    now: Timestamp,
) -> Result<ErasureOutcome, StoreError> {
    let name = guest.as_str();
    let mut unfinished = tx.prepare(&format!(
        "SELECT id FROM session WHERE guest_id = ?1 AND {}",
        UNFINISHED
    ))?;
    let unfinished: Vec<_> = unfinished
        .query_map([name], |row| {
            row.get(0).map(|id| SessionId(Uuid::from_bytes(id)))
        })?
        .collect::<Result<_, _>>()?;
    if !unfinished.is_empty() {
        return Ok(ErasureOutcome::Unfinished(unfinished));
    }
    let soon = (now + Event::LEASE).unix_micros();
    // Find events by the IDs of the sessions, because an index covers the IDs of all events.
    let events = format!(
        "outbox.id IN (SELECT {} FROM session WHERE guest_id = ?1)",
        prune::EVENT_OF
    );
    let under_way = "SELECT 1 FROM outbox WHERE guest_id = ?1 AND state = 'pending' AND due_at > ?2 AND due_at <= ?3";
    if tx
        .prepare(under_way)?
        .exists(params![name, now.unix_micros(), soon])?
    {
        return Ok(ErasureOutcome::InProgress);
    }
    let plain_records = plain_records(tx, guest)?;
    let pseudonym = pseudonym(tx, guest)?;
    let untold =
        format!("SELECT count(*) FROM outbox WHERE state IN ('pending', 'dead') AND {events}");
    let untold = tx.query_row(&untold, [name], |row| row.get(0))?;
    let erase = format!(
        "UPDATE outbox SET guest_id = '', body = '', state = 'erased', ended_at = coalesce(ended_at, ?2), last_error = NULL WHERE {events}"
    );
    let events = tx.execute(&erase, params![name, now.unix_micros()])?;
    // The idempotency key may be derived from the guest ID, and trying guest IDs can reveal the
    // fingerprint. Erase both.
    let sessions = tx.execute(
        "UPDATE session SET guest_id = 'erased-' || lower(hex(id)), attributes = '{}', contact_details = NULL, guest_session = NULL, idempotency_key = 'erased-' || lower(hex(id)), \
         fingerprint = randomblob(32), traceparent = NULL, calls = '', failure_message = NULL, failure_code = CASE WHEN failure_code IS NULL THEN NULL ELSE 'erased' END \
         WHERE guest_id = ?1",
        [name],
    )?;
    let keys = tx.execute(queries::DELETE_PSEUDONYM_KEY, [name])?;
    if sessions + events + keys + plain_records.len() == 0 {
        return Ok(ErasureOutcome::Unknown);
    }
    let (sessions, events) = (sessions as u64, events as u64);
    Ok(ErasureOutcome::Erased(ErasureReport {
        sessions,
        events,
        undelivered: untold,
        pseudonym,
        plain_records,
        bytes_removed: false,
    }))
}

/// Returns how many records of each log contain the plain guest ID. If sessions were pruned, it
/// reads every record.
fn plain_records(connection: &Connection, guest: &GuestId) -> Result<Vec<(u32, u64)>, StoreError> {
    let select = "SELECT log, count(*) FROM audit_record \
         WHERE (?3 OR session_id IN (SELECT id FROM session WHERE guest_id = ?1) OR session_id IS NULL) AND instr(line, ?2) > 0 \
         GROUP BY log ORDER BY log";
    let quoted = format!(
        r#""guestIdentifier":{}"#,
        serde_json::Value::from(guest.as_str())
    );
    let mut select = connection.prepare(select)?;
    let found = select.query_map(
        params![guest.as_str(), quoted, counters::has_pruned(connection)?],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    Ok(found.collect::<Result<_, _>>()?)
}
