//! Audit records and logs.

use super::either;
use crate::{Kind, LogInfo, RecordFilter, RestoreOutcome, Store, StoreError, StoredRecord};
use guestlane_core::audit::{AuditRecord, ChangeAction};
use guestlane_genesys::ErrorCounts;
use guestlane_runtime::Timestamp;
use guestlane_tlog::{Hash, VerifierKey};
use std::path::Path;

impl Store {
    /// Returns the last audit records that match the filter, oldest first.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn records(&self, filter: RecordFilter) -> Result<Vec<StoredRecord>, StoreError> {
        either!(self, store => store.records(filter))
    }

    /// Returns all audit logs of this store. `first` is the path of the first log's file, and `key`
    /// names the logs in their checkpoints.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if the state of a log cannot be decoded, or an error if the read
    /// fails.
    pub async fn logs(&self, first: &Path, key: &VerifierKey) -> Result<Vec<LogInfo>, StoreError> {
        either!(self, store => store.logs(first, key))
    }

    /// Returns the leaf hashes of a log, computed from its lines in the store. Compares them with
    /// the root that was stored with them.
    ///
    /// # Errors
    /// Returns [`StoreError::AuditTampered`] if the lines do not lead to the stored root, because a
    /// row was changed outside guestlane. Returns an error if the read fails.
    pub async fn leaves(&self, log: u32) -> Result<Vec<Hash>, StoreError> {
        either!(self, store => store.leaves(log))
    }

    /// Rewrites the files of a log from the store.
    ///
    /// # Errors
    /// Returns [`StoreError::NoAuditLog`] if no audit log is attached, [`StoreError::Open`] if the
    /// lock file of the log cannot be opened, or an error if the read fails. A failure to write the
    /// files is [`RestoreOutcome::Failed`].
    pub async fn restore_log(&self, log: u32) -> Result<RestoreOutcome, StoreError> {
        either!(self, store => store.restore_log(log))
    }

    /// Appends an audit record of a change that was made outside the store's transactions, such as
    /// rewritten audit files.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn record_change(
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
    pub async fn record_unrecorded(&self, now: Timestamp) -> Result<(), StoreError> {
        either!(self, store => store.record_unrecorded(now))
    }

    /// Appends the audit record of an attempt that ended before its session existed.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn record_refusal(
        &self,
        entry: AuditRecord,
        errors: ErrorCounts,
    ) -> Result<(), StoreError> {
        either!(self, store => store.record_refusal(entry, errors))
    }
}
