//! Who asked first under a key, and what the others are told.

use guestlane_genesys::ErrorCounts;
use guestlane_runtime::Timestamp;

use super::{Postgres, rows, writer::WriteOp};
use crate::{
    BeginOutcome, Committed, StoreError,
    begin::{ExistingKey, verdict},
};
use guestlane_core::{
    audit::{AuditRecord, Status},
    request::{IdempotencyKey, SessionRequest},
    session::{SessionContext, SessionRecord},
    token::TokenIdentity,
};

impl Postgres {
    pub(crate) async fn begin(
        &self,
        request: SessionRequest,
        start: SessionContext,
        token: TokenIdentity,
        rates: ErrorCounts,
        now: Timestamp,
    ) -> Result<Committed<BeginOutcome>, StoreError> {
        let new = SessionRecord::new(request, start, token, now);
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
            let told = self.writer.transact(move |tx, records| {
                records.clear();
                // Locked: who drives it may be about to write, and what is decided here is decided by what stands there then.
                let sql = format!(
                    "SELECT {} FROM session WHERE idempotency_key = $1 AND owner = $2 FOR UPDATE",
                    rows::COLUMNS
                );
                let Some(row) = tx.query_opt(&sql, &[&key.as_str(), &key.owner().as_str()])? else {
                    return Ok(None);
                }; // it was forgotten meanwhile
                let known = rows::read(&row)?;
                Ok(Some(match verdict(known, &new, now)? {
                    ExistingKey::Resolved(admission) => match *admission {
                        // It is ours where it was committed on a connection that broke, and nobody could tell for a while.
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
                            rows::set_way(tx, &after)?;
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
            } = told.await?
            {
                return Ok(Committed {
                    value: admission,
                    audit,
                });
            }
        }
    }

    pub(crate) async fn find_by_key(
        &self,
        key: IdempotencyKey,
    ) -> Result<Option<SessionRecord>, StoreError> {
        self.workers
            .ask(move |connection| {
                let sql = format!(
                    "SELECT {} FROM session WHERE idempotency_key = $1 AND owner = $2",
                    rows::COLUMNS
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
