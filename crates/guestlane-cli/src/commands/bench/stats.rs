//! Results of a run, and the medians of several runs.

use std::time::Duration;

use serde::Serialize;

use crate::output;

/// Results of one run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Figures {
    pub(super) sessions: u64,
    pub(super) failed: u64,
    pub(super) seconds: f64,
    pub(super) sessions_per_second: f64,
    /// CPU time of this process, without the simulator's process.
    pub(super) cpu_ms_per_session: f64,
    pub(super) latency_ms: Latency,
    pub(super) calls_per_session: f64,
    /// Percentage of calls that were answered 429.
    pub(super) throttled_percent: f64,
    /// Calls as a percentage of those that the rate limit allows during the run. Absent without a
    /// rate limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) quota_percent: Option<f64>,
    /// Peak memory of this process so far, over all its runs.
    pub(super) resident_mib: f64,
}

/// Latency of sessions, from the request to the open session.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
    /// Latencies at [`SHARES`], for the chart.
    #[serde(skip)]
    pub(super) curve: Vec<f64>,
}

/// The percentiles at which the chart has points.
pub(super) const SHARES: [f64; 13] = [
    0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999,
];

impl Latency {
    pub(super) fn of(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        // Percentile by nearest rank: the smallest value that at least this share of values does
        // not exceed.
        let at = |share: f64| {
            let rank = (latencies.len() as f64 * share).ceil() as usize;
            latencies
                .get(rank.max(1) - 1)
                .map_or(0.0, |latency| round(latency.as_secs_f64() * 1000.0))
        };
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: at(1.0),
            curve: SHARES.into_iter().map(at).collect(),
        }
    }
}

impl Figures {
    pub(super) fn summary(&self) -> String {
        format!(
            "{:.0} sessions/s, {:.3} ms of processor time each, p50 {:.2} ms, p99 {:.2} ms",
            self.sessions_per_second,
            self.cpu_ms_per_session,
            self.latency_ms.p50,
            self.latency_ms.p99
        )
    }
}

/// All runs of one plan, with their medians.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) name: &'static str,
    pub(super) median: Figures,
    pub(super) runs: Vec<Figures>,
}

impl Report {
    pub(super) fn of(name: &'static str, runs: Vec<Figures>) -> Self {
        let median = |of: &dyn Fn(&Figures) -> f64| {
            let mut values: Vec<f64> = runs.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            round(values.get(values.len() / 2).copied().unwrap_or_default())
        };
        let curve = (0..SHARES.len())
            .map(|n| median(&|run| run.latency_ms.curve[n]))
            .collect();
        let quota = runs.iter().any(|run| run.quota_percent.is_some());
        let median = Figures {
            sessions: runs.first().map_or(0, |run| run.sessions),
            failed: runs.iter().map(|run| run.failed).sum(),
            seconds: median(&|run| run.seconds),
            sessions_per_second: median(&|run| run.sessions_per_second),
            cpu_ms_per_session: median(&|run| run.cpu_ms_per_session),
            latency_ms: Latency {
                p50: median(&|run| run.latency_ms.p50),
                p90: median(&|run| run.latency_ms.p90),
                p99: median(&|run| run.latency_ms.p99),
                max: median(&|run| run.latency_ms.max),
                curve,
            },
            calls_per_session: median(&|run| run.calls_per_session),
            throttled_percent: median(&|run| run.throttled_percent),
            quota_percent: quota.then(|| median(&|run| run.quota_percent.unwrap_or_default())),
            resident_mib: median(&|run| run.resident_mib),
        };
        Self { name, median, runs }
    }
}

/// Rounds to three decimals, beyond which the measurements are noise.
pub(super) fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

pub(super) fn table(reports: &[Report]) -> String {
    let headings = [
        "medians",
        "sessions/s",
        "CPU ms",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "max ms",
        "calls",
        "429 %",
        "quota %",
        "MiB",
        "failed",
    ];
    output::table(
        &headings,
        reports.iter().map(|report| {
            let Figures {
                latency_ms: latency,
                ..
            } = &report.median;
            let figures = &report.median;
            vec![
                report.name.to_owned(),
                format!("{:.0}", figures.sessions_per_second),
                format!("{:.3}", figures.cpu_ms_per_session),
                format!("{:.2}", latency.p50),
                format!("{:.2}", latency.p90),
                format!("{:.2}", latency.p99),
                format!("{:.1}", latency.max),
                format!("{:.3}", figures.calls_per_session),
                format!("{:.3}", figures.throttled_percent),
                figures
                    .quota_percent
                    .map(|percent| format!("{percent:.1}"))
                    .unwrap_or_default(),
                format!("{:.0}", figures.resident_mib),
                figures.failed.to_string(),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_uses_nearest_rank_median_and_max_failures() {
        let latency = Latency::of((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!(
            (latency.p50, latency.p90, latency.p99, latency.max),
            (50.0, 90.0, 99.0, 100.0)
        );
        assert_eq!(Latency::of(Vec::new()).max, 0.0);
        let run = |rate: f64, failed| Figures {
            sessions: 10,
            failed,
            seconds: 1.0,
            sessions_per_second: rate,
            cpu_ms_per_session: 0.5,
            latency_ms: Latency::of(vec![Duration::from_millis(1)]),
            calls_per_session: 2.0,
            throttled_percent: 0.0,
            quota_percent: None,
            resident_mib: 20.0,
        };
        let report = Report::of("whole", vec![run(3.0, 0), run(1.0, 2), run(2.0, 0)]);
        assert_eq!(
            (report.median.sessions_per_second, report.median.failed),
            (2.0, 2),
            "a failure is never outvoted"
        );
    }
}
