//! `/metrics`: how it goes, for Prometheus, in the OpenMetrics format. Requests and calls have OpenTelemetry's names; the rest is `guestlane_…`. No
//! label has an id or anything of a guest in it.

use std::{fmt, fs, sync::Arc};

use axum::{Router, extract::State, response::IntoResponse, routing::get};
use guestlane::{Counted, store::Standing};
use http::header;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, text::encode},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use crate::service::Service;

/// The metrics' own router: on a listener of its own, without a key.
pub(crate) fn router(service: &Arc<Service>) -> Router {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Everything(Arc::clone(service))));
    Router::new().route("/metrics", get(scrape)).with_state(Arc::new(registry))
}

async fn scrape(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
    let mut text = String::new();
    let _ = encode(&mut text, &registry); // into a String, which takes all
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}

/// Read when it is asked for: nothing is counted twice.
#[derive(Debug)]
struct Everything(Arc<Service>);

type Told = Result<(), fmt::Error>;

/// One family of metrics.
struct Family<'a>(MetricEncoder<'a>);

impl Family<'_> {
    fn count(&mut self, labels: &impl EncodeLabelSet, value: u64) -> Told {
        self.0.encode_family(labels)?.encode_counter::<[(&str, &str); 0], _, u64>(&value, None)
    }

    fn gauge(&mut self, labels: &impl EncodeLabelSet, value: f64) -> Told {
        self.0.encode_family(labels)?.encode_gauge(&value)
    }

    fn histogram(&mut self, labels: &impl EncodeLabelSet, counted: &Counted) -> Told {
        let bounds = counted.bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(counted.counts.iter().copied()).collect();
        self.0.encode_family(labels)?.encode_histogram::<[(&str, &str); 0]>(counted.sum, counted.count(), &buckets, None)
    }
}

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counters<'s>(&'s mut self, name: &'s str, help: &'s str) -> Result<Family<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, MetricType::Counter).map(Family)
    }

    fn gauges<'s>(&'s mut self, name: &'s str, help: &'s str) -> Result<Family<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge).map(Family)
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> Told {
        self.gauges(name, help)?.0.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Told {
        self.counters(name, help)?.0.encode_counter::<[(&str, &str); 0], _, u64>(&value, None)
    }

    fn seconds<'s>(&'s mut self, name: &'s str, help: &'s str) -> Result<Family<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram).map(Family)
    }
}

impl Collector for Everything {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Told {
        let mut page = Page(encoder);
        let service = &self.0;
        requests(&mut page, service)?;
        calls(&mut page, service)?;
        sessions(&mut page, service)?;
        quota(&mut page, service)?;
        let watched = service.watched().borrow().clone();
        page.gauge(
            "guestlane_store_up",
            "Whether the store answered the last time.",
            f64::from(u8::from(watched.standing.is_some())),
        )?;
        waiting(&mut page, service, &watched.standing.unwrap_or_default())?;
        page.gauge(
            "guestlane_audit_behind",
            "Records that the store has and the audit log's file has not.",
            watched.audit_behind as f64,
        )?;
        keys(&mut page, service)?;
        process(&mut page)
    }
}

fn requests(page: &mut Page<'_>, service: &Service) -> Told {
    let mut family = page.seconds("http_server_request_duration", "How long requests to the service took.")?;
    for (kind, took) in service.figures().requests() {
        let status = kind.status.to_string();
        let labels = [
            ("http_request_method", kind.method),
            ("http_route", kind.route.as_str()),
            ("http_response_status_code", status.as_str()),
            ("error_type", kind.problem.unwrap_or("")),
        ];
        family.histogram(&labels, &took)?;
    }
    page.gauge("http_server_active_requests", "Requests under way.", service.figures().active() as f64)?;
    let connections = service.figures().connections().load(std::sync::atomic::Ordering::Relaxed);
    page.gauge("guestlane_connections", "Connections to the service.", connections as f64)
}

fn calls(page: &mut Page<'_>, service: &Service) -> Told {
    let stats = service.lane().stats();
    let mut family =
        page.seconds("http_client_request_duration", "How long calls to the platform took, from sending to the answer.")?;
    for timed in stats.durations() {
        let status = timed.status.map(|status| status.to_string()).unwrap_or_default();
        let error = if timed.status.is_some_and(|status| status < 400) {
            ""
        } else if timed.status.is_none() {
            "no_answer"
        } else {
            status.as_str()
        };
        let labels = [
            ("guestlane_operation", timed.operation.name()),
            ("http_response_status_code", status.as_str()),
            ("error_type", error),
        ];
        family.histogram(&labels, &timed.took)?;
    }
    let mut family = page.counters(
        "guestlane_platform_retries",
        "Calls that were made again, by the number of the attempt; the last has all after it.",
    )?;
    for (retries, attempt) in stats.retries().into_iter().zip(2..) {
        family.count(&[("attempt", attempt)], retries)?;
    }
    page.counter("guestlane_platform_throttled", "Calls that the platform answered 429.", stats.throttled())?;
    page.counter("guestlane_oauth_token_requests", "Access tokens that were asked for.", stats.token_requests())?;
    let up = service.lane().outage().is_none();
    page.gauge("guestlane_platform_up", "Whether calls to the platform go well.", f64::from(u8::from(up)))
}

fn sessions(page: &mut Page<'_>, service: &Service) -> Told {
    let lane = service.lane();
    let surface = [("surface", lane.surface().name())];
    let mut family = page.seconds("guestlane_session_initialization", "From the request to the open conversation (R13).")?;
    family.histogram(&surface, &lane.figures().latency())?;
    let mut family =
        page.counters("guestlane_session_failures", "Failures that callers were told, by the code of the problem.")?;
    for (code, problem) in lane.figures().problems() {
        family.count(&[("code", code.name()), ("surface", lane.surface().name())], problem.count)?;
    }
    let errors = lane.error_counts();
    let other = errors.total - errors.token_validation - errors.rate_limit - errors.auth - errors.network;
    let mut family =
        page.counters("guestlane_errors", "Failed attempts by category (R12), of all processes that used this store.")?;
    for (category, count) in [
        ("token_validation", errors.token_validation),
        ("rate_limit", errors.rate_limit),
        ("auth", errors.auth),
        ("network", errors.network),
        ("other", other),
    ] {
        family.count(&[("category", category)], count)?;
    }
    Ok(())
}

fn quota(page: &mut Page<'_>, service: &Service) -> Told {
    let clients = service.lane().clients();
    let numbered = || clients.iter().zip(1_u32..).map(|(client, number)| (client, [("client", number)]));
    let mut family =
        page.gauges("guestlane_quota_calls_per_second", "Calls that the quota allows an OAuth client in a second.")?;
    for (client, label) in numbered() {
        if let Some(rate) = client.allowed {
            family.gauge(&label, rate.in_a_second())?;
        }
    }
    let mut family = page.gauges("guestlane_quota_used_ratio", "How much of the last window's calls is used: 0 to 1.")?;
    for (client, label) in numbered() {
        if let Some(rate) = client.allowed {
            family.gauge(&label, f64::from(client.used) / f64::from(rate.calls()))?;
        }
    }
    let mut family = page.counters("guestlane_quota_calls", "Calls that were sent as an OAuth client.")?;
    for (client, label) in numbered() {
        family.count(&label, client.calls)?;
    }
    let mut family =
        page.gauges("guestlane_client_left_out", "Whether an OAuth client is not used at the moment, because it was refused.")?;
    for (client, label) in numbered() {
        family.gauge(&label, f64::from(u8::from(client.left_out)))?;
    }
    Ok(())
}

fn waiting(page: &mut Page<'_>, service: &Service, standing: &Standing) -> Told {
    let now = service.clock().now();
    let age = |moment: Option<guestlane::Timestamp>| moment.map_or(0.0, |moment| now.since(moment).as_secs_f64());
    let mut family = page.gauges("guestlane_sessions", "Sessions that are not open, by state.")?;
    for (state, count) in
        [("unfinished", standing.unfinished), ("failed", standing.failed), ("needs_attention", standing.needs_attention)]
    {
        family.gauge(&[("state", state)], count as f64)?;
    }
    let help = "How long the oldest unfinished session has been recorded; 0 where there is none.";
    page.gauge("guestlane_oldest_unfinished_session_seconds", help, age(standing.oldest_unfinished))?;
    let mut family = page.gauges("guestlane_outbox_events", "Events that the CRM was not told of, by state.")?;
    for (state, count) in [("pending", standing.pending_events), ("dead", standing.dead_events)] {
        family.gauge(&[("state", state)], count as f64)?;
    }
    page.gauge(
        "guestlane_outbox_lag_seconds",
        "How long the oldest event waits; 0 where there is none.",
        age(standing.oldest_event),
    )?;
    page.gauge(
        "guestlane_audit_records",
        "Records of the audit log that is written.",
        standing.audit.map_or(0, |(_, size)| size) as f64,
    )
}

fn keys(page: &mut Page<'_>, service: &Service) -> Told {
    let now = service.clock().now();
    let mut family = page
        .gauges("guestlane_signing_key_age_seconds", "How long ago the key was made, by its state; of several the youngest.")?;
    let mut youngest: std::collections::BTreeMap<&'static str, f64> = std::collections::BTreeMap::new();
    for key in service.lane().keyring().list(now) {
        let age = now.since(key.created_at).as_secs_f64();
        youngest.entry(key.state.name()).and_modify(|known| *known = known.min(age)).or_insert(age);
    }
    for (state, age) in youngest {
        family.gauge(&[("state", state)], age)?;
    }
    Ok(())
}

/// Names of the Prometheus client libraries; read from `/proc` where there is one.
fn process(page: &mut Page<'_>) -> Told {
    let mut family = page.gauges("guestlane_build_info", "Which version this is.")?;
    family.gauge(&[("version", env!("CARGO_PKG_VERSION"))], 1.0)?;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    if let Some(kilobytes) = resident {
        page.gauge("process_resident_memory_bytes", "Memory that is in use.", kilobytes * 1024.0)?;
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        page.gauge("process_open_fds", "Open files and connections.", files.count() as f64)?;
    }
    Ok(())
}
