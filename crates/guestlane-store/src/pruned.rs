//! What forgetting came to.

use std::ops::AddAssign;

use guestlane_core::session::SessionId;

/// What a step of pruning came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Sessions that are forgotten.
    pub sessions: u64,
    /// Events that went with them.
    pub events: u64,
    /// Where the next step goes on; `None`: there is nothing older.
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
