//! Histogram of durations: counts per bucket, of a fixed size.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Histogram of durations. `bounds` are the upper bounds of the buckets, in seconds and ascending.
/// Longer durations count in a last bucket without a bound.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    micros: AtomicU64,
}

/// A snapshot of a histogram.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramSnapshot {
    /// The upper bounds of the buckets, in seconds.
    pub bounds: &'static [f64],
    /// The count per bucket; the last bucket has no upper bound.
    pub counts: Vec<u64>,
    /// The sum of all durations, in seconds.
    pub sum: f64,
}

impl Histogram {
    /// Upper bounds for HTTP requests, in seconds. OpenTelemetry advises them for
    /// `http.client.request.duration` and `http.server.request.duration`.
    pub const HTTP_BOUNDS: &[f64] = &[
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    ];

    /// Creates an empty histogram.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            micros: AtomicU64::new(0),
        }
    }

    /// Records one duration.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.micros.fetch_add(
            u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }

    /// Returns a snapshot.
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            bounds: self.bounds,
            counts: self
                .counts
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .collect(),
            sum: self.micros.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }
}

impl HistogramSnapshot {
    /// Returns the number of durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the durations recorded after `earlier`, which must have the same bounds.
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = self
            .counts
            .iter()
            .zip(&earlier.counts)
            .map(|(now, then)| now.saturating_sub(*then))
            .collect();
        Self {
            bounds: self.bounds,
            counts,
            sum: (self.sum - earlier.sum).max(0.0),
        }
    }

    /// Returns the duration that the given share (0 to 1) does not exceed, in seconds, by linear
    /// interpolation within a bucket. Returns `None` for an empty histogram.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = self.count() as f64 * share;
        let mut below = 0.0;
        let mut lower = 0.0;
        for (bucket, count) in self
            .counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
        {
            let upper = self
                .bounds
                .get(bucket)
                .or(self.bounds.last())
                .copied()
                .unwrap_or(0.0);
            let from = bucket
                .checked_sub(1)
                .and_then(|before| self.bounds.get(before))
                .copied()
                .unwrap_or(0.0);
            lower = upper;
            if below + *count as f64 >= wanted {
                let within = from + (upper - from).max(0.0) * (wanted - below) / *count as f64;
                return Some(within.min(upper)); // rounding may exceed the bound
            }
            below += *count as f64;
        }
        (self.count() > 0).then_some(lower)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: &[f64] = &[0.001, 0.01, 0.1, 1.0];

    #[test]
    fn duration_at_a_bucket_bound_counts_in_that_bucket() {
        let histogram = Histogram::new(BOUNDS);
        for millis in [0, 1, 2, 10, 1000, 1001] {
            histogram.observe(Duration::from_millis(millis));
        }
        let counted = histogram.snapshot();
        assert_eq!(
            (counted.counts.as_slice(), counted.count()),
            ([2, 2, 0, 1, 1].as_slice(), 6)
        );
        assert!((counted.sum - 2.014).abs() < 1e-9);
        assert_eq!(Histogram::new(BOUNDS).snapshot().quantile(0.5), None);
    }

    #[test]
    fn maximum_quantile_is_exactly_the_bucket_bound() {
        let histogram = Histogram::new(BOUNDS);
        (0..37).for_each(|_| histogram.observe(Duration::from_millis(101)));
        assert_eq!(histogram.snapshot().quantile(1.0), Some(1.0));
    }

    proptest! {
        #[test]
        fn quantile_lies_in_the_bucket_of_the_exact_value(mut millis in prop::collection::vec(0_u64..900, 1..200), percent in 1_u32..=100) {
            let histogram = Histogram::new(BOUNDS);
            millis.iter().for_each(|millis| histogram.observe(Duration::from_millis(*millis)));
            millis.sort_unstable();
            let rank = (millis.len() * percent as usize).div_ceil(100).max(1) - 1;
            let exact = millis[rank] as f64 / 1000.0;
            let upper = BOUNDS.iter().copied().find(|bound| *bound >= exact).unwrap();
            let lower = BOUNDS.iter().copied().rev().find(|bound| *bound < exact).unwrap_or(0.0);
            let found = histogram.snapshot().quantile(f64::from(percent) / 100.0).unwrap();
            prop_assert!(found >= lower && found <= upper, "{lower} {found} {upper}");
        }
    }
}
