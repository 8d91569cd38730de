//! Batches that several processes work on. A store in a file has no batches.

use super::shared;
use crate::batch::{BatchId, BatchStatus, ClaimedRow, NewRow, RowLease, RowOutcome, RowResult};
use crate::{Kind, Store, StoreError};
use guestlane_runtime::Timestamp;

impl Store {
    /// Begins a batch, to which rows are added next. Replaces a batch of the same name that was
    /// never completed.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file, or the database's error if the
    /// write fails.
    pub async fn begin_batch(
        &self,
        id: BatchId,
        name: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        shared!(self, store => store.begin_batch(id, name, now))
    }

    /// Adds rows to a batch. Rows that the batch already has are left as they are.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file. Fails if the batch does not exist,
    /// or if the write fails.
    pub async fn add_rows(
        &self,
        id: BatchId,
        rows: Vec<NewRow>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        shared!(self, store => store.add_rows(id, rows, now))
    }

    /// Marks a batch as complete, so that workers may claim its rows.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file. Returns [`StoreError::Commit`] if
    /// the batch was cancelled or replaced meanwhile, or the database's error if the write fails.
    pub async fn complete_batch(&self, id: BatchId, now: Timestamp) -> Result<(), StoreError> {
        shared!(self, store => store.complete_batch(id, now))
    }

    /// Claims up to `limit` rows that have no lease, or whose lease has expired. Claims none while
    /// this node's clock differs from the database's.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file, or the database's error if the
    /// write fails. A row that cannot be decoded is an error in [`ClaimedRow::request`] only.
    pub async fn claim_rows(
        &self,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<ClaimedRow>, StoreError> {
        let limit = if self.may_claim() { limit } else { 0 };
        shared!(self, store => store.claim_rows(limit, now))
    }

    /// Renews the leases of rows whose epoch has not changed.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file, or the database's error if the
    /// write fails.
    pub async fn renew_rows(&self, held: Vec<RowLease>, now: Timestamp) -> Result<(), StoreError> {
        shared!(self, store => store.renew_rows(held, now))
    }

    /// Releases claimed rows that were not started.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file, or the database's error if the
    /// write fails.
    pub async fn release_rows(
        &self,
        held: Vec<RowLease>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        shared!(self, store => store.release_rows(held, now))
    }

    /// Records the outcomes of rows whose lease this process still holds.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file, or the database's error if the
    /// write fails.
    pub async fn complete_rows(
        &self,
        ended: Vec<(RowLease, RowOutcome)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        shared!(self, store => store.complete_rows(ended, now))
    }

    /// Cancels the rows of a batch that no worker has claimed. Returns false if there is no such
    /// batch.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file, or the database's error if the
    /// write fails.
    pub async fn cancel_batch(&self, id: BatchId, now: Timestamp) -> Result<bool, StoreError> {
        shared!(self, store => store.cancel_batch(id, now))
    }

    /// Returns batches, newest first, or only the batch `id`.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file, or the database's error if the read
    /// fails.
    pub async fn batches(
        &self,
        id: Option<BatchId>,
        limit: u32,
    ) -> Result<Vec<BatchStatus>, StoreError> {
        shared!(self, store => store.batches(id, limit))
    }

    /// Returns the results of a batch's rows after row number `after`, in their order.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file, [`StoreError::Row`] if a row cannot
    /// be decoded, or the database's error if the read fails.
    pub async fn row_results(
        &self,
        id: BatchId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<RowResult>, StoreError> {
        shared!(self, store => store.row_results(id, after, limit))
    }

    /// Deletes some rows of batches that ended before `until`, and returns their number; zero when
    /// none is left.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn prune_batches(&self, until: Timestamp) -> Result<u64, StoreError> {
        match &self.kind {
            // A store in a file has no batches.
            Kind::Sqlite(_) => Ok(0),
            Kind::Postgres(store) => store.prune_batches(until).await,
        }
    }
}
