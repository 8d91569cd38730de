//! JSON models of the outbox and its deliveries.

use guestlane_runtime::Timestamp;
use guestlane_store::{Delivery, DeliveryState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The state of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventState {
    /// The next attempt is scheduled.
    Pending,
    /// The endpoint has accepted the event.
    Delivered,
    /// All attempts have failed: the event is a dead letter.
    Dead,
    /// The event's guest was erased, together with the event's body.
    Erased,
}

impl From<DeliveryState> for EventState {
    fn from(state: DeliveryState) -> Self {
        match state {
            DeliveryState::Pending => Self::Pending,
            DeliveryState::Delivered => Self::Delivered,
            DeliveryState::Dead => Self::Dead,
            DeliveryState::Erased => Self::Erased,
        }
    }
}

impl From<EventState> for DeliveryState {
    fn from(state: EventState) -> Self {
        match state {
            EventState::Pending => Self::Pending,
            EventState::Delivered => Self::Delivered,
            EventState::Dead => Self::Dead,
            EventState::Erased => Self::Erased,
        }
    }
}

/// An event and the state of its delivery to one endpoint. The event's body contains the guest ID
/// and is not included.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The ID of the event: the header `webhook-id` of every attempt.
    #[schema(max_length = 64, example = "msg_019ab1234567700080000123456789ab")]
    id: String,
    /// The number of the endpoint, from 1, in the order of CRM_WEBHOOK_URL.
    #[schema(minimum = 1, example = 1)]
    endpoint: u32,
    /// The ID of the session that the event reports.
    #[schema(format = Uuid, min_length = 36, max_length = 36, example = "019ab123-4567-7000-8000-0123456789ab")]
    session_id: String,
    state: EventState,
    /// The number of attempts so far.
    #[schema(minimum = 0, example = 10)]
    attempts: u32,
    /// The time at which the event was stored.
    #[schema(value_type = String, format = DateTime, max_length = 40, example = "2026-11-23T04:00:00.000000Z")]
    created_at: Timestamp,
    /// The time of the next attempt; null unless the state is `pending`.
    #[schema(required, value_type = Option<String>, format = DateTime, max_length = 40, example = "2026-11-23T04:05:00.000000Z")]
    next_attempt_at: Option<Timestamp>,
    /// The time at which the event was delivered or became a dead letter.
    #[schema(required, value_type = Option<String>, format = DateTime, max_length = 40, example = "2026-11-23T04:00:00.100000Z")]
    ended_at: Option<Timestamp>,
    /// The reason why the last attempt failed.
    #[schema(
        required,
        max_length = 8192,
        example = "the endpoint responded with HTTP 503"
    )]
    last_error: Option<String>,
}

impl From<&Delivery> for Event {
    fn from(delivery: &Delivery) -> Self {
        let pending = delivery.state == DeliveryState::Pending;
        Self {
            id: delivery.event.id.clone(),
            endpoint: delivery.event.endpoint,
            session_id: delivery.event.session.to_string(),
            state: delivery.state.into(),
            attempts: delivery.event.attempts,
            created_at: delivery.created_at,
            next_attempt_at: pending.then_some(delivery.event.due_at),
            ended_at: delivery.ended_at,
            last_error: delivery.last_error.clone(),
        }
    }
}

/// A page of events, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Events {
    /// The events, at most as many as `limit`.
    #[schema(max_items = 500)]
    pub events: Vec<Event>,
    /// The value of `cursor` for the next, older page; null on the last page.
    #[schema(required, max_length = 64, example = "1234")]
    pub next_cursor: Option<String>,
}

/// The result of a replay.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replayed {
    /// The number of deliveries that are scheduled again, one for each endpoint. IDs and bodies
    /// stay the same.
    #[schema(minimum = 1, example = 1)]
    pub events: u64,
}
