//! Begins sessions: inserts a session under its idempotency key, or decides how to answer if the
//! key exists.

use async_trait::async_trait;
use guestlane_genesys::ErrorCounts;

use super::{Postgres, rows, writer::WriteOp};
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
impl Admission for Postgres {
    async fn begin(
        &self,
        new: SessionRecord,
        rates: ErrorCounts,
    ) -> Result<Committed<BeginOutcome>, StoreError> {
        let now = new.admitted_at;
        loop {
            let entry = AuditRecord::for_session(&new, Status::Pending, rates, now);
            let admitted = self
                .writer
                .write(WriteOp::Insert(Box::new(new.clone()), entry))
                .await?;
            if admitted.value.done {
                return Ok(Committed {
                    value: BeginOutcome::Acquired(new),
                    audit: admitted.audit,
                });
            }
            let (new, key) = (new.clone(), new.request.key.clone());
            let decided = self.writer.transact(move |tx, records| {
                records.clear();
                // Lock the row: the process that runs the session's saga may be about to write. The
                // decision then holds until the commit.
                let sql = format!(
                    "SELECT {} FROM session WHERE idempotency_key = $1 AND owner = $2 FOR UPDATE",
                    *SELECTED
                );
                let Some(row) = tx.query_opt(&sql, &[&key.as_str(), &key.owner().as_str()])? else {
                    return Ok(None);
                }; // the session was deleted meanwhile
                let known = rows::read(&row)?;
                Ok(Some(match verdict(known, &new, now)? {
                    ExistingKey::Resolved(admission) => match *admission {
                        // An in-doubt insert of this call took effect, so this caller owns the
                        // session.
                        BeginOutcome::InProgress(known) if known.id == new.id => {
                            BeginOutcome::Acquired(known)
                        }
                        admission => admission,
                    },
                    ExistingKey::Claim {
                        before,
                        after,
                        anew,
                    } => {
                        rows::update(tx, &after, before.epoch, now)?;
                        if anew {
                            rows::update_surface_binding(tx, &after)?;
                        }
                        records.push(AuditRecord::for_session(
                            &after,
                            Status::Pending,
                            rates,
                            now,
                        ));
                        BeginOutcome::Acquired(*after)
                    }
                }))
            });
            if let Committed {
                value: Some(admission),
                audit,
            } = decided.await?
            {
                return Ok(Committed {
                    value: admission,
                    audit,
                });
            }
        }
    }

    async fn find_by_key(&self, key: IdempotencyKey) -> Result<Option<SessionRecord>, StoreError> {
        self.workers
            .read(move |connection| {
                let sql = format!(
                    "SELECT {} FROM session WHERE idempotency_key = $1 AND owner = $2",
                    *SELECTED
                );
                connection
                    .query_opt(&sql, &[&key.as_str(), &key.owner().as_str()])?
                    .as_ref()
                    .map(rows::read)
                    .transpose()
            })
            .await
    }
}
