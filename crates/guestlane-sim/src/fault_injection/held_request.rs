//! The count of requests that are held open without a response.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Counts a request as held open without a response, until this guard is dropped.
#[derive(Debug)]
pub(crate) struct HeldRequest(Arc<AtomicU64>);

impl HeldRequest {
    pub(crate) fn new(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for HeldRequest {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
