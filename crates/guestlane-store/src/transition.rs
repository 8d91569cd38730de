//! Transitions and session queries: the parameters and results of store operations.

use guestlane_genesys::{Attempt, ErrorCounts};

use guestlane_core::{
    audit::AuditRecord,
    event::Event,
    request::QueueId,
    session::{SessionId, SessionRecord, SessionState},
};

/// A transition of a session with its audit record and outbox events, which are committed together.
#[derive(Debug, Clone)]
pub struct CommitRequest {
    /// The epoch of the lease that the writer holds. A session with another epoch is not written.
    pub epoch: u32,
    /// The session after the transition.
    pub after: SessionRecord,
    /// The audit record of the transition.
    pub audit: Option<AuditRecord>,
    /// The outbox events of the transition.
    pub events: Vec<Event>,
    /// Errors that were counted since the last transition.
    pub errors: ErrorCounts,
    /// Attempts of calls since the last transition.
    pub calls: Vec<Attempt>,
}

/// The result of a transition.
#[derive(Debug, Clone)]
pub struct CommitResult {
    /// The session after the transition.
    pub session: SessionRecord,
    /// Events whose initial delivery this process performs at once. The others wait for an earlier
    /// event of the same guest.
    pub first: Vec<Event>,
}

/// Selects the sessions to list.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// Only sessions of this guest.
    pub guest: Option<String>,
    /// Only sessions in this state.
    pub state: Option<SessionState>,
    /// Only sessions in this queue.
    pub queue: Option<QueueId>,
    /// Only sessions older than this one.
    pub before: Option<SessionId>,
    /// Maximum number of sessions.
    pub limit: u32,
}

/// A page of sessions, and where the next page begins.
#[derive(Debug, Clone)]
pub struct SessionPage {
    /// The sessions, newest first.
    pub sessions: Vec<SessionRecord>,
    /// The ID to pass as `before` for the next page, or `None` if there is no next page.
    pub next: Option<SessionId>,
}
