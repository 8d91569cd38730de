//! What a call to the platform is made for: its deadline, its priority, and the log of its attempts.

use guestlane_runtime::Timestamp;

use crate::{AttemptLog, Priority};

/// The deadline, the priority and the attempt log of calls that belong together, such as the calls
/// of one session.
#[derive(Debug, Clone)]
pub struct CallContext {
    /// When the calls must have ended.
    pub deadline: Timestamp,
    /// Whether a caller waits for the calls.
    pub priority: Priority,
    /// Records the attempts.
    pub attempts: AttemptLog,
}

impl CallContext {
    /// Creates a context of interactive calls whose attempts nothing reads.
    pub fn until(deadline: Timestamp) -> Self {
        Self {
            deadline,
            priority: Priority::Interactive,
            attempts: AttemptLog::default(),
        }
    }
}
