//! What is asked of the ledger, and what it answers.

use guestlane_genesys::{Attempt, ErrorCounts};

use crate::{
    audit::Entry,
    ledger::{Session, SessionId, State},
    outbox::Event,
    request::QueueId,
};

/// One step of a session with all that must be said of it: committed together.
#[derive(Debug, Clone)]
pub struct Transition {
    /// The session as it was.
    pub before: Session,
    /// The session as it is from now on.
    pub after: Session,
    /// What the audit log says of it.
    pub audit: Option<Entry>,
    /// What the CRM shall be told.
    pub events: Vec<Event>,
    /// Errors that were counted since the last transition.
    pub errors: ErrorCounts,
    /// What the calls came to since the last transition.
    pub calls: Vec<Attempt>,
}

/// What a transition came to.
#[derive(Debug, Clone)]
pub struct Advanced {
    /// The session as it is from now on.
    pub session: Session,
    /// Events whose first try is ours, at once. Others wait for an earlier event of the same guest.
    pub first: Vec<Event>,
}

/// Which sessions to list.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// Of this guest.
    pub guest: Option<String>,
    /// In this state.
    pub state: Option<State>,
    /// In this queue.
    pub queue: Option<QueueId>,
    /// Older than this one.
    pub before: Option<SessionId>,
    /// At most so many, newest first.
    pub limit: u32,
}

/// Sessions, and how to go on.
#[derive(Debug, Clone)]
pub struct Page {
    /// Newest first.
    pub sessions: Vec<Session>,
    /// Those older than this one were not looked at.
    pub next: Option<SessionId>,
}
