//! Sessions: admission, transitions, leases and queries.

use crate::{
    BeginOutcome, CallRecord, CommitRequest, CommitResult, Committed, SessionFilter, SessionPage,
    StoreError,
};
use async_trait::async_trait;
use guestlane_core::{
    request::{GuestId, IdempotencyKey},
    session::{SessionId, SessionRecord},
};
use guestlane_genesys::ErrorCounts;
use guestlane_runtime::Timestamp;

/// Admission of sessions under their idempotency keys.
#[async_trait]
pub trait Admission: Send + Sync {
    /// Inserts a new session under its idempotency key, in one transaction with the audit record
    /// *pending*. If the key exists, decides at the new session's time of admission, and returns the
    /// state of the existing session.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if the existing session cannot be decoded, or an error if the
    /// write fails.
    async fn begin(
        &self,
        new: SessionRecord,
        rates: ErrorCounts,
    ) -> Result<Committed<BeginOutcome>, StoreError>;

    /// Returns the session that has the idempotency key, without claiming it.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if the session cannot be decoded, or an error if the read fails.
    async fn find_by_key(&self, key: IdempotencyKey) -> Result<Option<SessionRecord>, StoreError>;
}

/// Session records: transitions, leases and queries.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Commits a transition, unless another process has claimed the session since.
    ///
    /// # Errors
    /// Returns [`StoreError::LeaseLost`] if another process has claimed the session, or an error if
    /// the write fails.
    async fn commit_transition(
        &self,
        transition: CommitRequest,
    ) -> Result<Committed<CommitResult>, StoreError>;

    /// Renews the leases of sessions whose epoch has not changed.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    async fn renew_leases(
        &self,
        leases: Vec<(SessionId, u32)>,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Claims up to `limit` unfinished sessions whose lease has expired. Claims none while this
    /// node's clock differs from the database's.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if a due session cannot be decoded, or an error if the write
    /// fails.
    async fn claim_due(&self, limit: u32, now: Timestamp)
    -> Result<Vec<SessionRecord>, StoreError>;

    /// Claims one session that is unfinished or failed. Returns `None` if another process holds its
    /// lease, if its guest was erased, or if it does not exist.
    ///
    /// # Errors
    /// Returns [`StoreError::IllegalTransition`] if the state of the session allows no claim,
    /// [`StoreError::Row`] if it cannot be decoded, or an error if the write fails.
    async fn claim(
        &self,
        id: SessionId,
        now: Timestamp,
    ) -> Result<Option<SessionRecord>, StoreError>;

    /// Returns the contact ID of a guest's latest session that has one, except session `except` and
    /// sessions on the surface `rest`.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    async fn latest_contact_id(
        &self,
        guest: GuestId,
        except: SessionId,
    ) -> Result<Option<String>, StoreError>;

    /// Returns one session, or `None` if it does not exist.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if the session cannot be decoded, or an error if the read fails.
    async fn session(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError>;

    /// Returns a page of sessions, newest first. A page may have fewer than `limit` sessions, or
    /// none, and still have a next page, because the number of scanned rows is limited.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if a session cannot be decoded, or an error if the read fails.
    async fn sessions(&self, filter: SessionFilter) -> Result<SessionPage, StoreError>;

    /// Returns up to `limit` unfinished sessions, ordered by the time at which they are due.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if a session cannot be decoded, or an error if the read fails.
    async fn unfinished_sessions(&self, limit: u32) -> Result<Vec<SessionRecord>, StoreError>;

    /// Returns the number of unfinished sessions.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    async fn unfinished(&self) -> Result<u64, StoreError>;

    /// Returns the attempt log of a session, oldest attempt first.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if the attempt log cannot be decoded, or an error if the read
    /// fails.
    async fn calls(&self, session: SessionId) -> Result<Vec<CallRecord>, StoreError>;
}
