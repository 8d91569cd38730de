//! The event `webchat.session.created` (requirement R10, docs/requirements.md).

use std::{fmt, time::Duration};

use guestlane_runtime::{Timestamp, TraceParent};
use serde::Serialize;
use uuid::Uuid;

use crate::session::{SessionId, SessionRecord};

/// An event in the outbox for one webhook endpoint.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    /// The `webhook-id` of every delivery.
    pub id: String,
    /// Number of the endpoint that receives the event, from 1.
    pub endpoint: u32,
    /// The session that the event reports.
    pub session: SessionId,
    /// The guest. Events of one guest are delivered in order.
    pub guest: String,
    /// The request body of every delivery.
    pub body: String,
    /// Number of deliveries so far.
    pub attempts: u32,
    /// Fencing number of the lease. It increases with each claim; a result with an older number is
    /// ignored.
    pub epoch: u32,
    /// When the event was written.
    pub created_at: Timestamp,
    /// Time of the next delivery, or the end of the lease of the delivery in flight.
    pub due_at: Timestamp,
    /// Trace context of the request that created the session.
    pub trace: Option<TraceParent>,
}

/// Omits the body, which names the guest, so that it stays out of logs.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id", &self.id)
            .field("endpoint", &self.endpoint)
            .field("session", &self.session)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Body<'a> {
    event: &'static str,
    timestamp: Timestamp,
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    contact_id: Option<&'a str>,
    conversation_id: Option<&'a str>,
    guest_id: &'a str,
    initialization_latency_ms: f64,
}

impl Event {
    /// How long a claimed event is leased. It is longer than a delivery takes.
    pub const LEASE: Duration = Duration::from_secs(10);

    /// Returns the event of an opened session.
    ///
    /// The event's ID is derived from the session's, so that a session cannot have two events.
    pub fn session_created(session: &SessionRecord, endpoint: u32, now: Timestamp) -> Self {
        let body = Body {
            event: "webchat.session.created",
            timestamp: now,
            data: Data {
                contact_id: session.contact_id.as_deref(),
                conversation_id: session.conversation_id.as_deref(),
                guest_id: session.request.guest.as_str(),
                initialization_latency_ms: session.latency.unwrap_or_default().as_secs_f64()
                    * 1000.0,
            },
        };
        Self {
            id: event_id(session.id.0),
            endpoint,
            session: session.id,
            guest: session.request.guest.as_str().to_owned(),
            body: serde_json::to_string(&body).unwrap_or_default(),
            attempts: 0,
            epoch: 1,
            created_at: now,
            due_at: now + Self::LEASE,
            trace: session.trace,
        }
    }
}

/// Returns the ID of a session's event `webchat.session.created`. Each session has one.
pub fn event_id(session: Uuid) -> String {
    format!("msg_{}", session.simple())
}
