//! JSON models of the outbox and its deliveries.

use guestlane::{
    Timestamp,
    store::{Delivery, DeliveryState},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventState {
    /// It will be tried (again).
    Pending,
    /// The receiver has it.
    Delivered,
    /// All tries are used up: a dead letter.
    Dead,
    /// Its guest was erased, and its body with them.
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

/// An event, and what became of it with one receiver. Its body names the guest, and is not shown.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The `webhook-id` of every try.
    #[schema(max_length = 64, example = "msg_019ab1234567700080000123456789ab")]
    id: String,
    /// Which receiver it is for: from 1, in the order of CRM_WEBHOOK_URL.
    #[schema(minimum = 1, example = 1)]
    receiver: u32,
    /// The session it is about.
    #[schema(format = Uuid, min_length = 36, max_length = 36, example = "019ab123-4567-7000-8000-0123456789ab")]
    session_id: String,
    state: EventState,
    /// Tries so far.
    #[schema(minimum = 0, example = 10)]
    tries: u32,
    /// When it was written.
    #[schema(value_type = String, format = DateTime, max_length = 40, example = "2026-11-23T04:00:00.000000Z")]
    created_at: Timestamp,
    /// When it is tried next. Of those that are pending.
    #[schema(required, value_type = Option<String>, format = DateTime, max_length = 40, example = "2026-11-23T04:05:00.000000Z")]
    next_try_at: Option<Timestamp>,
    /// When it was delivered, or given up.
    #[schema(required, value_type = Option<String>, format = DateTime, max_length = 40, example = "2026-11-23T04:00:00.100000Z")]
    ended_at: Option<Timestamp>,
    /// Why the last try failed.
    #[schema(required, max_length = 8192, example = "the endpoint responded with HTTP 503")]
    last_error: Option<String>,
}

impl From<&Delivery> for Event {
    fn from(delivery: &Delivery) -> Self {
        let pending = delivery.state == DeliveryState::Pending;
        Self {
            id: delivery.event.id.clone(),
            receiver: delivery.event.receiver,
            session_id: delivery.event.session.to_string(),
            state: delivery.state.into(),
            tries: delivery.event.tries,
            created_at: delivery.created_at,
            next_try_at: pending.then_some(delivery.event.due_at),
            ended_at: delivery.ended_at,
            last_error: delivery.last_error.clone(),
        }
    }
}

/// Events, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Events {
    /// At most as many as were asked for.
    #[schema(max_items = 500)]
    pub events: Vec<Event>,
    /// To be sent as `cursor` for what is older; null where that is nothing.
    #[schema(required, max_length = 64, example = "1234")]
    pub next_cursor: Option<String>,
}

/// What a replay came to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replayed {
    /// Events that are sent again, with the same ids and bodies: one for each receiver.
    #[schema(minimum = 1, example = 1)]
    pub events: u64,
}
