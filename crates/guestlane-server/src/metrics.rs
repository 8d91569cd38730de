//! `/metrics` for Prometheus: the OpenMetrics format if the client accepts it, else the older text
//! format. HTTP server and client metrics have OpenTelemetry's names; all others begin with
//! `guestlane_`. No label contains an ID or data of a guest.

use std::{
    fmt, fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, response::IntoResponse, routing::get};
use guestlane_core::token::{KeyInfo, KeyState, RotationPolicy};
use guestlane_genesys::Operation;
use guestlane_runtime::{HistogramSnapshot, Timestamp};
use guestlane_store::StoreGauges;
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

/// Metrics of requests to the service and of its connections.
fn requests(page: &mut MetricsEncoder<'_>, service: &Service, scheme: &str) -> fmt::Result {
    let mut family = page.seconds(
        "http_server_request_duration",
        "Duration of requests to the service.",
    )?;
    for (kind, took) in service.figures().requests() {
        let status = kind.status.to_string();
        let labels = [
            ("http_request_method", kind.method),
            ("url_scheme", scheme),
            ("http_route", kind.route.as_str()),
            ("http_response_status_code", status.as_str()),
            ("error_type", kind.problem.unwrap_or("")),
        ];
        family.histogram(&labels, &took)?;
    }
    page.gauge(
        "http_server_active_requests",
        "Requests in flight.",
        service.figures().active() as f64,
    )?;
    page.gauge(
        "http_server_open_connections",
        "Open connections to the service.",
        service.connections().open() as f64,
    )?;
    let help = "Connections that were rejected, or closed for a newer one, at the connection \
        limit.";
    page.counter(
        "http_server_rejected_connections",
        help,
        service.connections().turned_away(),
    )?;
    let help = "Requests with a missing or invalid API key.";
    page.counter(
        "guestlane_authentication_failures",
        help,
        service.figures().authentication_failures(),
    )
}

/// Metrics of calls to the platform.
fn calls(page: &mut MetricsEncoder<'_>, service: &Service) -> fmt::Result {
    let stats = service.engine().platform_metrics();
    let mut family = page.seconds(
        "http_client_request_duration",
        "Duration of calls to the platform, from sending the request to its response.",
    )?;
    for timed in stats.durations() {
        let status = timed
            .status
            .map(|status| status.to_string())
            .unwrap_or_default();
        let error = if timed.status.is_some_and(|status| status < 400) {
            ""
        } else if timed.status.is_none() {
            "no_answer"
        } else {
            status.as_str()
        };
        let labels = [
            ("http_request_method", method(timed.operation)),
            ("guestlane_operation", timed.operation.name()),
            ("http_response_status_code", status.as_str()),
            ("error_type", error),
        ];
        family.histogram(&labels, &timed.took)?;
    }
    let mut family = page.counters(
        "guestlane_platform_retries",
        "Retries of platform calls, by attempt number; the last number includes all later \
         attempts.",
    )?;
    for (retries, attempt) in stats.retries().into_iter().zip(2..) {
        family.count(&[("attempt", attempt)], retries)?;
    }
    page.counter(
        "guestlane_platform_rate_limited",
        "Calls to which the platform responded 429.",
        stats.throttled(),
    )?;
    page.counter(
        "guestlane_oauth_token_requests",
        "Access token requests.",
        stats.token_requests(),
    )?;
    let up = service.engine().platform_down_for().is_none();
    page.gauge(
        "guestlane_platform_up",
        "Whether the circuit breaker of the platform is closed.",
        f64::from(u8::from(up)),
    )
}

/// The HTTP method of an operation.
fn method(operation: Operation) -> &'static str {
    match operation {
        Operation::Queue
        | Operation::Details
        | Operation::Conversation
        | Operation::FirstMessage
        | Operation::Probe => "GET",
        Operation::LinkContact => "PUT",
        Operation::Token
        | Operation::Contact
        | Operation::EnrichContact
        | Operation::CreateContact
        | Operation::FindContact
        | Operation::OpenConversation
        | Operation::OpenMessage
        | Operation::MoveToQueue => "POST",
    }
}

/// Metrics of session creation.
fn sessions(page: &mut MetricsEncoder<'_>, service: &Service, others: &AtomicU64) -> fmt::Result {
    let engine = service.engine();
    let surface = [("surface", engine.surface().name())];
    let mut family = page.seconds(
        "guestlane_session_create_duration",
        "Time from the request to the open conversation.",
    )?;
    family.histogram(&surface, &engine.metrics().latency())?;
    let mut family = page.counters(
        "guestlane_session_failures",
        "Session requests that ended in an error, by code; a session that is resumed later may \
         count again.",
    )?;
    for (code, problem) in engine.metrics().failures_by_code() {
        family.count(
            &[("code", code.name()), ("surface", engine.surface().name())],
            problem.count,
        )?;
    }
    let errors = engine.error_counts();
    // The counts are read one after the other while calls continue, so that the remainder can
    // briefly be too small. The maximum keeps the counter from decreasing.
    let named = errors.token_validation + errors.rate_limit + errors.auth + errors.network;
    let rest = errors.total.saturating_sub(named);
    let other = others.fetch_max(rest, Ordering::Relaxed).max(rest);
    let mut family = page.counters(
        "guestlane_errors",
        "Failed attempts by category, from all processes that used this store.",
    )?;
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

/// Rate-limit metrics of each OAuth client.
fn quota(page: &mut MetricsEncoder<'_>, service: &Service) -> fmt::Result {
    let clients = service.engine().client_usage();
    let numbered = || {
        clients
            .iter()
            .zip(1_u32..)
            .map(|(client, number)| (client, [("client", number)]))
    };
    let mut family = page.gauges(
        "guestlane_platform_rate_limit_requests_per_second",
        "Rate limit of an OAuth client, in calls per second.",
    )?;
    for (client, label) in numbered() {
        if let Some(rate) = client.allowed {
            family.gauge(&label, rate.per_second())?;
        }
    }
    let mut family = page.gauges(
        "guestlane_platform_rate_limit_used_ratio",
        "Share of the last rate-limit window that is used: 0 to 1.",
    )?;
    for (client, label) in numbered() {
        if let Some(rate) = client.allowed {
            family.gauge(&label, f64::from(client.used) / f64::from(rate.calls()))?;
        }
    }
    let mut family = page.counters(
        "guestlane_platform_requests",
        "Calls sent with an OAuth client.",
    )?;
    for (client, label) in numbered() {
        family.count(&label, client.calls)?;
    }
    let mut family = page.gauges(
        "guestlane_oauth_client_quarantined",
        "Whether an OAuth client is quarantined after authentication failures.",
    )?;
    for (client, label) in numbered() {
        family.gauge(&label, f64::from(u8::from(client.left_out)))?;
    }
    Ok(())
}

/// Backlog of the store: unfinished sessions, undelivered events, and unsigned audit records.
fn backlog(
    page: &mut MetricsEncoder<'_>,
    service: &Service,
    standing: &StoreGauges,
    audit_behind: u64,
) -> fmt::Result {
    let now = service.clock().now();
    let age =
        |moment: Option<Timestamp>| moment.map_or(0.0, |moment| now.since(moment).as_secs_f64());
    let mut family = page.gauges(
        "guestlane_sessions",
        "Sessions in the store that are not open, by state, with the surface of the service.",
    )?;
    let surface = service.engine().surface().name();
    for (state, count) in [
        ("unfinished", standing.unfinished),
        ("failed", standing.failed),
        ("needs_attention", standing.needs_attention),
    ] {
        family.gauge(&[("state", state), ("surface", surface)], count as f64)?;
    }
    let help = "Age of the oldest unfinished session; 0 if there is none.";
    page.gauge(
        "guestlane_oldest_unfinished_session_seconds",
        help,
        age(standing.oldest_unfinished),
    )?;
    let mut family = page.gauges(
        "guestlane_outbox_events",
        "Undelivered events for the CRM, by state.",
    )?;
    for (state, count) in [
        ("pending", standing.pending_events),
        ("dead", standing.dead_events),
    ] {
        family.gauge(&[("state", state)], count as f64)?;
    }
    page.gauge(
        "guestlane_outbox_lag_seconds",
        "Age of the oldest pending event; 0 if there is none.",
        age(standing.oldest_event),
    )?;
    let endpoints = service
        .engine()
        .outbox()
        .map(|outbox| outbox.endpoints())
        .unwrap_or_default();
    page.gauge(
        "guestlane_outbox_disabled_endpoints",
        "Webhook endpoints disabled after 410 Gone; their events stay pending until the endpoint \
         is enabled.",
        endpoints
            .iter()
            .filter(|endpoint| endpoint.disabled_at.is_some())
            .count() as f64,
    )?;
    page.gauge(
        "guestlane_audit_records",
        "Records in the audit log to which this process appends.",
        standing.audit.map_or(0, |(_, size)| size) as f64,
    )?;
    page.gauge(
        "guestlane_audit_lag_records",
        "Records in the store that the signed audit log file lacks.",
        audit_behind as f64,
    )
}

/// Metrics of the signing keys and the master key.
fn keys(page: &mut MetricsEncoder<'_>, service: &Service) -> fmt::Result {
    let now = service.clock().now();
    let keys = service.engine().keyring().list(now);
    let mut family = page.gauges(
        "guestlane_signing_key_age_seconds",
        "Age of the youngest signing key in each state.",
    )?;
    let mut youngest: std::collections::BTreeMap<&'static str, f64> =
        std::collections::BTreeMap::new();
    for key in &keys {
        let age = now.since(key.created_at).as_secs_f64();
        youngest
            .entry(key.state.name())
            .and_modify(|known| *known = known.min(age))
            .or_insert(age);
    }
    for (state, age) in youngest {
        family.gauge(&[("state", state)], age)?;
    }
    let next = keys
        .iter()
        .filter(|key| key.state == KeyState::Next)
        .map(|key| key.active_from)
        .min();
    if let Some(active_from) = next {
        let help = "Time until the next signing key becomes active; absent if there is no next \
            key.";
        page.gauge(
            "guestlane_signing_key_next_activation_seconds",
            help,
            active_from.since(now).as_secs_f64(),
        )?;
    }
    if let Some(overdue) = overdue(service.engine().key_schedule(), &keys, now) {
        let help = "Time since the schedule required a next signing key that does not exist; \
            absent without a schedule.";
        page.gauge(
            "guestlane_signing_key_overdue_seconds",
            help,
            overdue.as_secs_f64(),
        )?;
    }
    let help = "Values sealed with the current master key by all processes of the store, as of a \
        minute ago.";
    page.gauge(
        "guestlane_master_key_seals",
        help,
        service.engine().master_key_seals() as f64,
    )
}

/// How long the rotation schedule has required a next key that does not exist. `None` without a
/// schedule.
fn overdue(schedule: RotationPolicy, keys: &[KeyInfo], now: Timestamp) -> Option<Duration> {
    let every = schedule.rotation_interval()?;
    let active = keys.iter().find(|key| key.state == KeyState::Active)?;
    let waits = keys.iter().any(|key| key.state == KeyState::Next);
    let due = active.active_from + every.saturating_sub(schedule.publish_lead_time());
    Some(if waits {
        Duration::ZERO
    } else {
        now.since(due)
    })
}

/// Process metrics, with the names of the Prometheus client libraries. They come from `/proc`, and
/// are absent on systems without it.
fn process(page: &mut MetricsEncoder<'_>, service: &Service) -> fmt::Result {
    let mut family = page.gauges("guestlane_build_info", "Version of guestlane.")?;
    family.gauge(&[("version", env!("CARGO_PKG_VERSION"))], 1.0)?;
    let started = service.started_at().unix_micros() as f64 / 1e6;
    page.gauge(
        "process_start_time_seconds",
        "Start time of the process, in seconds since the Unix epoch.",
        started,
    )?;
    if let Some(seconds) = fs::read_to_string("/proc/self/stat")
        .ok()
        .as_deref()
        .and_then(processor_seconds)
    {
        page.seconds_spent("process_cpu_seconds", "User and system CPU time.", seconds)?;
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?
            .trim()
            .strip_suffix(" kB")?
            .parse::<f64>()
            .ok()
    });
    if let Some(kilobytes) = resident {
        page.gauge(
            "process_resident_memory_bytes",
            "Resident memory.",
            kilobytes * 1024.0,
        )?;
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // One of the descriptors is the open directory itself.
        let open = files.count().saturating_sub(1);
        page.gauge("process_open_fds", "Open file descriptors.", open as f64)?;
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let most = limits.lines().find_map(|line| {
        line.strip_prefix("Max open files")?
            .split_whitespace()
            .next()?
            .parse::<f64>()
            .ok()
    });
    if let Some(most) = most {
        page.gauge(
            "process_max_fds",
            "Maximum number of open file descriptors.",
            most,
        )?;
    }
    Ok(())
}

/// User and system CPU time from `/proc/self/stat`, in seconds. Linux counts it in hundredths of a
/// second.
fn processor_seconds(stat: &str) -> Option<f64> {
    // The process name before it may contain spaces.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut ticks = after_name.split_whitespace().skip(11);
    let (user, system) = (
        ticks.next()?.parse::<f64>().ok()?,
        ticks.next()?.parse::<f64>().ok()?,
    );
    Some((user + system) / 100.0)
}

#[cfg(test)]
mod tests;
