//! CRM events that wait to be delivered, and what became of them.

use guestlane_runtime::{Timestamp, text::one_line};
use serde::Serialize;

use guestlane_core::{
    audit::{AuditRecord, ChangeAction},
    event::Event,
};

/// How an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// It will be tried (again).
    Pending,
    /// The receiver has it.
    Delivered,
    /// All tries are used up: a dead letter.
    Dead,
    /// Its guest was erased, and its body with them.
    Erased,
}

impl DeliveryState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Delivered, Self::Dead, Self::Erased];

    /// The name in the store and on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Erased => "erased",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// An event and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The event.
    pub event: Event,
    /// How it stands.
    pub state: DeliveryState,
    /// When it was written.
    pub created_at: Timestamp,
    /// When it was delivered, or given up.
    pub ended_at: Option<Timestamp>,
    /// Why the last try failed.
    pub last_error: Option<String>,
    /// Its place in the order in which events were written.
    pub sequence: i64,
}

impl ReplayFilter {
    /// What the audit log says of it.
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

/// Which events to send again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayFilter {
    /// This one, to all its receivers, also when it is still on its way.
    Event(String),
    /// Those that were written in this time and are settled.
    Written {
        /// From then on.
        since: Timestamp,
        /// Up to then, without that moment.
        until: Timestamp,
        /// Only those in this state; `None`: delivered ones and dead letters.
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
