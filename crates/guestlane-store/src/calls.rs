//! The attempt log of a session: JSON lines, written with the transition that the attempts led to.

use std::time::Duration;

use guestlane_genesys::Attempt;
use guestlane_runtime::Timestamp;
use serde::{Deserialize, Serialize};

use super::StoreError;

/// Size in bytes beyond which no more attempts are added: about a hundred attempts. Later attempts
/// are counted (`attempts`) but not stored.
pub(super) const MAX_BYTES: usize = 20_000;

/// An attempt of a call in the attempt log. It contains nothing that the caller sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallRecord {
    at: i64,
    /// A stable name of the operation.
    pub operation: String,
    micros: u64,
    /// The HTTP status of the response, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why the attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The platform's correlation ID, to quote to its support.
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
    /// When the request was sent.
    pub fn at(&self) -> Timestamp {
        Timestamp::from_unix_micros(self.at)
    }

    /// How long the attempt took.
    pub fn took(&self) -> Duration {
        Duration::from_micros(self.micros)
    }
}

/// Returns the lines that are appended to the session's row.
pub(super) fn lines(attempts: &[Attempt]) -> String {
    let line = |attempt| {
        serde_json::to_string(&CallRecord::from(attempt))
            .map(|line| line + "\n")
            .unwrap_or_default()
    };
    attempts.iter().map(line).collect()
}

/// Decodes the lines of a session's row, oldest attempt first.
pub(super) fn read(text: &str) -> Result<Vec<CallRecord>, StoreError> {
    text.lines()
        .map(|line| serde_json::from_str(line).map_err(|_| StoreError::Row("session.calls")))
        .collect()
}
