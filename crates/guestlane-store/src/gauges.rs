//! How it goes at this moment.

use guestlane_runtime::Timestamp;

/// What waits, and for how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreGauges {
    /// Sessions on their way, or waiting to be completed.
    pub unfinished: u64,
    /// When the oldest of them was admitted.
    pub oldest_unfinished: Option<Timestamp>,
    /// Sessions that were refused for good, and are kept.
    pub failed: u64,
    /// Sessions that need the attention of an operator.
    pub needs_attention: u64,
    /// Events for the CRM that wait.
    pub pending_events: u64,
    /// When the oldest of them was written.
    pub oldest_event: Option<Timestamp>,
    /// Dead letters.
    pub dead_events: u64,
    /// The log that is written, and its records.
    pub audit: Option<(u32, u64)>,
}
