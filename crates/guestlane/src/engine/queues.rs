//! Queues that are known to exist (requirement R14, docs/requirements.md).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use guestlane_core::request::QueueId;
use guestlane_genesys::{CallContext, CallError, GenesysClient, Operation};
use guestlane_runtime::{Clock, Timestamp};

/// How long a queue that exists is not looked up again.
const TTL: Duration = Duration::from_secs(300);

/// A cache of queues that exist. Concurrent look-ups of a queue share one call (single flight).
#[derive(Debug, Clone)]
pub(crate) struct QueueCache {
    platform: Arc<GenesysClient>,
    clock: Clock,
    /// Time limit of a look-up.
    deadline: Duration,
    queues: Arc<Mutex<HashMap<QueueId, Entry>>>,
}

type Lookup = Shared<BoxFuture<'static, Result<(), CallError>>>;

#[derive(Debug, Clone)]
enum Entry {
    Exists { until: Timestamp },
    Fetching(Lookup),
}

impl QueueCache {
    pub(crate) fn new(platform: Arc<GenesysClient>, clock: Clock, deadline: Duration) -> Self {
        Self {
            platform,
            clock,
            deadline,
            queues: Arc::default(),
        }
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<QueueId, Entry>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the queue is known to exist.
    pub(crate) fn contains(&self, queue: QueueId) -> bool {
        let now = self.clock.now();
        matches!(self.queues().get(&queue), Some(Entry::Exists { until }) if now < *until)
    }

    /// Removes a queue, so that the next session looks it up again.
    pub(crate) fn remove(&self, queue: QueueId) {
        self.queues().remove(&queue);
    }

    /// Looks a queue up, unless it is known to exist.
    pub(crate) async fn fetch(&self, queue: QueueId) -> Result<(), CallError> {
        let lookup = {
            let mut queues = self.queues();
            match queues.get(&queue) {
                Some(Entry::Exists { until }) if self.clock.now() < *until => return Ok(()),
                Some(Entry::Fetching(lookup)) if lookup.peek().is_none() => lookup.clone(),
                _ => {
                    let lookup = self.start_lookup(queue);
                    queues.insert(queue, Entry::Fetching(lookup.clone()));
                    lookup
                }
            }
        };
        let found = lookup.await;
        let until = self.clock.now() + TTL;
        match &found {
            Ok(()) => self.queues().insert(queue, Entry::Exists { until }),
            Err(_) => self.queues().remove(&queue),
        };
        found
    }

    /// Makes the call in a task with its own deadline: the first caller may drop its future, and the
    /// other callers must still get a result.
    fn start_lookup(&self, queue: QueueId) -> Lookup {
        let platform = Arc::clone(&self.platform);
        let context = CallContext::until(self.clock.now() + self.deadline);
        let call = tokio::spawn(async move { platform.queue(queue.0, &context).await.map(drop) });
        let interrupted = || CallError::not_sent(Operation::Queue, "the process is shutting down");
        call.map(move |ended| ended.unwrap_or_else(|_| Err(interrupted())))
            .boxed()
            .shared()
    }
}
