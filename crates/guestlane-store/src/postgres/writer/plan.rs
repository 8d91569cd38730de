//! The writes of a group as arrays by column, and the statements that write them.

use std::collections::{BTreeMap, BTreeSet};

use guestlane_core::{audit::AuditRecord, event::Event};
use guestlane_genesys::ErrorCounts;
use guestlane_runtime::Timestamp;
use uuid::Uuid;

use super::{
    super::{
        connection::DbResult,
        delivery_columns::{DeliveryUpdates, NewEvents},
        rows::{NewSessions, SessionUpdates, as_i64},
    },
    WriteOp, WriteResult,
};
use crate::{StoreError, summary};

pub(super) const COUNT: &str = "INSERT INTO counter (log, name, value) SELECT $1, name, value FROM unnest($2::text[], $3::bigint[]) AS t (name, value) \
     ON CONFLICT (log, name) DO UPDATE SET value = counter.value + excluded.value";

pub(super) const RECORD: &str = "INSERT INTO audit_record (log, idx, session_id, line) SELECT $1, $2 + place - 1, session_id, line \
     FROM unnest($3::uuid[], $4::text[]) WITH ORDINALITY AS t (session_id, line, place)";

/// Advances the log only if its state is the one that this process left. Records of another process
/// are therefore never overwritten.
pub(super) const ADVANCE_LOG: &str = "WITH done AS (UPDATE audit_log SET size = $4, frontier = $5, batch = $6 \
     WHERE log = $1 AND size = $2 AND batch = $3 AND closed_at IS NULL RETURNING 1) SELECT expect_row_count(count(*), 1), expect_format($7) FROM done";

/// Wraps a statement so that it fails unless it affects the number of rows in parameter `wanted`,
/// the last one.
pub(super) fn guarded(sql: &str, wanted: usize) -> String {
    format!("WITH done AS ({sql}) SELECT expect_row_count(count(*), ${wanted}) FROM done")
}

/// The rows of all writes, as arrays by column.
#[derive(Default)]
pub(super) struct Plan<'a> {
    pub(super) inserts: NewSessions,
    pub(super) updates: SessionUpdates,
    pub(super) events: NewEvents,
    /// The events of each write.
    pub(super) events_of: Vec<&'a [Event]>,
    pub(super) settle: DeliveryUpdates,
    pub(super) errors: BTreeMap<&'static str, i64>,
    pub(super) entries: Vec<&'a AuditRecord>,
}

impl<'a> Plan<'a> {
    /// Builds the plan of the writes for which `done` is true.
    pub(super) fn of(
        writes: &'a [WriteOp],
        now: Timestamp,
        done: impl Fn(&WriteOp) -> bool,
    ) -> DbResult<Self> {
        let mut plan = Self::default();
        for write in writes {
            let mut events: &[Event] = &[];
            match write {
                _ if !done(write) => {}
                WriteOp::Insert(session, entry) => {
                    plan.inserts.push(session, now)?;
                    plan.entries.push(entry);
                }
                WriteOp::Update(step) => {
                    plan.updates
                        .push(&step.after, step.before, &step.calls, now)?;
                    plan.entries.extend(&step.audit);
                    plan.count(&step.errors);
                    step.events.iter().for_each(|event| plan.events.push(event));
                    events = &step.events;
                }
                WriteOp::RecordDelivery(settled) => plan.settle.push(settled),
                WriteOp::AppendRecord(entry, errors) => {
                    plan.entries.extend(entry);
                    plan.count(errors);
                }
            }
            plan.events_of.push(events);
        }
        Ok(plan)
    }

    fn count(&mut self, errors: &ErrorCounts) {
        for (name, value) in summary::named(errors) {
            *self.errors.entry(name).or_default() += as_i64(value);
        }
    }
}

pub(super) fn guests_of<'a>(entries: impl Iterator<Item = &'a AuditRecord>) -> BTreeSet<String> {
    entries
        .filter_map(|entry| entry.guest().map(|guest| guest.as_str().to_owned()))
        .collect()
}

pub(super) fn key_of(write: &WriteOp) -> (u8, &str, Uuid) {
    match write {
        WriteOp::Insert(session, _) => (0, session.request.key.as_str(), session.id.0),
        WriteOp::Update(step) => (1, "", step.after.id.0),
        WriteOp::RecordDelivery(settled) => (2, &settled.id, Uuid::nil()),
        WriteOp::AppendRecord(..) => (3, "", Uuid::nil()),
    }
}

pub(super) fn entry_of(write: &WriteOp) -> Option<&AuditRecord> {
    match write {
        WriteOp::Insert(_, entry) => Some(entry),
        WriteOp::Update(step) => step.audit.as_ref(),
        WriteOp::AppendRecord(entry, _) => entry.as_ref(),
        WriteOp::RecordDelivery(_) => None,
    }
}

pub(super) fn endpoint_number(event: &Event) -> i32 {
    i32::try_from(event.endpoint).unwrap_or(i32::MAX)
}

/// Whether a newer version migrated the database to a new format, so that no write can succeed.
pub(super) fn is_superseded(error: &StoreError) -> bool {
    matches!(error, StoreError::Superseded { .. })
}

/// Whether a row's state differed from what `WriterThread::commit_optimistic` assumed.
pub(super) fn is_conflict(error: &StoreError) -> bool {
    matches!(error, StoreError::Postgres { code: Some(code), .. } if code == "GL001")
}

impl WriteResult {
    pub(super) fn optimistic(write: &WriteOp) -> Self {
        let events = match write {
            WriteOp::Update(step) => step.events.len(),
            WriteOp::Insert(..) | WriteOp::RecordDelivery(_) | WriteOp::AppendRecord(..) => 0,
        };
        Self {
            done: true,
            first: vec![false; events],
        }
    }
}
