//! Samples the service once a second, for the dashboard and the metrics.

use std::{sync::Arc, time::Duration};

use guestlane_runtime::{HistogramSnapshot, Timestamp};
use guestlane_store::log_failure;

use crate::{
    model::{
        AuditStatus, ClientQuota, Latency, OutboxStatus, Overview, RecentError, Series,
        SessionCounts, SigningKeyStatus,
    },
    samples::{Ring, Snapshot},
    service::Service,
};

const SECOND: Duration = Duration::from_secs(1);

/// Seconds that the latency percentiles cover.
const LATENCY: usize = 300;

/// Takes a sample every second.
pub(crate) struct Sampler<'a> {
    service: &'a Service,
    latencies: Ring<Option<HistogramSnapshot>>,
    failures: u64,
    client_calls: Vec<u64>,
}

impl<'a> Sampler<'a> {
    pub(crate) fn new(service: &'a Service) -> Self {
        Self {
            service,
            latencies: Ring::new(LATENCY),
            failures: 0,
            client_calls: Vec::new(),
        }
    }

    /// Takes samples for as long as it is polled.
    pub(crate) async fn run(mut self) {
        let mut watched =
            Snapshot::at(self.service.clock().now(), self.service.clock().monotonic());
        let mut before = self.service.engine().metrics().latency();
        loop {
            self.service.clock().sleep(SECOND).await;
            let engine = self.service.engine();
            let now = engine.metrics().latency();
            let second = now.since(&before);
            let failures = engine
                .metrics()
                .failures_by_code()
                .values()
                .map(|problem| problem.count)
                .sum::<u64>();
            let calls: Vec<_> = engine
                .client_usage()
                .iter()
                .map(|client| client.calls)
                .collect();
            watched.opened.push(second.count());
            watched.failed.push(failures - self.failures);
            watched.p50_ms.push(second.quantile(0.5).map(millis));
            watched.p99_ms.push(second.quantile(0.99).map(millis));
            let five_minutes_ago = self.latencies.iter().next().cloned().flatten();
            watched.latency =
                latency(&five_minutes_ago.map_or_else(|| now.clone(), |then| now.since(&then)));
            watched.calls = calls
                .iter()
                .zip(self.client_calls.iter().chain(std::iter::repeat(&0)))
                .map(|(n, b)| n - b)
                .collect();
            (self.failures, self.client_calls) = (failures, calls);
            self.latencies.push(Some(before));
            before = now;
            watched.until = self.service.clock().now();
            match engine.store().gauges().await {
                Ok(standing) => {
                    watched.standing = Some(standing);
                    watched.read_at = self.service.clock().monotonic();
                }
                Err(error) => {
                    log_failure(&error, "failed to read the store; its metrics are omitted");
                    watched.standing = None;
                }
            }
            let written = watched.standing.and_then(|standing| standing.audit);
            watched.audit_behind = written.map_or(0, |(log, size)| {
                size.saturating_sub(engine.audit_signed(log).unwrap_or(0))
            });
            self.service
                .snapshot()
                .send_replace(Arc::new(watched.clone()));
        }
    }
}

fn millis(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e3
}

fn latency(counted: &HistogramSnapshot) -> Option<Latency> {
    let quantile = |share| counted.quantile(share).map(millis);
    Some(Latency {
        count: counted.count(),
        p50_ms: quantile(0.5)?,
        p90_ms: quantile(0.9)?,
        p99_ms: quantile(0.99)?,
    })
}

/// The overview of the service, for a caller whose API key has `scopes`.
pub(crate) fn overview(service: &Service, scopes: Vec<&'static str>) -> Overview {
    let (engine, watched) = (service.engine(), service.snapshot().borrow().clone());
    let now = service.clock().now();
    let standing = watched.standing.unwrap_or_default();
    let since = |moment: Option<Timestamp>| moment.map(|moment| now.since(moment).as_secs_f64());
    let mut problems: Vec<_> = engine.metrics().failures_by_code().into_iter().collect();
    problems.sort_by_key(|(_, problem)| std::cmp::Reverse(problem.last_at));
    let clients = engine
        .client_usage()
        .into_iter()
        .zip(1..)
        .map(|(client, number)| ClientQuota {
            client: number.to_string(),
            limit_per_second: client.allowed.map(|rate| rate.per_second()),
            used_share: client
                .allowed
                .map_or(0.0, |rate| f64::from(client.used) / f64::from(rate.calls())),
            calls_per_second: watched.calls.get(number - 1).copied().unwrap_or(0) as f64,
            throttled: client.throttled,
            quarantine_reason: client.quarantined.then_some("its authentication failed"),
        });
    let keys = engine
        .keyring()
        .list(now)
        .into_iter()
        .map(|key| SigningKeyStatus {
            age_seconds: now.since(key.created_at).as_secs_f64(),
            active_from: key.active_from,
            kid: key.kid,
            state: key.state.name(),
            created_at: key.created_at,
        });
    Overview {
        now,
        version: env!("CARGO_PKG_VERSION"),
        surface: engine.surface().name(),
        started_at: service.started_at(),
        scopes,
        sessions: SessionCounts {
            open: engine.metrics().latency().count(),
            failed: standing.failed,
            unfinished: standing.unfinished,
            needs_attention: standing.needs_attention,
            oldest_unfinished_seconds: since(standing.oldest_unfinished),
        },
        series: Series {
            until: watched.until,
            opened: watched.opened.iter().copied().collect(),
            failed: watched.failed.iter().copied().collect(),
            p50_ms: watched.p50_ms.iter().copied().collect(),
            p99_ms: watched.p99_ms.iter().copied().collect(),
        },
        latency: watched.latency.clone(),
        clients: clients.collect(),
        errors: engine.error_counts().into(),
        problems: problems
            .into_iter()
            .map(|(code, problem)| RecentError::new(code, problem))
            .collect(),
        outbox: OutboxStatus {
            pending: standing.pending_events,
            dead: standing.dead_events,
            oldest_pending_seconds: since(standing.oldest_event),
            endpoints: engine
                .outbox()
                .map_or(0, guestlane::outbox::Outbox::endpoint_count),
        },
        audit: AuditStatus {
            size: standing.audit.map_or(0, |(_, size)| size),
            behind: watched.audit_behind,
        },
        keys: keys.collect(),
    }
}
