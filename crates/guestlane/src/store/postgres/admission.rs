//! Who asked first under a key, and what the others are told.

use guestlane_genesys::{ErrorCounts, Timestamp};

use super::{Postgres, rows, writer::Write};
use crate::{
    audit::{Entry, Status},
    ledger::{Session, Start},
    request::{IdempotencyKey, SessionRequest},
    store::{
        Admission, Committed, StoreError,
        admission::{Verdict, verdict},
    },
    token::TokenIdentity,
};

impl Postgres {
    pub(crate) async fn admit(
        &self,
        request: SessionRequest,
        start: Start,
        token: TokenIdentity,
        rates: ErrorCounts,
        now: Timestamp,
    ) -> Result<Committed<Admission>, StoreError> {
        let new = Session::admitted(request, start, token, now);
        loop {
            let entry = Entry::of(&new, Status::Pending, rates, now);
            let admitted = self.writer.write(Write::Admit(Box::new(new.clone()), entry)).await?;
            if admitted.value.done {
                return Ok(Committed { value: Admission::Drive(new), audit: admitted.audit });
            }
            let (new, key) = (new.clone(), new.request.key.clone());
            let told = self.writer.transact(move |tx, records| {
                records.clear();
                // Locked: who drives it may be about to write, and what is decided here is decided by what stands there then.
                let sql =
                    format!("SELECT {} FROM session WHERE idempotency_key = $1 AND owner IN ($2, '') FOR UPDATE", rows::COLUMNS);
                let Some(row) = tx.query_opt(&sql, &[&key.as_str(), &key.owner().as_str()])? else { return Ok(None) }; // it was forgotten meanwhile
                let known = rows::read(&row)?;
                Ok(Some(match verdict(known, &new, now)? {
                    Verdict::Told(admission) => match *admission {
                        // It is ours where it was committed on a connection that broke, and nobody could tell for a while.
                        Admission::Running(known) if known.id == new.id => Admission::Drive(known),
                        admission => admission,
                    },
                    Verdict::TakeUp { before, after, anew } => {
                        rows::update(tx, &after, before.epoch, now)?;
                        if anew {
                            rows::set_way(tx, &after)?;
                        }
                        records.push(Entry::of(&after, Status::Pending, rates, now));
                        Admission::Drive(*after)
                    }
                }))
            });
            if let Committed { value: Some(admission), audit } = told.await? {
                return Ok(Committed { value: admission, audit });
            }
        }
    }

    pub(crate) async fn peek(&self, key: IdempotencyKey) -> Result<Option<Session>, StoreError> {
        self.workers
            .ask(move |connection| {
                let sql = format!("SELECT {} FROM session WHERE idempotency_key = $1 AND owner IN ($2, '')", rows::COLUMNS);
                connection.query_opt(&sql, &[&key.as_str(), &key.owner().as_str()])?.as_ref().map(rows::read).transpose()
            })
            .await
    }
}
