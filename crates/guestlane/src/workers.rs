//! The background work of a process.

use std::sync::Arc;

use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};

use crate::engine::SessionEngine;

/// The background workers of a process. They resume abandoned sessions, deliver webhooks, delete
/// sessions whose retention is over, rotate signing keys, and count sealed values.
///
/// Every process that creates sessions runs them: without workers, a session whose caller has gone
/// stays unfinished, and webhooks are not delivered.
#[derive(Debug)]
#[must_use = "workers do nothing unless `run` is polled"]
pub struct Workers {
    engine: Arc<SessionEngine>,
}

impl Workers {
    /// Creates the workers of an engine.
    pub fn new(engine: Arc<SessionEngine>) -> Self {
        Self { engine }
    }

    /// Runs the workers. The future never completes; dropping it stops them. What they had begun is
    /// continued by another process, or by this one after its next start.
    pub async fn run(self) {
        let engine = &*self.engine;
        let deliver = async {
            match engine.outbox() {
                Some(outbox) => outbox.run().await,
                None => std::future::pending().await,
            }
        };
        // On the heap, so that a caller's own futures do not nest around all of them.
        let loops: [BoxFuture<'_, ()>; 5] = [
            engine.recovery_loop().boxed(),
            deliver.boxed(),
            engine.prune_loop().boxed(),
            engine.rotation_loop().boxed(),
            engine.keep_counting_seals().boxed(),
        ];
        join_all(loops).await;
    }
}
