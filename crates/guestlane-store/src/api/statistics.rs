//! Counts of what the store has.

use crate::{StoreError, StoreGauges, Summary};
use async_trait::async_trait;
use guestlane_genesys::ErrorCounts;

/// Counts what the store has.
#[async_trait]
pub trait Statistics: Send + Sync {
    /// Returns the gauges: what is pending, and for how long. They are read every second, so they use
    /// only indexes.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    async fn gauges(&self) -> Result<StoreGauges, StoreError>;

    /// Returns the error counts of all processes that used this store.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    async fn error_counts(&self) -> Result<ErrorCounts, StoreError>;

    /// Adds error counts that no later transition will carry.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    async fn add_errors(&self, counts: ErrorCounts) -> Result<(), StoreError>;

    /// Returns the counts by state, the error counts and the latency summary.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    async fn summary(&self) -> Result<Summary, StoreError>;
}
