//! The samples of the last minutes, for the dashboard and the metrics.

use std::collections::VecDeque;

use guestlane_runtime::Timestamp;
use guestlane_store::StoreGauges;

use crate::model::Latency;

/// Seconds that the chart shows.
pub(crate) const CHART: usize = 60;

/// The samples of the last minutes, as of `until`.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) until: Timestamp,
    /// When the store was last read successfully, by the monotonic clock.
    pub(crate) read_at: Timestamp,
    /// The store's gauges, or `None` if the last read failed.
    pub(crate) standing: Option<StoreGauges>,
    /// Number of audit records in the store that are not yet in the signed part of the audit log's
    /// file.
    pub(crate) audit_behind: u64,
    pub(crate) opened: Ring<u64>,
    pub(crate) failed: Ring<u64>,
    pub(crate) p50_ms: Ring<Option<f64>>,
    pub(crate) p99_ms: Ring<Option<f64>>,
    pub(crate) latency: Option<Latency>,
    pub(crate) calls: Vec<u64>,
}

impl Snapshot {
    pub(crate) fn at(until: Timestamp, read_at: Timestamp) -> Self {
        Self {
            until,
            read_at,
            standing: None,
            audit_behind: 0,
            opened: Ring::new(CHART),
            failed: Ring::new(CHART),
            p50_ms: Ring::new(CHART),
            p99_ms: Ring::new(CHART),
            latency: None,
            calls: Vec::new(),
        }
    }
}

/// A ring buffer of one value per second.
#[derive(Debug, Clone)]
pub(crate) struct Ring<T>(VecDeque<T>);

impl<T: Clone + Default> Ring<T> {
    pub(crate) fn new(length: usize) -> Self {
        Self(std::iter::repeat_n(T::default(), length).collect())
    }

    pub(crate) fn push(&mut self, value: T) {
        self.0.pop_front();
        self.0.push_back(value);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}
