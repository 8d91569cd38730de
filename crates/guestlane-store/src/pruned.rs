//! The result of pruning.

use std::ops::AddAssign;

use guestlane_core::session::SessionId;

/// The result of one step of pruning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Number of deleted sessions.
    pub sessions: u64,
    /// Number of deleted events.
    pub events: u64,
    /// The session after which the next step continues, or `None` if no older session is left.
    pub next: Option<SessionId>,
}

impl AddAssign for Pruned {
    fn add_assign(&mut self, other: Self) {
        let Self {
            sessions,
            events,
            next,
        } = other;
        *self = Self {
            sessions: self.sessions + sessions,
            events: self.events + events,
            next,
        };
    }
}
