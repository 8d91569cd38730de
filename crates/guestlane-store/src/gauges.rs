//! Gauges of the store's present state.

use guestlane_runtime::Timestamp;

/// The number of pending items, and the age of the oldest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreGauges {
    /// Number of unfinished sessions.
    pub unfinished: u64,
    /// When the oldest unfinished session was admitted.
    pub oldest_unfinished: Option<Timestamp>,
    /// Number of sessions that failed and are still stored.
    pub failed: u64,
    /// Sessions that need the attention of an operator.
    pub needs_attention: u64,
    /// Number of pending outbox events.
    pub pending_events: u64,
    /// When the oldest pending event was written.
    pub oldest_event: Option<Timestamp>,
    /// Number of dead letters.
    pub dead_events: u64,
    /// The number of the log that is being written, and its number of records.
    pub audit: Option<(u32, u64)>,
}
