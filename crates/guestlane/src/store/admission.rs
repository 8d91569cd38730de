//! Who asked first under a key, and what the others are told.

use guestlane_genesys::{ErrorCounts, Timestamp};
use rusqlite::{Connection, OptionalExtension};

use super::{Committed, Store, StoreError, Tx, rows, sessions};
use crate::{
    audit::{Entry, Status},
    ledger::{Session, Standing, Start},
    request::{IdempotencyKey, SessionRequest},
    token::TokenIdentity,
};

/// What asking under a key came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The session is the caller's to drive: a new one, or one that nobody drives any more.
    Drive(Session),
    /// It is done already.
    Done(Session),
    /// Somebody else drives it.
    Running(Session),
    /// The key is another wish's.
    Mismatch(Session),
    /// It needs a person.
    NeedsAttention(Session),
}

impl Store {
    /// Takes the key for `request`, in one transaction with the audit record «pending»; or says who has it.
    pub async fn admit(
        &self,
        request: SessionRequest,
        start: Start,
        token: TokenIdentity,
        rates: ErrorCounts,
        now: Timestamp,
    ) -> Result<Committed<Admission>, StoreError> {
        self.writer.run(move |tx| admit(tx, Session::admitted(request, start, token, now), rates, now)).await
    }

    /// The session that has the key, if one has; nothing is taken.
    pub async fn peek(&self, key: IdempotencyKey) -> Result<Option<Session>, StoreError> {
        self.reader.ask(move |connection| by_key(connection, key.as_str())).await
    }
}

fn admit(tx: &Tx<'_>, new: Session, rates: ErrorCounts, now: Timestamp) -> Result<Admission, StoreError> {
    if rows::insert(tx, &new)? {
        tx.record(Entry::of(&new, Status::Pending, rates, now));
        return Ok(Admission::Drive(new));
    }
    let known = by_key(tx, new.request.key.as_str())?.ok_or(StoreError::Row("idempotency_key"))?;
    if known.request.fingerprint() != new.request.fingerprint() {
        return Ok(Admission::Mismatch(known));
    }
    Ok(match known.standing_at(now) {
        Standing::Done => Admission::Done(known),
        Standing::NeedsAttention => Admission::NeedsAttention(known),
        Standing::Held => Admission::Running(known),
        Standing::Free => {
            let anew = known.may_begin_anew();
            let mut taken = sessions::take(tx, known, now)?;
            // What surely was not done is done as the settings say now: a wrong deployment, for one, may be the right one by now.
            if anew && (taken.contact_id.is_none() || taken.way.surface().is_official() == new.way.surface().is_official()) {
                taken.way = new.way;
                taken.plain_contact = new.plain_contact;
                rows::set_way(tx, &taken)?;
            }
            tx.record(Entry::of(&taken, Status::Pending, rates, now));
            Admission::Drive(taken)
        }
    })
}

fn by_key(connection: &Connection, key: &str) -> Result<Option<Session>, StoreError> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {} FROM session WHERE idempotency_key = ?1", rows::COLUMNS))?;
    statement.query_row([key], |row| Ok(rows::read(row))).optional()?.transpose()
}
