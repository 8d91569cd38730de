//! Who goes first when the quota makes calls wait.

use std::future::Future;

tokio::task_local! {
    static CURRENT: Priority;
}

/// Who goes first when the quota makes calls wait. It goes along with a task as a trace does. A task that is spawned on the way begins anew as
/// [`Interactive`](Self::Interactive): what it does (a sign-in, the look at a queue) is waited for by all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Somebody waits for this session.
    Interactive,
    /// A row of a batch, or a session that was left behind.
    Background,
}

impl Priority {
    /// Does `work` with this priority.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }

    pub(crate) fn current() -> Self {
        CURRENT.try_get().unwrap_or(Self::Interactive)
    }
}
