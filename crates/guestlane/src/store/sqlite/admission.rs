//! Who asked first under a key, and what the others are told.

use guestlane_genesys::{ErrorCounts, Timestamp};
use rusqlite::{Connection, OptionalExtension};

use super::{Sqlite, Tx, rows};
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

impl Sqlite {
    pub(crate) async fn admit(
        &self,
        request: SessionRequest,
        start: Start,
        token: TokenIdentity,
        rates: ErrorCounts,
        now: Timestamp,
    ) -> Result<Committed<Admission>, StoreError> {
        self.writer.run(move |tx| admit(tx, Session::admitted(request, start, token, now), rates, now)).await
    }

    pub(crate) async fn peek(&self, key: IdempotencyKey) -> Result<Option<Session>, StoreError> {
        self.reader.ask(move |connection| by_key(connection, &key)).await
    }
}

fn admit(tx: &Tx<'_>, new: Session, rates: ErrorCounts, now: Timestamp) -> Result<Admission, StoreError> {
    if rows::insert(tx, &new)? {
        tx.record(Entry::of(&new, Status::Pending, rates, now));
        return Ok(Admission::Drive(new));
    }
    let known = by_key(tx, &new.request.key)?.ok_or(StoreError::Row("idempotency_key"))?;
    Ok(match verdict(known, &new, now)? {
        Verdict::Told(admission) => *admission,
        Verdict::TakeUp { before, after, anew } => {
            rows::update(tx, &after, before.epoch, &[])?;
            if anew {
                rows::set_way(tx, &after)?;
            }
            tx.record(Entry::of(&after, Status::Pending, rates, now));
            Admission::Drive(*after)
        }
    })
}

/// The session of the key's owner, or one from before owners existed.
fn by_key(connection: &Connection, key: &IdempotencyKey) -> Result<Option<Session>, StoreError> {
    let mut statement = connection
        .prepare_cached(&format!("SELECT {} FROM session WHERE idempotency_key = ?1 AND owner IN (?2, '')", rows::COLUMNS))?;
    statement.query_row([key.as_str(), key.owner().as_str()], |row| Ok(rows::read(row))).optional()?.transpose()
}
