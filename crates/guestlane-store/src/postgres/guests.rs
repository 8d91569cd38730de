//! Guests: their pseudonyms in the audit log, and their erasure.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use guestlane_core::{
    audit::{AuditRecord, Erasure},
    request::GuestId,
    session::SessionId,
};
use guestlane_runtime::{FailPoint, Timestamp};
use uuid::Uuid;

use super::{
    Postgres,
    connection::{Connection, DbResult},
    counters,
    deliveries::is_under_way,
    prune::EVENT_OF,
    sessions::count,
};
use crate::{
    ErasureOutcome, ErasureReport, Guests, StoreError,
    guest::{GuestNames, keyed_hash, new_key},
    queries,
    row::UNFINISHED,
};

/// Returns all names under which a guest may appear in records.
pub(super) fn names(connection: &mut Connection, guest: &GuestId) -> DbResult<GuestNames> {
    Ok(GuestNames::of(guest, pseudonym(connection, guest)?))
}

/// Returns the guest's pseudonym, or `None` if none was ever created.
fn pseudonym(connection: &mut Connection, guest: &GuestId) -> DbResult<Option<String>> {
    let row = connection.query_opt(queries::SELECT_PSEUDONYM_KEY, &[&guest.as_str()])?;
    row.map(|row| Ok(keyed_hash(row.try_get(0)?, guest)))
        .transpose()
}

/// Returns the guests' pseudonyms by guest ID. Creates the missing ones.
pub(super) fn pseudonyms(
    connection: &mut Connection,
    guests: &BTreeSet<String>,
) -> DbResult<HashMap<String, String>> {
    let named = |rows: Vec<tokio_postgres::Row>| {
        let name = |row: &tokio_postgres::Row| {
            let (guest, key): (String, &[u8]) = (row.try_get(0)?, row.try_get(1)?);
            let id =
                GuestId::recorded(&guest).map_err(|_| StoreError::Row("pseudonym_key.guest_id"))?;
            Ok((guest, keyed_hash(key, &id)))
        };
        rows.iter().map(name).collect::<DbResult<Vec<_>>>()
    };
    let wanted: Vec<&str> = guests.iter().map(String::as_str).collect();
    let known = connection.query(
        "SELECT guest_id, key FROM pseudonym_key WHERE guest_id = ANY($1)",
        &[&wanted],
    )?;
    let mut names: HashMap<_, _> = named(known)?.into_iter().collect();
    let missing: Vec<&str> = wanted
        .into_iter()
        .filter(|guest| !names.contains_key(*guest))
        .collect();
    if !missing.is_empty() {
        let keys = missing
            .iter()
            .map(|_| Ok(new_key()?.to_vec()))
            .collect::<DbResult<Vec<_>>>()?;
        // When two processes add the same guest at once, the first key wins.
        let insert = "INSERT INTO pseudonym_key (guest_id, key) SELECT * FROM unnest($1::text[], $2::bytea[]) \
             ON CONFLICT (guest_id) DO UPDATE SET key = pseudonym_key.key RETURNING guest_id, key";
        names.extend(named(connection.query(insert, &[&missing, &keys])?)?);
    }
    Ok(names)
}

#[async_trait]
impl Guests for Postgres {
    async fn would_erase_guest(
        &self,
        guest: GuestId,
        now: Timestamp,
    ) -> Result<ErasureOutcome, StoreError> {
        // The erasure runs, and is rolled back.
        self.workers
            .read(move |connection| {
                let plain_records = plain_records(connection, &guest)?;
                connection.transaction(|tx| {
                    tx.batch("SAVEPOINT preview")?;
                    let erased = erase_rows(tx, &guest, &plain_records, now)?;
                    tx.batch("ROLLBACK TO SAVEPOINT preview")?;
                    Ok(erased)
                })
            })
            .await
    }

    async fn erase_guest(
        &self,
        guest: GuestId,
        now: Timestamp,
    ) -> Result<ErasureOutcome, StoreError> {
        // This query may read every record, so it runs before the transaction and outside the
        // writing thread.
        let looked_for = guest.clone();
        let plain_records = self
            .workers
            .read(move |connection| plain_records(connection, &looked_for))
            .await?;
        let erased = self.writer.transact(move |tx, records| {
            records.clear();
            let erased = erase_rows(tx, &guest, &plain_records, now)?;
            if let ErasureOutcome::Erased(ErasureReport {
                sessions,
                events,
                pseudonym,
                ..
            }) = &erased
            {
                let pseudonym = pseudonym.clone();
                records.push(AuditRecord::Erasure(Erasure {
                    timestamp: now,
                    pseudonym,
                    sessions: *sessions,
                    events: *events,
                }));
            }
            Ok(erased)
        });
        let erased = erased.await?.value;
        let ErasureOutcome::Erased(mut done) = erased else {
            return Ok(erased);
        };
        self.fail_points.hit(FailPoint::GuestErased).await;
        // Vacuum overwrites the rows that are no longer visible. WAL archives and backups are
        // beyond its reach; the operator erases them.
        let vacuum = "VACUUM session, outbox, batch_row, pseudonym_key";
        let vacuumed = self
            .workers
            .read(move |connection| connection.batch(vacuum))
            .await;
        self.fail_points.hit(FailPoint::StoreVacuumed).await;
        done.bytes_removed = vacuumed.is_ok();
        Ok(ErasureOutcome::Erased(done))
    }
}

fn erase_rows(
    tx: &mut Connection,
    guest: &GuestId,
    plain_records: &[(u32, u64)],
    now: Timestamp,
) -> DbResult<ErasureOutcome> {
    let name = guest.as_str();
    // Lock exactly these sessions until the end of the transaction. A session that is admitted
    // meanwhile is a new one and stays.
    let locked =
        format!("SELECT id, {UNFINISHED} FROM session WHERE guest_id = $1 ORDER BY id FOR UPDATE");
    let locked = tx.query(&locked, &[&name])?;
    let locked = locked
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect::<DbResult<Vec<(Uuid, bool)>>>()?;
    let unfinished: Vec<_> = locked
        .iter()
        .filter(|(_, unfinished)| *unfinished)
        .map(|(id, _)| SessionId(*id))
        .collect();
    if !unfinished.is_empty() {
        return Ok(ErasureOutcome::Unfinished(unfinished));
    }
    let ids: Vec<Uuid> = locked.into_iter().map(|(id, _)| id).collect();
    let pending =
        "SELECT 1 FROM outbox WHERE guest_id = $1 AND state = 'pending' ORDER BY seq FOR UPDATE";
    tx.query(pending, &[&name])?;
    if is_under_way(tx, name, now)? {
        return Ok(ErasureOutcome::InProgress);
    }
    let pseudonym = pseudonym(tx, guest)?;
    // Find the events by session ID, because an index covers that over all events.
    let events = format!("outbox.id IN (SELECT {EVENT_OF} FROM session WHERE id = ANY($1))");
    let untold = count(
        tx,
        &format!("SELECT count(*) FROM outbox WHERE state IN ('pending', 'dead') AND {events}"),
        &[&ids],
    )?;
    let erase = format!(
        "UPDATE outbox SET guest_id = '', body = '', state = 'erased', ended_at = coalesce(ended_at, $2), last_error = NULL WHERE {events}"
    );
    let events = tx.execute(&erase, &[&ids, &now.unix_micros()])?;
    // The idempotency key may contain the guest ID, and the fingerprint can be found by guessing;
    // erase both.
    let erase = "UPDATE session SET guest_id = 'erased-' || replace(id::text, '-', ''), attributes = '{}', contact_details = NULL, guest_session = NULL, \
         idempotency_key = 'erased-' || replace(id::text, '-', ''), \
         fingerprint = decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'), \
         traceparent = NULL, calls = '', failure_message = NULL, \
         failure_code = CASE WHEN failure_code IS NULL THEN NULL ELSE 'erased' END WHERE id = ANY($1)";
    let sessions = tx.execute(erase, &[&ids])?;
    // Cancel waiting rows. The higher epoch makes a worker that holds a row lose its lease.
    let erase = "UPDATE batch_row SET guest_id = '', idempotency_key = '', attributes = '{}', contact_details = '{}', failure = NULL, epoch = epoch + 1, \
         ended_at = coalesce(ended_at, $2), state = CASE WHEN state IN ('waiting', 'running') THEN 'cancelled' ELSE state END WHERE guest_id = $1";
    let rows = tx.execute(erase, &[&name, &now.unix_micros()])?;
    let keys = tx.execute(queries::DELETE_PSEUDONYM_KEY, &[&name])?;
    if sessions + events + rows + keys == 0 && plain_records.is_empty() {
        return Ok(ErasureOutcome::Unknown);
    }
    let plain_records = plain_records.to_vec();
    Ok(ErasureOutcome::Erased(ErasureReport {
        sessions,
        events,
        undelivered: untold,
        pseudonym,
        plain_records,
        bytes_removed: false,
    }))
}

/// Returns how many records of each log contain the guest ID in plain text. Reads every record if
/// sessions were ever pruned, because a record's session may then be missing.
fn plain_records(connection: &mut Connection, guest: &GuestId) -> DbResult<Vec<(u32, u64)>> {
    let quoted = format!(
        r#""guestIdentifier":{}"#,
        serde_json::Value::from(guest.as_str())
    );
    let rows = if counters::has_pruned(connection)? {
        let select = "SELECT log, count(*) FROM audit_record WHERE strpos(line, $1) > 0 GROUP BY log ORDER BY log";
        connection.query(select, &[&quoted])?
    } else {
        // Each half of the union uses an index.
        let select = "SELECT log, count(*) FROM (SELECT log, line FROM audit_record \
             WHERE session_id IN (SELECT id FROM session WHERE guest_id = $1) \
             UNION ALL SELECT log, line FROM audit_record WHERE session_id IS NULL) AS theirs WHERE strpos(line, $2) > 0 GROUP BY log ORDER BY log";
        connection.query(select, &[&guest.as_str(), &quoted])?
    };
    rows.iter()
        .map(|row| {
            Ok((
                super::log::number_of(row.try_get(0)?)?,
                row.try_get::<_, i64>(1)?.unsigned_abs(),
            ))
        })
        .collect()
}
