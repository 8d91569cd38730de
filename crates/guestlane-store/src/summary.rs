//! What the ledger says of how it goes: counts by state, errors (requirement R12,
//! docs/requirements.md), latency (requirement R13, docs/requirements.md).

use std::{collections::BTreeMap, time::Duration};

use guestlane_genesys::ErrorCounts;
use serde::Serialize;

/// How long sessions took, those that are forgotten included. Milliseconds; percentiles and the maximum to a thousandth, the rest exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencySummary {
    /// Sessions that were opened.
    pub count: u64,
    /// The mean.
    pub mean: f64,
    /// Half were quicker.
    pub p50: f64,
    /// 90 of 100 were quicker.
    pub p90: f64,
    /// 99 of 100 were quicker.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// What the store knows of how it goes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Sessions by state.
    pub sessions: BTreeMap<String, u64>,
    /// CRM events by state.
    pub events: BTreeMap<String, u64>,
    /// Errors by category.
    pub errors: ErrorCounts,
    /// How long sessions took to open (requirement R13, docs/requirements.md).
    pub latency: LatencySummary,
}

/// Errors by the names under which they are counted.
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

/// And back.
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

/// What is counted of sessions that are forgotten, by state.
pub(super) const PRUNED_SESSIONS: &str = "pruned sessions ";
/// And of their events.
pub(super) const PRUNED_EVENTS: &str = "pruned events ";
/// The sum, in microseconds.
pub(super) const PRUNED_LATENCY: &str = "pruned latency";

/// Up, by less than a thousandth: however many latencies there are, there are some ten thousand values of them.
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
    fn a_latency_is_rounded_up_by_less_than_a_thousandth_and_only_once() {
        for micros in [0, 1, 2047, 2048, 2049, 123_456, 60_000_000, u64::MAX] {
            let up = rounded(micros);
            assert!(
                up >= micros && up - micros <= micros / 1000 && rounded(up) == up,
                "{micros} {up}"
            );
        }
    }

    #[test]
    fn a_rank_is_the_smallest_value_that_so_many_do_not_exceed() {
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
