//! Outbox events that wait for delivery, and the outcomes of deliveries.

use guestlane_runtime::{Timestamp, text::one_line};
use serde::Serialize;

use guestlane_core::{
    audit::{AuditRecord, ChangeAction},
    event::Event,
};

/// The state of an event at one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// The event waits for its first or next attempt.
    Pending,
    /// The endpoint has accepted the event.
    Delivered,
    /// All attempts have failed: the event is a dead letter.
    Dead,
    /// The guest was erased, and the body of the event with it.
    Erased,
}

impl DeliveryState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Delivered, Self::Dead, Self::Erased];

    /// Returns the name of the state in the store and in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Erased => "erased",
        }
    }

    /// Returns the state with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// An event and its state at one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The event.
    pub event: Event,
    /// The state of the event.
    pub state: DeliveryState,
    /// When the event was written.
    pub created_at: Timestamp,
    /// When the event was delivered or became a dead letter.
    pub ended_at: Option<Timestamp>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// The position of the event in the order in which events were written.
    pub sequence: i64,
}

impl ReplayFilter {
    /// Returns the audit record of a replay of `count` deliveries.
    pub(super) fn record(&self, count: usize, now: Timestamp) -> AuditRecord {
        let subject = match self {
            Self::Event(id) => id.clone(),
            Self::Written { since, until, .. } => format!("{since} to {until}"),
        };
        AuditRecord::change(
            ChangeAction::EventsReplayed,
            subject,
            Some(format!("{count} deliveries")),
            now,
        )
    }
}

/// Selects the events to send again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayFilter {
    /// One event, to all its endpoints, even if it is pending.
    Event(String),
    /// The events that were written in a period and are delivered or dead letters.
    Written {
        /// Start of the period.
        since: Timestamp,
        /// End of the period, which is not part of it.
        until: Timestamp,
        /// Only events in this state. With `None`, both delivered events and dead letters.
        state: Option<DeliveryState>,
    },
}

/// Outcome of a delivery, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The endpoint accepted the event.
    Delivered,
    /// The event is delivered again.
    Retry {
        /// Time of the next delivery.
        at: Timestamp,
        /// Why the delivery failed.
        error: String,
    },
    /// The event exhausted its deliveries and becomes a dead letter.
    Dead {
        /// Why the last delivery failed.
        error: String,
    },
}

impl DeliveryOutcome {
    /// Returns the event's state, the time of its next delivery, and why this delivery failed.
    pub fn into_parts(self) -> (DeliveryState, Option<Timestamp>, Option<String>) {
        match self {
            Self::Delivered => (DeliveryState::Delivered, None, None),
            Self::Retry { at, error } => (DeliveryState::Pending, Some(at), Some(one_line(&error))),
            Self::Dead { error } => (DeliveryState::Dead, None, Some(one_line(&error))),
        }
    }
}
