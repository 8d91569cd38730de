//! Sessions: admission, transitions, leases, queries, erasure and retention.

use super::either;
use crate::{
    BeginOutcome, CallRecord, CommitRequest, CommitResult, Committed, ErasureOutcome, Kind, Pruned,
    SessionFilter, SessionPage, Store, StoreError, StoreGauges, Summary,
};
use guestlane_core::request::{GuestId, IdempotencyKey, SessionRequest};
use guestlane_core::session::{SessionContext, SessionId, SessionRecord};
use guestlane_core::token::TokenIdentity;
use guestlane_genesys::ErrorCounts;
use guestlane_runtime::Timestamp;
use std::time::Duration;

/// Sessions: admission, transitions, leases, queries, erasure and retention.
///
/// The `# Errors` sections say "the read fails" and "the write fails" for failures of the database
/// itself. These are [`StoreError::Database`] for SQLite, [`StoreError::Postgres`] and
/// [`StoreError::Unreachable`] for PostgreSQL, [`StoreError::Commit`] for a write that shares a
/// transaction with others, and [`StoreError::Closed`].
///
/// A read can also fail with [`StoreError::ReadTimeout`] or [`StoreError::Busy`], and a write with
/// [`StoreError::Superseded`]. On PostgreSQL, a write whose result was lost with the connection
/// fails although it may be committed (an in-doubt commit).
impl Store {
    /// Inserts a session under its idempotency key, in one transaction with the audit record
    /// *pending*. If the key exists, returns the state of its session.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if the existing session cannot be decoded, or an error if the
    /// write fails.
    pub async fn begin(
        &self,
        request: SessionRequest,
        start: SessionContext,
        token: TokenIdentity,
        rates: ErrorCounts,
        now: Timestamp,
    ) -> Result<Committed<BeginOutcome>, StoreError> {
        either!(self, store => store.begin(request, start, token, rates, now))
    }

    /// Returns the session that has the idempotency key, without claiming it.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if the session cannot be decoded, or an error if the read fails.
    pub async fn find_by_key(
        &self,
        key: IdempotencyKey,
    ) -> Result<Option<SessionRecord>, StoreError> {
        either!(self, store => store.find_by_key(key))
    }

    /// Commits a transition, unless another process has claimed the session since.
    ///
    /// # Errors
    /// Returns [`StoreError::LeaseLost`] if another process has claimed the session, or an error if
    /// the write fails.
    pub async fn commit_transition(
        &self,
        transition: CommitRequest,
    ) -> Result<Committed<CommitResult>, StoreError> {
        either!(self, store => store.commit_transition(transition))
    }

    /// Renews the leases of sessions whose epoch has not changed.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn renew_leases(
        &self,
        leases: Vec<(SessionId, u32)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        either!(self, store => store.renew_leases(leases, now))
    }

    /// Claims up to `limit` unfinished sessions whose lease has expired. Claims none while this
    /// node's clock differs from the database's.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if a due session cannot be decoded, or an error if the write
    /// fails.
    pub async fn claim_due(
        &self,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        if !self.may_claim() {
            return Ok(Vec::new());
        }
        either!(self, store => store.claim_due(limit, now))
    }

    /// Claims one session that is unfinished or failed. Returns `None` if another process holds its
    /// lease, if its guest was erased, or if it does not exist.
    ///
    /// # Errors
    /// Returns [`StoreError::IllegalTransition`] if the state of the session allows no claim,
    /// [`StoreError::Row`] if it cannot be decoded, or an error if the write fails.
    pub async fn claim(
        &self,
        id: SessionId,
        now: Timestamp,
    ) -> Result<Option<SessionRecord>, StoreError> {
        either!(self, store => store.claim(id, now))
    }

    /// Returns the contact ID of a guest's latest session that has one, except session `except` and
    /// sessions on the surface `rest`.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn latest_contact_id(
        &self,
        guest: GuestId,
        except: SessionId,
    ) -> Result<Option<String>, StoreError> {
        either!(self, store => store.latest_contact_id(guest, except))
    }

    /// Returns one session, or `None` if it does not exist.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if the session cannot be decoded, or an error if the read fails.
    pub async fn session(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        either!(self, store => store.session(id))
    }

    /// Returns a page of sessions, newest first. A page may have fewer than `limit` sessions, or
    /// none, and still have a next page, because the number of scanned rows is limited.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if a session cannot be decoded, or an error if the read fails.
    pub async fn sessions(&self, filter: SessionFilter) -> Result<SessionPage, StoreError> {
        either!(self, store => store.sessions(filter))
    }

    /// Returns up to `limit` unfinished sessions, ordered by the time at which they are due.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if a session cannot be decoded, or an error if the read fails.
    pub async fn unfinished_sessions(&self, limit: u32) -> Result<Vec<SessionRecord>, StoreError> {
        either!(self, store => store.unfinished_sessions(limit))
    }

    /// Returns the number of unfinished sessions.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn unfinished(&self) -> Result<u64, StoreError> {
        either!(self, store => store.unfinished())
    }

    /// Returns the attempt log of a session, oldest attempt first.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if the attempt log cannot be decoded, or an error if the read
    /// fails.
    pub async fn calls(&self, session: SessionId) -> Result<Vec<CallRecord>, StoreError> {
        either!(self, store => store.calls(session))
    }

    /// Advances the retention horizon, and returns the time before which sessions that are kept for
    /// `keep` are deleted now. Returns `None` without `keep`, and while this node's clock differs
    /// from the database's.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn advance_retention(
        &self,
        keep: Option<Duration>,
    ) -> Result<Option<Timestamp>, StoreError> {
        if !self.may_claim() {
            return Ok(None);
        }
        either!(self, store => store.advance_retention(keep))
    }

    /// Reads up to `limit` sessions after `from`, oldest first, and deletes those whose last
    /// transition was before `until`, in one transaction with their events.
    ///
    /// A session stays while it is unfinished or needs attention, and while one of its events is
    /// not delivered. It also stays while a batch row can present its idempotency key.
    ///
    /// # Errors
    /// Returns an error if the read or the write fails.
    pub async fn prune(
        &self,
        from: Option<SessionId>,
        until: Timestamp,
        limit: u32,
    ) -> Result<Pruned, StoreError> {
        either!(self, store => store.prune(from, until, limit))
    }

    /// Returns the gauges: what is pending, and for how long.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn gauges(&self) -> Result<StoreGauges, StoreError> {
        either!(self, store => store.gauges())
    }

    /// Returns the error counts of all processes that used this store.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn error_counts(&self) -> Result<ErrorCounts, StoreError> {
        either!(self, store => store.error_counts())
    }

    /// Adds error counts that no later transition will carry.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn add_errors(&self, counts: ErrorCounts) -> Result<(), StoreError> {
        either!(self, store => store.add_errors(counts))
    }

    /// Returns the counts by state, the error counts and the latency summary.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn summary(&self) -> Result<Summary, StoreError> {
        either!(self, store => store.summary())
    }

    /// Returns what [`erase_guest`](Self::erase_guest) would do now. Changes nothing.
    ///
    /// # Errors
    /// Returns an error if the read or the write that is rolled back fails.
    pub async fn would_erase_guest(
        &self,
        guest: GuestId,
        now: Timestamp,
    ) -> Result<ErasureOutcome, StoreError> {
        either!(self, store => store.would_erase_guest(guest, now))
    }

    /// Erases a guest's data: in sessions, events and dead letters. Where the audit log has
    /// pseudonyms, it also deletes the key of the guest's pseudonym.
    ///
    /// # Errors
    /// Returns an error if the write fails. A failure to remove the bytes from the store's files is
    /// no error; see [`ErasureReport::bytes_removed`](crate::ErasureReport::bytes_removed).
    pub async fn erase_guest(
        &self,
        guest: GuestId,
        now: Timestamp,
    ) -> Result<ErasureOutcome, StoreError> {
        either!(self, store => store.erase_guest(guest, now))
    }
}
