//! Priority of calls that wait for the rate limiter.

/// Priority of calls that wait for the rate limiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A caller waits for this session, or calls of every priority wait for the result: a token
    /// request, a queue look-up.
    Interactive,
    /// A batch row, or the recovery of an interrupted session.
    Background,
}
