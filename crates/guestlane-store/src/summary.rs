//! The summary of the store: counts by state, error counts (requirement R12, docs/requirements.md)
//! and latency (requirement R13, docs/requirements.md).

use std::{collections::BTreeMap, time::Duration};

use guestlane_genesys::ErrorCounts;
use serde::Serialize;

/// How long sessions took to open, including pruned ones, in milliseconds. Percentiles and the
/// maximum are exact to one thousandth, the other values are exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencySummary {
    /// Number of sessions that were opened.
    pub count: u64,
    /// The mean latency.
    pub mean: f64,
    /// The 50th percentile.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The maximum.
    pub max: f64,
}

/// The counts and latencies of a store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Sessions by state.
    pub sessions: BTreeMap<String, u64>,
    /// Outbox events by state.
    pub events: BTreeMap<String, u64>,
    /// Errors by category.
    pub errors: ErrorCounts,
    /// How long sessions took to open (requirement R13, docs/requirements.md).
    pub latency: LatencySummary,
}

/// Returns the error counts that are not zero, by the names of their counters.
pub(super) fn named(errors: &ErrorCounts) -> impl Iterator<Item = (&'static str, u64)> {
    let values = [
        ("total", errors.total),
        ("tokenValidation", errors.token_validation),
        ("rateLimit", errors.rate_limit),
        ("auth", errors.auth),
        ("network", errors.network),
    ];
    values.into_iter().filter(|(_, value)| *value > 0)
}

/// Returns the error counts for counters by name, the inverse of [`named`].
pub(super) fn errors_of(counts: &BTreeMap<String, u64>) -> ErrorCounts {
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    ErrorCounts {
        total: count("total"),
        token_validation: count("tokenValidation"),
        rate_limit: count("rateLimit"),
        auth: count("auth"),
        network: count("network"),
    }
}

/// Prefix of the counters of pruned sessions, by state.
pub(super) const PRUNED_SESSIONS: &str = "pruned sessions ";
/// Prefix of the counters of pruned events, by state.
pub(super) const PRUNED_EVENTS: &str = "pruned events ";
/// Name of the counter with the sum of pruned latencies, in microseconds.
pub(super) const PRUNED_LATENCY: &str = "pruned latency";

/// Rounds a latency up by less than one thousandth, so that at most about ten thousand different
/// values exist.
pub(super) fn rounded(micros: u64) -> u64 {
    let low = (u64::BITS - micros.leading_zeros()).saturating_sub(11);
    micros | ((1 << low) - 1)
}

#[derive(Default)]
pub(super) struct Latencies {
    sessions: BTreeMap<u64, u64>,
    pub(super) sum: u64,
}

impl Latencies {
    pub(super) fn add(&mut self, micros: u64, sessions: u64) {
        *self.sessions.entry(rounded(micros)).or_default() += sessions;
    }

    pub(super) fn summary(&self) -> LatencySummary {
        let count: u64 = self.sessions.values().sum();
        let Some((max, _)) = self.sessions.last_key_value() else {
            return LatencySummary::default();
        };
        let ms = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1000.0;
        // The nearest rank: the smallest value that at least this share does not exceed.
        let rank = |percent: u64| {
            let mut left = (count * percent).div_ceil(100).max(1);
            let value = self.sessions.iter().find(|(_, sessions)| {
                let found = left <= **sessions;
                left = left.saturating_sub(**sessions);
                found
            });
            ms(*value.map_or(max, |(value, _)| value))
        };
        LatencySummary {
            count,
            mean: ms(self.sum) / count as f64,
            p50: rank(50),
            p90: rank(90),
            p99: rank(99),
            max: ms(*max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_rounds_up_by_at_most_a_thousandth_and_only_once() {
        for micros in [0, 1, 2047, 2048, 2049, 123_456, 60_000_000, u64::MAX] {
            let up = rounded(micros);
            assert!(
                up >= micros && up - micros <= micros / 1000 && rounded(up) == up,
                "{micros} {up}"
            );
        }
    }

    #[test]
    fn percentiles_are_within_a_thousandth_of_exact() {
        let mut latencies = Latencies::default();
        for ms in 1..=200_u64 {
            latencies.add(ms * 1000, 1);
            latencies.sum += ms * 1000;
        }
        let LatencySummary {
            count,
            mean,
            p50,
            p90,
            p99,
            max,
        } = latencies.summary();
        assert_eq!((count, mean), (200, 100.5));
        for (found, exact) in [(p50, 100.0), (p90, 180.0), (p99, 198.0), (max, 200.0)] {
            assert!(found >= exact && found < exact * 1.001, "{found} {exact}");
        }
    }
}
