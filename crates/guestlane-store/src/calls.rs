//! What each call of a session came to, kept with the session: JSON lines, written with the transition that they led to.

use std::time::Duration;

use guestlane_genesys::Attempt;
use guestlane_runtime::Timestamp;
use serde::{Deserialize, Serialize};

use super::StoreError;

/// Bytes that are kept of a session: a hundred attempts, or so. What comes after is counted (`attempts`), and not kept.
pub(super) const MAX_BYTES: usize = 20_000;

/// An attempt at a call, as it is kept. Nothing in it was sent by the caller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallRecord {
    at: i64,
    /// A stable name of what was asked for.
    pub operation: String,
    micros: u64,
    /// The status of the answer, where there was one over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it did not go well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The platform's, to quote to its support.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
}

impl From<&Attempt> for CallRecord {
    fn from(attempt: &Attempt) -> Self {
        Self {
            at: attempt.at.unix_micros(),
            operation: attempt.operation.name().to_owned(),
            micros: u64::try_from(attempt.took.as_micros()).unwrap_or(u64::MAX),
            status: attempt.status,
            failure: attempt.failure.clone(),
            correlation_id: attempt.correlation_id.as_deref().map(str::to_owned),
        }
    }
}

impl CallRecord {
    /// When it was sent.
    pub fn at(&self) -> Timestamp {
        Timestamp::from_unix_micros(self.at)
    }

    /// How long it took.
    pub fn took(&self) -> Duration {
        Duration::from_micros(self.micros)
    }
}

/// As they are added to the session's row.
pub(super) fn lines(attempts: &[Attempt]) -> String {
    let line = |attempt| {
        serde_json::to_string(&CallRecord::from(attempt))
            .map(|line| line + "\n")
            .unwrap_or_default()
    };
    attempts.iter().map(line).collect()
}

/// As they are read back, oldest first.
pub(super) fn read(text: &str) -> Result<Vec<CallRecord>, StoreError> {
    text.lines()
        .map(|line| serde_json::from_str(line).map_err(|_| StoreError::Row("session.calls")))
        .collect()
}
