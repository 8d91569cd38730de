//! Priority of calls that wait for the rate limiter.

use std::future::Future;

tokio::task_local! {
    static CURRENT: Priority;
}

/// Priority of calls that wait for the rate limiter. It is a task-local value, like a trace
/// context.
///
/// A spawned task starts as [`Interactive`](Self::Interactive): its work (a token request, a queue
/// look-up) may block calls of every priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A caller waits for this session.
    Interactive,
    /// A batch row, or the recovery of an interrupted session.
    Background,
}

impl Priority {
    /// Runs `work` with this priority.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }

    pub(crate) fn current() -> Self {
        CURRENT.try_get().unwrap_or(Self::Interactive)
    }
}
