//! Events and results of deliveries, as arrays by column.

use std::collections::{BTreeSet, HashSet};

use aws_lc_rs::digest::{SHA256, digest};
use guestlane_core::event::Event;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

/// New events, as arrays by column.
#[derive(Default)]
pub(in crate::postgres) struct NewEvents {
    id: Vec<String>,
    endpoint: Vec<i32>,
    session_id: Vec<Uuid>,
    guest_id: Vec<String>,
    body: Vec<String>,
    created_at: Vec<i64>,
    due_at: Vec<i64>,
    /// Whether an earlier event of the same guest is in the same transaction.
    waits: Vec<bool>,
    guests: HashSet<(String, u32)>,
    /// One advisory lock for each guest, in ascending order.
    locks: BTreeSet<i64>,
}

impl NewEvents {
    /// Takes one advisory lock per guest, until the transaction ends. A second process that writes
    /// an event of the same guest waits here, and its statement then sees the first process's
    /// event. Without the lock, both processes would treat their event as the first to be
    /// delivered.
    ///
    /// Locks are taken in ascending order. A transaction without events waits for nothing that is
    /// locked after them. Therefore two transactions cannot deadlock.
    pub(crate) const LOCK: &str =
        "SELECT pg_advisory_xact_lock(guest) FROM unnest($1::bigint[]) AS guest";

    /// Inserts events, and returns for each whether its initial delivery is due. It is not due
    /// while an earlier event of the same guest waits for the same endpoint. If it is due, this
    /// process holds the event's lease.
    pub(crate) const INSERT: &str = "WITH new AS (SELECT t.*, waits_here OR EXISTS (SELECT 1 FROM outbox o \
         WHERE o.guest_id = t.guest_id AND o.endpoint = t.endpoint AND o.state = 'pending') AS waits \
         FROM unnest($1::text[], $2::integer[], $3::uuid[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::boolean[]) \
         WITH ORDINALITY AS t (id, endpoint, session_id, guest_id, body, created_at, due_at, waits_here, place)), \
         done AS (INSERT INTO outbox (id, endpoint, session_id, guest_id, body, state, attempts, epoch, created_at, due_at) \
         SELECT id, endpoint, session_id, guest_id, body, 'pending', 0, 1, created_at, CASE WHEN waits THEN created_at ELSE due_at END \
         FROM new ORDER BY place) \
         SELECT id, endpoint, NOT waits FROM new";

    pub(crate) fn push(&mut self, event: &Event) {
        self.id.push(event.id.clone());
        self.endpoint
            .push(i32::try_from(event.endpoint).unwrap_or(i32::MAX));
        self.session_id.push(event.session.0);
        self.guest_id.push(event.guest.clone());
        self.body.push(event.body.clone());
        self.created_at.push(event.created_at.unix_micros());
        self.due_at.push(event.due_at.unix_micros());
        self.waits
            .push(!self.guests.insert((event.guest.clone(), event.endpoint)));
        self.locks.insert(lock_of(&event.guest));
    }

    /// The values for [`LOCK`](Self::LOCK).
    pub(crate) fn locks(&self) -> Vec<i64> {
        self.locks.iter().copied().collect()
    }

    pub(crate) fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        vec![
            &self.id,
            &self.endpoint,
            &self.session_id,
            &self.guest_id,
            &self.body,
            &self.created_at,
            &self.due_at,
            &self.waits,
        ]
    }

    pub(crate) fn len(&self) -> usize {
        self.id.len()
    }
}

/// Returns the advisory lock of a guest. Advisory locks are numbers shared by the whole database.
/// Two guests with the same number wait for each other during one commit.
fn lock_of(guest: &str) -> i64 {
    let hash = digest(
        &SHA256,
        format!("guestlane outbox order\0{guest}").as_bytes(),
    );
    hash.as_ref()
        .first_chunk()
        .copied()
        .map_or(0, i64::from_be_bytes)
}

/// The outcome of one delivery.
pub(in crate::postgres) struct DeliveryUpdate {
    pub(crate) id: String,
    pub(super) endpoint: i32,
    pub(super) attempts: i64,
    pub(super) epoch: i64,
    pub(super) state: &'static str,
    pub(super) due_at: Option<i64>,
    pub(super) error: Option<String>,
    pub(super) ended_at: Option<i64>,
}

/// Outcomes of deliveries, as arrays by column.
#[derive(Default)]
pub(in crate::postgres) struct DeliveryUpdates {
    id: Vec<String>,
    endpoint: Vec<i32>,
    attempts: Vec<i64>,
    epoch: Vec<i64>,
    state: Vec<&'static str>,
    due_at: Vec<Option<i64>>,
    error: Vec<Option<String>>,
    ended_at: Vec<Option<i64>>,
}

impl DeliveryUpdates {
    pub(crate) const UPDATE: &str = "UPDATE outbox SET state = t.state, attempts = outbox.attempts + 1, due_at = coalesce(t.due_at, outbox.due_at), \
         last_error = t.error, ended_at = t.ended_at \
         FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[], $7::text[], $8::bigint[]) \
         AS t (id, endpoint, attempts, epoch, state, due_at, error, ended_at) \
         WHERE outbox.id = t.id AND outbox.endpoint = t.endpoint AND outbox.state = 'pending' AND outbox.attempts = t.attempts \
         AND outbox.epoch = t.epoch";

    pub(crate) fn push(&mut self, settled: &DeliveryUpdate) {
        self.id.push(settled.id.clone());
        self.endpoint.push(settled.endpoint);
        self.attempts.push(settled.attempts);
        self.epoch.push(settled.epoch);
        self.state.push(settled.state);
        self.due_at.push(settled.due_at);
        self.error.push(
            settled
                .error
                .as_ref()
                .map(|error| error.replace('\0', "\u{fffd}")),
        );
        self.ended_at.push(settled.ended_at);
    }

    pub(crate) fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        vec![
            &self.id,
            &self.endpoint,
            &self.attempts,
            &self.epoch,
            &self.state,
            &self.due_at,
            &self.error,
            &self.ended_at,
        ]
    }

    pub(crate) fn len(&self) -> usize {
        self.id.len()
    }
}
