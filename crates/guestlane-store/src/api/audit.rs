//! Audit records and logs.

use std::path::Path;

use async_trait::async_trait;
use guestlane_core::audit::{AuditRecord, ChangeAction};
use guestlane_genesys::ErrorCounts;
use guestlane_runtime::Timestamp;
use guestlane_tlog::{Hash, VerifierKey};

use crate::{LogInfo, RecordFilter, RestoreOutcome, StoreError, StoredRecord};

/// Audit records, and the logs that they are in.
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// Returns the last audit records that match the filter, oldest first.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    async fn records(&self, filter: RecordFilter) -> Result<Vec<StoredRecord>, StoreError>;

    /// Returns all audit logs of this store. `first` is the path of the first log's file, and `key`
    /// names the logs in their checkpoints.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if the state of a log cannot be decoded, or an error if the read
    /// fails.
    async fn logs(&self, first: &Path, key: &VerifierKey) -> Result<Vec<LogInfo>, StoreError>;

    /// Returns the leaf hashes of a log, computed from its lines in the store. Compares them with
    /// the root that was stored with them.
    ///
    /// # Errors
    /// Returns [`StoreError::AuditTampered`] if the lines do not lead to the stored root, because a
    /// row was changed outside guestlane. Returns an error if the read fails.
    async fn leaves(&self, log: u32) -> Result<Vec<Hash>, StoreError>;

    /// Rewrites the files of a log from the store.
    ///
    /// # Errors
    /// Returns [`StoreError::NoAuditLog`] if no audit log is attached, [`StoreError::Open`] if the
    /// lock file of the log cannot be opened, or an error if the read fails. A failure to write the
    /// files is [`RestoreOutcome::Failed`].
    async fn restore_log(&self, log: u32) -> Result<RestoreOutcome, StoreError>;

    /// Appends an audit record of a change that was made outside the store's transactions, such as
    /// rewritten audit files.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    async fn record_change(
        &self,
        action: ChangeAction,
        subject: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.record_refusal(
            AuditRecord::change(action, subject, None, now),
            ErrorCounts::default(),
        )
        .await
    }

    /// Appends the audit records of changes that were made without an audit log: a finished or
    /// abandoned migration.
    ///
    /// # Errors
    /// Returns an error if the read or the write fails.
    async fn record_unrecorded(&self, now: Timestamp) -> Result<(), StoreError>;

    /// Appends the audit record of an attempt that ended before its session existed.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    async fn record_refusal(
        &self,
        entry: AuditRecord,
        errors: ErrorCounts,
    ) -> Result<(), StoreError>;
}
