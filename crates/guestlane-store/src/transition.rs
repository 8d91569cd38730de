//! What is asked of the ledger, and what it answers.

use guestlane_genesys::{Attempt, ErrorCounts};

use guestlane_core::{
    audit::AuditRecord,
    event::Event,
    request::QueueId,
    session::{SessionId, SessionRecord, SessionState},
};

/// One step of a session with all that must be said of it: committed together.
#[derive(Debug, Clone)]
pub struct CommitRequest {
    /// The session as it was.
    pub before: SessionRecord,
    /// The session as it is from now on.
    pub after: SessionRecord,
    /// What the audit log says of it.
    pub audit: Option<AuditRecord>,
    /// The outbox events of the transition.
    pub events: Vec<Event>,
    /// Errors that were counted since the last transition.
    pub errors: ErrorCounts,
    /// What the calls came to since the last transition.
    pub calls: Vec<Attempt>,
}

/// What a transition came to.
#[derive(Debug, Clone)]
pub struct CommitResult {
    /// The session as it is from now on.
    pub session: SessionRecord,
    /// Events that this process delivers at once. Others wait for an earlier event of the same guest.
    pub first: Vec<Event>,
}

/// Which sessions to list.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// Of this guest.
    pub guest: Option<String>,
    /// In this state.
    pub state: Option<SessionState>,
    /// In this queue.
    pub queue: Option<QueueId>,
    /// Older than this one.
    pub before: Option<SessionId>,
    /// At most so many, newest first.
    pub limit: u32,
}

/// Sessions, and how to go on.
#[derive(Debug, Clone)]
pub struct SessionPage {
    /// Newest first.
    pub sessions: Vec<SessionRecord>,
    /// Those older than this one were not looked at.
    pub next: Option<SessionId>,
}
