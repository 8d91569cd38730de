//! Events in the outbox, and the endpoints that receive them.

use crate::{Delivery, DeliveryOutcome, DeliveryState, DisabledEndpoint, ReplayFilter, StoreError};
use async_trait::async_trait;
use guestlane_core::event::Event;
use guestlane_runtime::Timestamp;

/// Events that wait for delivery.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Claims up to `limit` due events for a webhook endpoint. Claims only the first pending event
    /// of each guest, so that the events of a guest stay in order. Claims none while this node's
    /// clock differs from the database's.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if an event cannot be decoded, or an error if the write fails.
    async fn claim_events(
        &self,
        endpoint: u32,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Event>, StoreError>;

    /// Makes events due whose initial delivery has a lease beyond the longest possible one. Such an
    /// expiry was written before the wall clock moved backwards; treat the lease as expired.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    async fn release_stale_initial_leases(&self, now: Timestamp) -> Result<(), StoreError>;

    /// Makes all pending events due now whose last delivery failed, and returns their number. An
    /// operator requests this to deliver them before their backoff ends.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    async fn expedite_events(&self, now: Timestamp) -> Result<usize, StoreError>;

    /// Records the outcome of a delivery, unless the event was replayed or claimed by another
    /// process since.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    async fn record_delivery(
        &self,
        event: Event,
        outcome: DeliveryOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Returns the number of events that [`replay`](Self::replay) would send again, counted once
    /// per endpoint.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    async fn replayable(&self, replay: ReplayFilter) -> Result<u64, StoreError>;

    /// Makes events due again, whatever their state, with the same IDs and bodies. Returns their
    /// number, counted once per endpoint. Erased events stay erased.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    async fn replay(&self, replay: ReplayFilter, now: Timestamp) -> Result<usize, StoreError>;

    /// Returns events, newest first. With `before`, returns only events with a lower
    /// [`sequence`](Delivery::sequence).
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if an event cannot be decoded, or an error if the read fails.
    async fn events(
        &self,
        state: Option<DeliveryState>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Delivery>, StoreError>;

    /// Returns one event, once for each of its endpoints.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if the event cannot be decoded, or an error if the read fails.
    async fn event(&self, id: String) -> Result<Vec<Delivery>, StoreError>;

    /// Returns the earliest time at which the lease of an event's initial delivery ends. A worker
    /// looks again at that time, because the process that holds the lease may have died.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    async fn next_initial_delivery_at(
        &self,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError>;

    /// Returns the number of pending events for endpoints with a higher number, which are not
    /// delivered.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    async fn pending_events_after(&self, endpoints: u32) -> Result<u64, StoreError>;

    /// Returns the number of pending events.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    async fn pending_events(&self) -> Result<u64, StoreError>;
}

/// Which webhook endpoints are disabled.
#[async_trait]
pub trait WebhookEndpoints: Send + Sync {
    /// Returns the webhook endpoints that are disabled.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the read fails.
    async fn disabled_endpoints(&self) -> Result<Vec<DisabledEndpoint>, StoreError>;

    /// Disables a webhook endpoint. Returns whether it was enabled before.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the write fails.
    async fn disable_endpoint(&self, endpoint: DisabledEndpoint) -> Result<bool, StoreError>;

    /// Enables a webhook endpoint. Returns whether it was disabled.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the write fails.
    async fn enable_endpoint(&self, number: u32) -> Result<bool, StoreError>;
}
