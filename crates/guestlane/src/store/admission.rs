//! Who asked first under a key, and what the others are told.

use guestlane_genesys::{ErrorCounts, Timestamp};
use rusqlite::{Connection, OptionalExtension};

use super::{Committed, Store, StoreError, audit, rows, sessions};
use crate::{
    audit::{Entry, Status},
    ledger::{Session, State},
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
        token: TokenIdentity,
        rates: ErrorCounts,
        now: Timestamp,
    ) -> Result<Committed<Admission>, StoreError> {
        self.writer.run(move |connection| admit(connection, Session::admitted(request, token, now), rates, now)).await
    }

    /// The session that has the key, if one has; nothing is taken.
    pub async fn peek(&self, key: IdempotencyKey) -> Result<Option<Session>, StoreError> {
        self.reader.ask(move |connection| by_key(connection, key.as_str())).await
    }
}

fn admit(connection: &Connection, new: Session, rates: ErrorCounts, now: Timestamp) -> Result<Admission, StoreError> {
    if rows::insert(connection, &new)? {
        audit::append(connection, &Entry::of(&new, Status::Pending, rates, now), Some(new.id))?;
        return Ok(Admission::Drive(new));
    }
    let known = by_key(connection, new.request.key.as_str())?.ok_or(StoreError::Row("idempotency_key"))?;
    if known.request.fingerprint() != new.request.fingerprint() {
        return Ok(Admission::Mismatch(known));
    }
    Ok(match known.state {
        State::Open => Admission::Done(known),
        State::NeedsAttention => Admission::NeedsAttention(known),
        State::Admitted | State::ContactCreated | State::Parked if known.is_held_at(now) => Admission::Running(known),
        // What was refused may be mended by now, and what rests need not wait for its turn when somebody asks. Whoever
        // drove it can write nothing from here on.
        State::Admitted | State::ContactCreated | State::Parked | State::Failed => {
            let taken = sessions::take(connection, known, now)?;
            audit::append(connection, &Entry::of(&taken, Status::Pending, rates, now), Some(taken.id))?;
            Admission::Drive(taken)
        }
    })
}

fn by_key(connection: &Connection, key: &str) -> Result<Option<Session>, StoreError> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {} FROM session WHERE idempotency_key = ?1", rows::COLUMNS))?;
    statement.query_row([key], |row| Ok(rows::read(row))).optional()?.transpose()
}
