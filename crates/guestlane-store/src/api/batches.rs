//! Batches that several processes work on.

use crate::{
    StoreError,
    batch::{BatchId, BatchStatus, ClaimedRow, NewRow, RowLease, RowOutcome, RowResult},
};
use async_trait::async_trait;
use guestlane_runtime::Timestamp;

/// Batches that several processes work on. Only a database that they share has them.
#[async_trait]
pub trait Batches: Send + Sync {
    /// Begins a batch, to which rows are added next. Replaces a batch of the same name that was
    /// never completed.
    ///
    /// # Errors
    /// Returns the database's error if the write fails.
    async fn begin_batch(
        &self,
        id: BatchId,
        name: String,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Adds rows to a batch. Rows that the batch already has are left as they are.
    ///
    /// # Errors
    /// Fails if the batch does not exist,
    /// or if the write fails.
    async fn add_rows(
        &self,
        id: BatchId,
        rows: Vec<NewRow>,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Marks a batch as complete, so that workers may claim its rows.
    ///
    /// # Errors
    /// Returns [`StoreError::Commit`] if
    /// the batch was cancelled or replaced meanwhile, or the database's error if the write fails.
    async fn complete_batch(&self, id: BatchId, now: Timestamp) -> Result<(), StoreError>;

    /// Claims up to `limit` rows that have no lease, or whose lease has expired. Claims none while
    /// this node's clock differs from the database's.
    ///
    /// # Errors
    /// Returns the database's error if the write fails. A row that cannot be decoded is an error in [`ClaimedRow::request`] only.
    async fn claim_rows(&self, limit: u32, now: Timestamp) -> Result<Vec<ClaimedRow>, StoreError>;

    /// Renews the leases of rows whose epoch has not changed.
    ///
    /// # Errors
    /// Returns the database's error if the write fails.
    async fn renew_rows(&self, held: Vec<RowLease>, now: Timestamp) -> Result<(), StoreError>;

    /// Releases claimed rows that were not started.
    ///
    /// # Errors
    /// Returns the database's error if the write fails.
    async fn release_rows(&self, held: Vec<RowLease>, now: Timestamp) -> Result<(), StoreError>;

    /// Records the outcomes of rows whose lease this process still holds.
    ///
    /// # Errors
    /// Returns the database's error if the write fails.
    async fn complete_rows(
        &self,
        ended: Vec<(RowLease, RowOutcome)>,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Cancels the rows of a batch that no worker has claimed. Returns false if there is no such
    /// batch.
    ///
    /// # Errors
    /// Returns the database's error if the write fails.
    async fn cancel_batch(&self, id: BatchId, now: Timestamp) -> Result<bool, StoreError>;

    /// Returns batches, newest first, or only the batch `id`.
    ///
    /// # Errors
    /// Returns the database's error if the read fails.
    async fn list_batches(
        &self,
        id: Option<BatchId>,
        limit: u32,
    ) -> Result<Vec<BatchStatus>, StoreError>;

    /// Returns the results of a batch's rows after row number `after`, in their order.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if a row cannot be decoded, or the database's error if the read
    /// fails.
    async fn row_results(
        &self,
        id: BatchId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<RowResult>, StoreError>;
}
