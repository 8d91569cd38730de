//! `/metrics` for Prometheus: the OpenMetrics format if the client accepts it, else the older text
//! format. HTTP server and client metrics have OpenTelemetry's names; all others begin with
//! `guestlane_`. No label contains an ID or data of a guest.

mod families;

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use axum::{Router, extract::State, response::IntoResponse, routing::get};
use families::{backlog, calls, keys, process, quota, requests, sessions};
use guestlane_runtime::HistogramSnapshot;
use http::{HeaderMap, header};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, text::encode},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use crate::{readiness, service::Service};

/// The router of the metrics listener, which requires no API key.
pub(crate) fn router(service: &Arc<Service>, scheme: &'static str) -> Router {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(ServiceCollector {
        service: Arc::clone(service),
        scheme,
        others: AtomicU64::new(0),
    }));
    Router::new()
        .route("/metrics", get(scrape))
        .with_state(Arc::new(registry))
}

async fn scrape(State(registry): State<Arc<Registry>>, headers: HeaderMap) -> impl IntoResponse {
    let mut text = String::new();
    let _ = encode(&mut text, &registry);
    let accepted = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    if accepted
        .into_iter()
        .any(|value| value.contains("application/openmetrics-text"))
    {
        (
            [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            text,
        )
    } else {
        (
            [(
                header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            )],
            as_plain_text(&text),
        )
    }
}

/// Converts OpenMetrics to Prometheus' older text format. There, the family of a counter has the
/// name of its samples (`…_total`), and there are no `# UNIT` and `# EOF` lines.
fn as_plain_text(open: &str) -> String {
    let mut plain = String::with_capacity(open.len());
    let lines: Vec<&str> = open.lines().collect();
    let is_counter = |line: Option<&&str>| {
        line.is_some_and(|line| line.starts_with("# TYPE ") && line.ends_with(" counter"))
    };
    for (at, line) in lines.iter().enumerate() {
        let counts = (line.starts_with("# HELP ") && is_counter(lines.get(at + 1)))
            || is_counter(Some(line));
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("UNIT" | "EOF"), ..) => continue,
            (Some(hash), Some(keyword), Some(name), Some(rest)) if counts => {
                plain.extend([hash, " ", keyword, " ", name, "_total ", rest]);
            }
            _ => plain.push_str(line),
        }
        plain.push('\n');
    }
    plain
}

/// Collects all metrics at scrape time from the components that count them, so that no count is
/// kept twice.
#[derive(Debug)]
struct ServiceCollector {
    service: Arc<Service>,
    /// The URL scheme of the service's own listener.
    scheme: &'static str,
    /// Errors without a category, as of the last scrape.
    others: AtomicU64,
}

/// One metric family.
struct Family<'a>(MetricEncoder<'a>);

impl Family<'_> {
    fn count(&mut self, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
        self.0
            .encode_family(labels)?
            .encode_counter::<[(&str, &str); 0], _, u64>(&value, None)
    }

    fn gauge(&mut self, labels: &impl EncodeLabelSet, value: f64) -> fmt::Result {
        self.0.encode_family(labels)?.encode_gauge(&value)
    }

    fn histogram(
        &mut self,
        labels: &impl EncodeLabelSet,
        counted: &HistogramSnapshot,
    ) -> fmt::Result {
        let bounds = counted.bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(counted.counts.iter().copied()).collect();
        self.0
            .encode_family(labels)?
            .encode_histogram::<[(&str, &str); 0]>(counted.sum, counted.count(), &buckets, None)
    }
}

/// Encoder of one scrape.
struct MetricsEncoder<'a>(DescriptorEncoder<'a>);

impl MetricsEncoder<'_> {
    fn counters<'s>(&'s mut self, name: &'s str, help: &'s str) -> Result<Family<'s>, fmt::Error> {
        self.0
            .encode_descriptor(name, help, None, MetricType::Counter)
            .map(Family)
    }

    fn gauges<'s>(&'s mut self, name: &'s str, help: &'s str) -> Result<Family<'s>, fmt::Error> {
        self.0
            .encode_descriptor(name, help, None, MetricType::Gauge)
            .map(Family)
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.gauges(name, help)?.0.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counters(name, help)?
            .0
            .encode_counter::<[(&str, &str); 0], _, u64>(&value, None)
    }

    fn seconds_spent(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.counters(name, help)?
            .0
            .encode_counter::<[(&str, &str); 0], _, f64>(&value, None)
    }

    fn seconds<'s>(&'s mut self, name: &'s str, help: &'s str) -> Result<Family<'s>, fmt::Error> {
        self.0
            .encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)
            .map(Family)
    }
}

impl Collector for ServiceCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = MetricsEncoder(encoder);
        let service = &self.service;
        requests(&mut page, service, self.scheme)?;
        calls(&mut page, service)?;
        sessions(&mut page, service, &self.others)?;
        quota(&mut page, service)?;
        let watched = service.snapshot().borrow().clone();
        page.gauge(
            "guestlane_store_up",
            "Whether the last read of the store succeeded.",
            f64::from(u8::from(
                watched.standing.is_some() && readiness::is_readable(service),
            )),
        )?;
        page.gauge(
            "guestlane_store_writable",
            "Whether the last commit to the store succeeded.",
            f64::from(u8::from(readiness::is_writable(service))),
        )?;
        page.gauge(
            "guestlane_ready",
            "Whether /readyz answers 200.",
            f64::from(u8::from(readiness::check(service).is_ok())),
        )?;
        // Without a readable store, these metrics are absent: zeros would be wrong.
        if let Some(standing) = &watched.standing {
            backlog(&mut page, service, standing, watched.audit_behind)?;
        }
        page.gauge(
            "guestlane_api_keys_age_seconds",
            "Seconds since the API keys were last read from the store; above 30 every request is \
             rejected.",
            service.keys_age().as_secs_f64(),
        )?;
        page.gauge(
            "guestlane_api_keys_unreadable",
            "API keys whose rows cannot be read and which are rejected.",
            service.keys().unreadable() as f64,
        )?;
        if let Some(offset) = service.engine().store().clock_offset() {
            let help = "Seconds by which this machine's clock is ahead of the database's; above 2 \
                nothing is claimed or deleted.";
            page.gauge("guestlane_clock_offset_seconds", help, offset)?;
        }
        keys(&mut page, service)?;
        page.counter(
            "guestlane_trace_export_failures",
            "Failed requests to the trace collector, whose spans are lost.",
            guestlane_runtime::trace_context::COLLECTOR.failures(),
        )?;
        process(&mut page, service)
    }
}
