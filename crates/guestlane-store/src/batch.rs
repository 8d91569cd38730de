//! Batches in the database: rows that any process may take.

use std::{fmt, str::FromStr};

use guestlane_runtime::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::StoreError;
use guestlane_core::{
    request::{SessionRequest, ValidationError, shorten},
    session::{SessionId, SessionRecord},
};

/// A batch's id: ordered by time (UUID version 7).
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
                "ID",
                format!("`{}` is not a batch's id", shorten(text)),
                "see `guestlane batch status`",
            )
        };
        Uuid::try_parse(text).map(Self).map_err(invalid)
    }
}

/// A row on its way into the database.
#[derive(Debug, Clone)]
pub struct NewRow {
    /// From 1, the heading not counted.
    pub number: u64,
    /// From 1, the heading counted.
    pub line: u64,
    /// What is wished; or why that cannot be used, which ends the row at once.
    pub wish: Result<SessionRequest, RowFailure>,
}

/// Why a row failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RowFailure {
    /// A stable code of the error catalogue.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// Why it happens.
    pub cause: String,
    /// What to do.
    pub fix: String,
}

/// A row that this process has, until its lease ends.
#[derive(Debug)]
pub struct ClaimedRow {
    /// Which it is.
    pub place: RowLease,
    /// How often it was tried before.
    pub tries: u32,
    /// When its batch was begun: a session that is older was not made for it.
    pub since: Timestamp,
    /// What is wished; or why it cannot be read, which no other row is to suffer from.
    pub request: Result<SessionRequest, StoreError>,
}

/// A row, and the number under which this process has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowLease {
    /// Its batch.
    pub batch: BatchId,
    /// From 1.
    pub number: u64,
    /// Fencing number: it increases with each claim, and a worker with an older one records nothing.
    pub epoch: u32,
}

/// What came of a row.
#[derive(Debug, Clone)]
pub enum RowOutcome {
    /// Its session is open.
    Open {
        /// The session.
        session: SessionId,
        /// Whether it was open before.
        replayed: bool,
    },
    /// It is not tried again.
    Failed(RowFailure),
    /// It may be tried again from then on.
    Retry(Timestamp, RowFailure),
}

/// A batch, and how far it got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchStatus {
    /// Its id.
    pub batch_id: BatchId,
    /// The file, or what it was called.
    pub name: String,
    /// When its first row came.
    pub created_at: Timestamp,
    /// Whether all rows are in: before that, none begins.
    pub complete: bool,
    /// When it was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled_at: Option<Timestamp>,
    /// All rows.
    pub rows: u64,
    /// Nobody has them.
    pub waiting: u64,
    /// Somebody has them.
    pub running: u64,
    /// Their sessions are open.
    pub open: u64,
    /// Of those, were open before.
    pub replayed: u64,
    /// They are not tried again.
    pub failed: u64,
    /// They never began.
    pub cancelled: u64,
}

/// A row, and what came of it.
#[derive(Debug, Clone)]
pub struct RowResult {
    /// From 1.
    pub number: u64,
    /// The heading counted.
    pub line: u64,
    /// `waiting`, `running`, `open`, `failed` or `cancelled`.
    pub state: String,
    /// Its session, where it has one that is not forgotten.
    pub session: Option<SessionRecord>,
    /// Whether that was open before.
    pub replayed: bool,
    /// Why it failed, or why it is tried again.
    pub failure: Option<RowFailure>,
}
