//! Guests: how the audit log calls them, and how they are erased.

use std::collections::{BTreeSet, HashMap};

use guestlane_genesys::{Seam, Timestamp};

use super::{
    Postgres,
    connection::{Asked, Connection},
    counters,
    deliveries::is_under_way,
    prune::EVENT_OF,
    sessions::count,
};
use crate::{
    audit::{Entry, Erasure},
    ledger::SessionId,
    request::GuestId,
    store::{
        Done, Erased, StoreError,
        guest::{Names, keyed_hash, new_key},
        row::UNFINISHED,
    },
};

/// All that a guest may be called.
pub(super) fn names(connection: &mut Connection, guest: &GuestId) -> Asked<Names> {
    Ok(Names::of(guest, pseudonym(connection, guest)?))
}

/// The guest's pseudonym, if one was ever made.
fn pseudonym(connection: &mut Connection, guest: &GuestId) -> Asked<Option<String>> {
    let row = connection.query_opt("SELECT key FROM guest_key WHERE guest_id = $1", &[&guest.as_str()])?;
    row.map(|row| Ok(keyed_hash(row.try_get(0)?, guest))).transpose()
}

/// Guests' pseudonyms, made on first use.
pub(super) fn pseudonyms(connection: &mut Connection, guests: &BTreeSet<String>) -> Asked<HashMap<String, String>> {
    let named = |rows: Vec<tokio_postgres::Row>| {
        let name = |row: &tokio_postgres::Row| {
            let (guest, key): (String, &[u8]) = (row.try_get(0)?, row.try_get(1)?);
            let id: GuestId = guest.parse().map_err(|_| StoreError::Row("guest_key.guest_id"))?;
            Ok((guest, keyed_hash(key, &id)))
        };
        rows.iter().map(name).collect::<Asked<Vec<_>>>()
    };
    let wanted: Vec<&str> = guests.iter().map(String::as_str).collect();
    let known = connection.query("SELECT guest_id, key FROM guest_key WHERE guest_id = ANY($1)", &[&wanted])?;
    let mut names: HashMap<_, _> = named(known)?.into_iter().collect();
    let missing: Vec<&str> = wanted.into_iter().filter(|guest| !names.contains_key(*guest)).collect();
    if !missing.is_empty() {
        let keys = missing.iter().map(|_| Ok(new_key()?.to_vec())).collect::<Asked<Vec<_>>>()?;
        // Of two processes that meet a guest at once, the first one's key is the key.
        let insert = "INSERT INTO guest_key (guest_id, key) SELECT * FROM unnest($1::text[], $2::bytea[]) \
             ON CONFLICT (guest_id) DO UPDATE SET key = guest_key.key RETURNING guest_id, key";
        names.extend(named(connection.query(insert, &[&missing, &keys])?)?);
    }
    Ok(names)
}

impl Postgres {
    pub(crate) async fn erase_guest(&self, guest: GuestId, now: Timestamp) -> Result<Erased, StoreError> {
        let erased = self.writer.transact(move |tx, records| erase(tx, records, &guest, now)).await?.value;
        let Erased::Done(mut done) = erased else { return Ok(erased) };
        self.seams.pass(Seam::GuestErased).await;
        // Rows that nobody sees any more are overwritten; what was archived or backed up is whoever keeps it's to erase.
        let vacuum = "VACUUM session, outbox, batch_row, guest_key";
        let vacuumed = self.workers.ask(move |connection| connection.batch(vacuum)).await;
        self.seams.pass(Seam::StoreVacuumed).await;
        done.bytes_gone = vacuumed.is_ok();
        Ok(Erased::Done(done))
    }
}

fn erase(tx: &mut Connection, records: &mut Vec<Entry>, guest: &GuestId, now: Timestamp) -> Asked<Erased> {
    let name = guest.as_str();
    // Their sessions stay as they are meanwhile.
    tx.query("SELECT 1 FROM session WHERE guest_id = $1 ORDER BY id FOR UPDATE", &[&name])?;
    let unfinished = tx.query(&format!("SELECT id FROM session WHERE guest_id = $1 AND {UNFINISHED}"), &[&name])?;
    if !unfinished.is_empty() {
        let ids = unfinished.iter().map(|row| Ok(SessionId(row.try_get(0)?))).collect::<Asked<_>>()?;
        return Ok(Erased::Unfinished(ids));
    }
    if is_under_way(tx, name, now)? {
        return Ok(Erased::UnderWay);
    }
    let plain_records = plain_records(tx, guest)?;
    let pseudonym = pseudonym(tx, guest)?;
    // By the sessions' ids, for which there is an index over all events.
    let events = format!("outbox.id IN (SELECT {EVENT_OF} FROM session WHERE guest_id = $1)");
    let untold = count(tx, &format!("SELECT count(*) FROM outbox WHERE state IN ('pending', 'dead') AND {events}"), &[&name])?;
    let erase = format!(
        "UPDATE outbox SET guest_id = '', body = '', state = 'erased', settled_at = coalesce(settled_at, $2), last_error = NULL WHERE {events}"
    );
    let events = tx.execute(&erase, &[&name, &now.unix_micros()])?;
    // The key may have been made of the guest's id, and the fingerprint is found by trying: both go.
    let erase = "UPDATE session SET guest_id = 'erased-' || replace(id::text, '-', ''), attributes = '{}', person = NULL, guest_session = NULL, \
         idempotency_key = 'erased-' || replace(id::text, '-', ''), \
         fingerprint = decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'), \
         traceparent = NULL, calls = '', failure_message = NULL, \
         failure_code = CASE WHEN failure_code IS NULL THEN NULL ELSE 'erased' END WHERE guest_id = $1";
    let sessions = tx.execute(erase, &[&name])?;
    // A row that waits is one that nobody wants any more; who has it comes too late.
    let erase = "UPDATE batch_row SET guest_id = '', idempotency_key = '', attributes = '{}', person = '{}', failure = NULL, epoch = epoch + 1, \
         ended_at = coalesce(ended_at, $2), state = CASE WHEN state IN ('waiting', 'running') THEN 'cancelled' ELSE state END WHERE guest_id = $1";
    let rows = tx.execute(erase, &[&name, &now.unix_micros()])?;
    let keys = tx.execute("DELETE FROM guest_key WHERE guest_id = $1", &[&name])?;
    if sessions + events + rows + keys == 0 && plain_records.is_empty() {
        return Ok(Erased::Unknown);
    }
    records.clear();
    records.push(Entry::Erasure(Erasure { timestamp: now, pseudonym: pseudonym.clone(), sessions, events }));
    Ok(Erased::Done(Done { sessions, events, untold, pseudonym, plain_records, bytes_gone: false }))
}

/// How many records of each log have the guest's id in plain. Where sessions were forgotten, every record is looked at.
fn plain_records(connection: &mut Connection, guest: &GuestId) -> Asked<Vec<(u32, u64)>> {
    let select = "SELECT log, count(*) FROM audit_entry \
         WHERE ($3 OR session_id IN (SELECT id FROM session WHERE guest_id = $1) OR session_id IS NULL) AND strpos(line, $2) > 0 \
         GROUP BY log ORDER BY log";
    let quoted = format!(r#""guestIdentifier":{}"#, serde_json::Value::from(guest.as_str()));
    let pruned = counters::has_pruned(connection)?;
    let rows = connection.query(select, &[&guest.as_str(), &quoted, &pruned])?;
    rows.iter().map(|row| Ok((super::log::number_of(row.try_get(0)?)?, row.try_get::<_, i64>(1)?.unsigned_abs()))).collect()
}
