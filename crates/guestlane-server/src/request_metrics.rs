//! Metrics of the requests to the service.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use guestlane_runtime::{Histogram, HistogramSnapshot};

/// The labels under which requests are counted. They have the route, never the path, which contains
/// IDs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RouteLabels {
    pub(crate) method: &'static str,
    pub(crate) route: String,
    pub(crate) status: u16,
    /// The problem's code, if the response is a problem.
    pub(crate) problem: Option<&'static str>,
}

/// Counts and durations of requests.
#[derive(Debug, Default)]
pub(crate) struct RequestMetrics {
    requests: Mutex<BTreeMap<RouteLabels, Arc<Histogram>>>,
    active: AtomicI64,
    unauthenticated: AtomicU64,
}

impl RequestMetrics {
    /// Counts a request as in flight.
    pub(crate) fn began(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends the request that [`began`](Self::began) counted.
    pub(crate) fn gone(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// Records the duration of an answered request.
    pub(crate) fn answered(&self, kind: RouteLabels, took: Duration) {
        let histogram = {
            let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(
                requests
                    .entry(kind)
                    .or_insert_with(|| Arc::new(Histogram::new(Histogram::HTTP_BOUNDS))),
            )
        };
        histogram.observe(took);
    }

    pub(crate) fn requests(&self) -> Vec<(RouteLabels, HistogramSnapshot)> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests
            .iter()
            .map(|(kind, took)| (kind.clone(), took.snapshot()))
            .collect()
    }

    /// Number of requests in flight.
    pub(crate) fn active(&self) -> i64 {
        self.active.load(Ordering::Relaxed)
    }

    /// Counts a request whose API key was missing or not accepted.
    pub(crate) fn authentication_failed(&self) {
        self.unauthenticated.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn authentication_failures(&self) -> u64 {
        self.unauthenticated.load(Ordering::Relaxed)
    }
}
