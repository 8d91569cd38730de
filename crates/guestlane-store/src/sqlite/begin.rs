//! Decides in one transaction which caller of an idempotency key runs the saga.

use async_trait::async_trait;
use guestlane_genesys::ErrorCounts;
use rusqlite::{Connection, OptionalExtension};

use super::{Sqlite, Tx, rows};
use crate::{
    Admission, BeginOutcome, Committed, StoreError,
    begin::{ExistingKey, verdict},
    row::SELECTED,
};
use guestlane_core::{
    audit::{AuditRecord, Status},
    request::IdempotencyKey,
    session::SessionRecord,
};

#[async_trait]
impl Admission for Sqlite {
    async fn begin(
        &self,
        new: SessionRecord,
        rates: ErrorCounts,
    ) -> Result<Committed<BeginOutcome>, StoreError> {
        self.writer.run(move |tx| admit(tx, new, rates)).await
    }

    async fn find_by_key(&self, key: IdempotencyKey) -> Result<Option<SessionRecord>, StoreError> {
        self.reader
            .read(move |connection| by_key(connection, &key))
            .await
    }
}

fn admit(tx: &Tx<'_>, new: SessionRecord, rates: ErrorCounts) -> Result<BeginOutcome, StoreError> {
    let now = new.admitted_at;
    if rows::insert(tx, &new)? {
        tx.record(AuditRecord::for_session(&new, Status::Pending, rates, now));
        return Ok(BeginOutcome::Acquired(new));
    }
    let known = by_key(tx, &new.request.key)?.ok_or(StoreError::Row("idempotency_key"))?;
    Ok(match verdict(known, &new, now)? {
        ExistingKey::Resolved(admission) => *admission,
        ExistingKey::Claim {
            before,
            after,
            anew,
        } => {
            rows::update(tx, &after, before.epoch, &[])?;
            if anew {
                rows::update_surface_binding(tx, &after)?;
            }
            tx.record(AuditRecord::for_session(
                &after,
                Status::Pending,
                rates,
                now,
            ));
            BeginOutcome::Acquired(*after)
        }
    })
}

/// Returns the session that has this idempotency key and its owner.
fn by_key(
    connection: &Connection,
    key: &IdempotencyKey,
) -> Result<Option<SessionRecord>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {} FROM session WHERE idempotency_key = ?1 AND owner = ?2",
        *SELECTED
    ))?;
    statement
        .query_row([key.as_str(), key.owner().as_str()], |row| {
            Ok(rows::read(row))
        })
        .optional()?
        .transpose()
}
