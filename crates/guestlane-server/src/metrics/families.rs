//! The metrics that the page has, by subject.

mod process_metrics;

use guestlane_genesys::Operation;
use guestlane_runtime::Timestamp;
use guestlane_store::StoreGauges;

use super::MetricsEncoder;
use crate::service::Service;
pub(super) use process_metrics::{keys, process};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// Metrics of requests to the service and of its connections.
pub(super) fn requests(
    page: &mut MetricsEncoder<'_>,
    service: &Service,
    scheme: &str,
) -> fmt::Result {
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
pub(super) fn calls(page: &mut MetricsEncoder<'_>, service: &Service) -> fmt::Result {
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
pub(super) fn sessions(
    page: &mut MetricsEncoder<'_>,
    service: &Service,
    others: &AtomicU64,
) -> fmt::Result {
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
pub(super) fn quota(page: &mut MetricsEncoder<'_>, service: &Service) -> fmt::Result {
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
        family.gauge(&label, f64::from(u8::from(client.quarantined)))?;
    }
    Ok(())
}

/// Backlog of the store: unfinished sessions, undelivered events, and unsigned audit records.
pub(super) fn backlog(
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
