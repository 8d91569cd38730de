//! Who asked first under a key, and what the others are told.

use guestlane_genesys::{ErrorCounts, Timestamp};

use super::{
    Postgres, rows,
    writer::{GoOn, Write},
};
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
            let Some(known) = self.peek(new.request.key.clone()).await? else { continue }; // it was forgotten meanwhile
            let (before, after) = match verdict(known, &new, now)? {
                // It is ours where it was committed on a connection that broke, and nobody could tell for a while.
                Verdict::Told(admission) => match *admission {
                    Admission::Running(known) if known.id == new.id => {
                        return Ok(Committed { value: Admission::Drive(known), audit: admitted.audit });
                    }
                    admission => return Ok(Committed { value: admission, audit: admitted.audit }),
                },
                Verdict::TakeUp { before, after, .. } => (before, after),
            };
            let audit = Some(Entry::of(&after, Status::Pending, rates, now));
            let step = GoOn {
                before: before.epoch,
                after: (*after).clone(),
                audit,
                events: Vec::new(),
                errors: ErrorCounts::default(),
                calls: Vec::new(),
            };
            let taken = self.writer.write(Write::GoOn(Box::new(step))).await?;
            if taken.value.done {
                return Ok(Committed { value: Admission::Drive(*after), audit: taken.audit });
            }
        }
    }

    pub(crate) async fn peek(&self, key: IdempotencyKey) -> Result<Option<Session>, StoreError> {
        self.workers
            .ask(move |connection| {
                let sql = format!("SELECT {} FROM session WHERE idempotency_key = $1", rows::COLUMNS);
                connection.query_opt(&sql, &[&key.as_str()])?.as_ref().map(rows::read).transpose()
            })
            .await
    }
}
