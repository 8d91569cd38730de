//! One event: `webchat.session.created` (requirement R10, docs/requirements.md).

use std::{fmt, time::Duration};

use guestlane_genesys::{Timestamp, TraceParent};
use serde::Serialize;
use uuid::Uuid;

use crate::session::{SessionId, SessionRecord};

/// An event on its way to the CRM.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    /// The `webhook-id` of every try.
    pub id: String,
    /// Which receiver it is for: from 1.
    pub receiver: u32,
    /// The session it is about.
    pub session: SessionId,
    /// The guest whose events keep their order.
    pub guest: String,
    /// The bytes of every try.
    pub body: String,
    /// Tries so far.
    pub tries: u32,
    /// Counts who had it leased: one with an older number settles nothing.
    pub epoch: u32,
    /// When it was written.
    pub created_at: Timestamp,
    /// The next try, or the end of the lease of the present one.
    pub due_at: Timestamp,
    /// The trace of whoever asked for the session.
    pub trace: Option<TraceParent>,
}

/// The body names the guest: it stays out of logs.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id", &self.id)
            .field("receiver", &self.receiver)
            .field("session", &self.session)
            .field("tries", &self.tries)
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
    /// How long whoever takes an event has it for themselves: more than a try takes.
    pub const LEASE: Duration = Duration::from_secs(10);

    /// A session was opened. The event's id is the session's, so that nothing can make a second event of one session.
    pub fn session_created(session: &SessionRecord, receiver: u32, now: Timestamp) -> Self {
        let body = Body {
            event: "webchat.session.created",
            timestamp: now,
            data: Data {
                contact_id: session.contact_id.as_deref(),
                conversation_id: session.conversation_id.as_deref(),
                guest_id: session.request.guest.as_str(),
                initialization_latency_ms: session.latency.unwrap_or_default().as_secs_f64() * 1000.0,
            },
        };
        Self {
            id: event_id(session.id.0),
            receiver,
            session: session.id,
            guest: session.request.guest.as_str().to_owned(),
            body: serde_json::to_string(&body).unwrap_or_default(),
            tries: 0,
            epoch: 1,
            created_at: now,
            due_at: now + Self::LEASE,
            trace: session.trace,
        }
    }
}

/// The id of the event that a session was opened: one for each session.
pub fn event_id(session: Uuid) -> String {
    format!("msg_{}", session.simple())
}
