//! Batches in the database: rows that every worker may claim.

use std::{fmt, str::FromStr};

use guestlane_runtime::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::StoreError;
use guestlane_core::{
    request::{SessionRequest, ValidationError, shorten},
    session::{SessionId, SessionRecord},
};

/// The ID of a batch (UUID version 7, ordered by time).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct BatchId(pub Uuid);

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for BatchId {
    type Err = ValidationError;

    fn from_str(text: &str) -> Result<Self, ValidationError> {
        let invalid = |_| {
            ValidationError::new(
                "batchId",
                format!("`{}` is not a batch ID", shorten(text)),
                "copy the ID from the list of batches",
            )
        };
        Uuid::try_parse(text).map(Self).map_err(invalid)
    }
}

/// A row that is added to a batch.
#[derive(Debug, Clone)]
pub struct NewRow {
    /// Row number, from 1, without the heading.
    pub number: u64,
    /// Line number in the file, from 1, including the heading.
    pub line: u64,
    /// The request of the row, or why it is invalid. An invalid row fails at once.
    pub request: Result<SessionRequest, RowFailure>,
}

/// Why a row failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RowFailure {
    /// A stable code of the error catalogue.
    pub code: String,
    /// The error in one sentence.
    pub message: String,
    /// The cause of the error.
    pub cause: String,
    /// What to do about it.
    pub fix: String,
}

/// A row that this process has claimed until its lease ends.
#[derive(Debug)]
pub struct ClaimedRow {
    /// The row and its epoch.
    pub place: RowLease,
    /// Number of earlier attempts.
    pub attempts: u32,
    /// When the batch was created. An older session was not created for this row.
    pub since: Timestamp,
    /// The request of the row, or why it cannot be decoded. Such a row does not prevent other rows
    /// from being claimed.
    pub request: Result<SessionRequest, StoreError>,
}

/// The lease of a row: the row and the epoch under which it was claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowLease {
    /// The batch of the row.
    pub batch: BatchId,
    /// Row number, from 1.
    pub number: u64,
    /// The fencing number. It increases with each claim, and a worker with an older one records
    /// nothing.
    pub epoch: u32,
}

/// The outcome of one attempt at a row.
#[derive(Debug, Clone)]
pub enum RowOutcome {
    /// The session of the row is open.
    Open {
        /// The session.
        session: SessionId,
        /// Whether the session was open before, so that this was a replay.
        replayed: bool,
    },
    /// The row failed and is not attempted again.
    Failed(RowFailure),
    /// The row may be attempted again from this time on.
    Retry(Timestamp, RowFailure),
}

/// A batch and its progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchStatus {
    /// The ID of the batch.
    pub batch_id: BatchId,
    /// The name of the batch, usually of its file.
    pub name: String,
    /// When the batch was created.
    pub created_at: Timestamp,
    /// Whether all rows have been added. Before that, no row is claimed.
    pub complete: bool,
    /// When the batch was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled_at: Option<Timestamp>,
    /// Number of all rows.
    pub rows: u64,
    /// Number of rows that no worker has claimed.
    pub waiting: u64,
    /// Number of rows that a worker has claimed.
    pub running: u64,
    /// Number of rows whose session is open.
    pub open: u64,
    /// Number of those rows whose session was open before.
    pub replayed: u64,
    /// Number of rows that failed and are not attempted again.
    pub failed: u64,
    /// Number of rows that were cancelled before they began.
    pub cancelled: u64,
}

/// A row and its result.
#[derive(Debug, Clone)]
pub struct RowResult {
    /// Row number, from 1.
    pub number: u64,
    /// Line number in the file, including the heading.
    pub line: u64,
    /// The state: `waiting`, `running`, `open`, `failed` or `cancelled`.
    pub state: String,
    /// The session of the row, if it exists and was not pruned.
    pub session: Option<SessionRecord>,
    /// Whether the session was open before.
    pub replayed: bool,
    /// Why the row failed, or why it is attempted again.
    pub failure: Option<RowFailure>,
}
