//! Deletion of what is no longer needed: after the retention period, and erasure of a guest.

use std::time::Duration;

use async_trait::async_trait;
use guestlane_core::{request::GuestId, session::SessionId};
use guestlane_runtime::Timestamp;

use crate::{ErasureOutcome, Pruned, StoreError};

/// Deletion of sessions and batches after the retention period.
#[async_trait]
pub trait Retention: Send + Sync {
    /// Advances the retention horizon, and returns the time before which sessions that are kept for
    /// `keep` are deleted now. Returns `None` without `keep`, and while this node's clock differs
    /// from the database's.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    async fn advance_retention(
        &self,
        keep: Option<Duration>,
    ) -> Result<Option<Timestamp>, StoreError>;

    /// Reads up to `limit` sessions after `from`, oldest first, and deletes those whose last
    /// transition was before `until`, in one transaction with their events.
    ///
    /// A session stays while it is unfinished or needs attention, and while one of its events is
    /// not delivered. It also stays while a batch row can present its idempotency key.
    ///
    /// # Errors
    /// Returns an error if the read or the write fails.
    async fn prune(
        &self,
        from: Option<SessionId>,
        until: Timestamp,
        limit: u32,
    ) -> Result<Pruned, StoreError>;

    /// Deletes some rows of batches that ended before `until`, and returns their number; zero when
    /// none is left.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    async fn prune_batches(&self, _until: Timestamp) -> Result<u64, StoreError> {
        Ok(0) // a store in a file has no batches
    }
}

/// Erasure of the data of guests.
#[async_trait]
pub trait Guests: Send + Sync {
    /// Returns what [`erase_guest`](Self::erase_guest) would do now. Changes nothing.
    ///
    /// # Errors
    /// Returns an error if the read or the write that is rolled back fails.
    async fn would_erase_guest(
        &self,
        guest: GuestId,
        now: Timestamp,
    ) -> Result<ErasureOutcome, StoreError>;

    /// Erases a guest's data: in sessions, events and dead letters. Where the audit log has
    /// pseudonyms, it also deletes the key of the guest's pseudonym.
    ///
    /// # Errors
    /// Returns an error if the write fails. A failure to remove the bytes from the store's files is
    /// no error; see [`ErasureReport::bytes_removed`](crate::ErasureReport::bytes_removed).
    async fn erase_guest(
        &self,
        guest: GuestId,
        now: Timestamp,
    ) -> Result<ErasureOutcome, StoreError>;
}
