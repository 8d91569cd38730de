//! One trace joins a request with everything that it caused, and contains no personal data or
//! secrets.

mod collector;

use std::{
    collections::{HashMap, HashSet},
    io::{Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use guestlane_testkit::{
    cli::{Exited, TestCli},
    service_process::ServiceProcess,
};
use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message;
use serde_json::json;

pub(crate) use collector::Collector;
use collector::attribute;

/// Returns the log line of the only request.
fn answered(service: &ServiceProcess) -> serde_json::Value {
    service.wait_for_log("request completed");
    let log = service.log.lock().unwrap();
    let line = log
        .lines()
        .find(|line| line.contains("request completed"))
        .unwrap();
    serde_json::from_str(line).unwrap()
}

#[test]
fn response_503_is_logged_as_a_warning() {
    let cli = TestCli::open(&["--rate-limit", "off", "--fault", "queue:503"]);
    cli.register_keys();
    let key = cli.api_key("sessions:write");
    let service = cli.serve(
        &[],
        &[
            ("GUESTLANE_MAX_RETRIES", "0"),
            ("GUESTLANE_LOG_FORMAT", "json"),
        ],
    );
    assert_eq!(service.create(&key, &json!({"guestId": "ann"})).status, 503);
    let line = answered(&service);
    assert_eq!(
        (&line["level"], &line["status"], line.get("trace_id")),
        (&json!("WARN"), &json!(503), None),
        "{line}"
    );
}

#[test]
fn invalid_trace_endpoint_is_refused_at_startup() {
    let cli = TestCli::open(&[]);
    for endpoint in [
        "garbage",
        "http://otel-collector.monitoring:4318/v1/traces",
        "ftp://127.0.0.1/v1/traces",
    ] {
        for arguments in [
            &["create", "--guest", "ann"] as &[&str],
            &["serve"],
            &["sessions", "list"],
        ] {
            let exited = Exited::of(
                cli.command(arguments)
                    .env("GUESTLANE_OTLP_ENDPOINT", endpoint)
                    .output()
                    .unwrap(),
            );
            assert!(
                exited.code == 2 && exited.stderr.contains("GUESTLANE_OTLP_ENDPOINT"),
                "{arguments:?}: {}",
                exited.stderr
            );
        }
        let result = Exited::of(
            cli.command(&["doctor"])
                .env("GUESTLANE_OTLP_ENDPOINT", endpoint)
                .output()
                .unwrap(),
        );
        assert!(
            result.code == 1
                && result
                    .stdout
                    .contains("BAD   settings: GUESTLANE_OTLP_ENDPOINT"),
            "{}",
            result.stdout
        );
    }
    assert_eq!(cli.state()["contacts"], 0);
}

#[test]
fn collector_outage_is_logged_once_and_counted() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let endpoint = format!("http://{free}/v1/traces");
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let key = cli.api_key("sessions:write");
    let service = cli.serve(
        &[],
        &[
            ("GUESTLANE_OTLP_ENDPOINT", &endpoint),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
        ],
    );
    let failures = || {
        let scraped = service.scrape();
        let line = scraped
            .lines()
            .find_map(|line| line.strip_prefix("guestlane_trace_export_failures_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    let mut asked = 0;
    while failures() < 3 {
        asked += 1;
        assert_eq!(
            service
                .create(&key, &json!({"guestId": format!("guest-{asked}")}))
                .status,
            201
        );
    }
    service.wait_for_log("trace collector");
    let log = service.log.lock().unwrap().clone();
    let reported: Vec<_> = log
        .lines()
        .filter(|line| line.contains("trace collector"))
        .collect();
    assert!(
        reported.len() == 1 && reported[0].contains("an outage began"),
        "{reported:?}"
    );
}

#[test]
fn service_name_follows_opentelemetry_variables() {
    let collector = Collector::open();
    let cli = TestCli::open(&[]);
    let create = |guest: &str, settings: &[(&str, &str)]| {
        let mut command = cli.command(&["create", "--guest", guest]);
        command
            .env("GUESTLANE_OTLP_ENDPOINT", &collector.endpoint)
            .envs(settings.iter().copied());
        Exited::of(command.output().unwrap()).ok();
        String::from_utf8_lossy(&collector.bytes()).into_owned()
    };
    let has = |text: &str, name: &str| {
        text.contains(&format!(
            "service.name\u{12}{}\n{}{name}",
            char::from(name.len() as u8 + 2),
            char::from(name.len() as u8)
        ))
    };
    assert!(has(&create("ann", &[]), "guestlane"));
    assert!(has(
        &create("bob", &[("OTEL_SERVICE_NAME", "web-shop")]),
        "web-shop"
    ));
    let more = create(
        "cy",
        &[(
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.name=shop-2,deployment.environment.name=test",
        )],
    );
    assert!(has(&more, "shop-2") && more.contains("deployment.environment.name"));
}

#[test]
fn one_trace_joins_request_calls_record_and_delivery() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const OTHER_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let collector = Collector::open();
    let cli = TestCli::open(&["--rate-limit", "off", "--fault", "conversation:503:nth=1"]);
    cli.register_keys();
    let key = cli.api_key("sessions:write");
    let service = cli.serve(
        &[],
        &[
            ("GUESTLANE_OTLP_ENDPOINT", &collector.endpoint),
            ("GUESTLANE_RETRY_INITIAL_BACKOFF", "5ms"),
            ("GUESTLANE_RETRY_MAX_BACKOFF", "10ms"),
            ("GUESTLANE_LOG_FORMAT", "json"),
        ],
    );
    let headers = format!(
        "content-type: application/json\r\ntraceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n"
    );
    let opened = service.send_request(
        "POST",
        "/v1/sessions",
        &key,
        &headers,
        &json!({"guestId": "ann"}).to_string(),
    );
    assert_eq!(opened.status, 201, "{}", opened.body);
    // An unauthenticated client can neither start a trace nor join one.
    let unauthenticated_headers = format!("traceparent: 00-{OTHER_TRACE}-00f067aa0ba902b7-01\r\n");
    assert_eq!(
        service
            .send_request(
                "GET",
                "/v1/sessions",
                "gl_none",
                &unauthenticated_headers,
                ""
            )
            .status,
        401
    );
    while cli.state()["crm"]["events"] != 1 {
        thread::park_timeout(Duration::from_millis(5));
    }
    let line = answered(&service);
    assert_eq!(
        (&line["level"], &line["trace_id"]),
        (&json!("INFO"), &json!(TRACE)),
        "{line}"
    );
    let span_id = line["span_id"].as_str().unwrap().to_owned();
    service.signal(Signal::SIGTERM);
    assert_eq!(service.wait_for_exit(), 0);

    let spans = collector.spans();
    let of = |trace: &str| {
        let hex = |span: &&Span| {
            span.trace_id
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        spans
            .iter()
            .filter(|span| hex(span) == trace)
            .collect::<Vec<_>>()
    };
    assert!(
        of(OTHER_TRACE).is_empty(),
        "requests without an API key join no trace"
    );
    let ours = of(TRACE);
    let names: Vec<_> = ours.iter().map(|span| span.name.as_str()).collect();
    for (name, times) in [
        ("POST /v1/sessions", 1),
        ("create session", 1),
        ("contact", 1),
        ("open_conversation", 2),
        ("commit", 2),
        ("deliver event", 1),
    ] {
        assert_eq!(
            names.iter().filter(|found| **found == name).count(),
            times,
            "{name} in {names:?}"
        );
    }
    // Each span has a parent in the trace, and the first one has the caller's span.
    let ids: HashSet<_> = ours.iter().map(|span| span.span_id.clone()).collect();
    let roots: Vec<_> = ours
        .iter()
        .filter(|span| !ids.contains(&span.parent_span_id))
        .map(|span| (span.name.as_str(), span.parent_span_id.clone()))
        .collect();
    assert_eq!(
        roots,
        [(
            "POST /v1/sessions",
            0x00f0_67aa_0ba9_02b7_u64.to_be_bytes().to_vec()
        )]
    );
    let request = ours
        .iter()
        .find(|span| span.name == "POST /v1/sessions")
        .unwrap();
    assert_eq!(
        request
            .span_id
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>(),
        span_id
    );
    let calls: Vec<_> = ours
        .iter()
        .filter(|span| ["contact", "open_conversation"].contains(&span.name.as_str()))
        .collect();
    assert!(
        calls
            .iter()
            .all(|call| attribute(call, "guestlane.correlation_id").is_some())
    );
    assert_eq!(
        calls
            .iter()
            .filter(|call| attribute(call, "http.response.status_code").as_deref() == Some("503"))
            .count(),
        1
    );
    let session = ours
        .iter()
        .find(|span| span.name == "create session")
        .unwrap();
    assert_eq!(
        attribute(session, "guestlane.session.id").as_deref(),
        opened.json()["sessionId"].as_str()
    );
    let records: Vec<_> = ours
        .iter()
        .filter_map(|span| attribute(span, "guestlane.audit.index"))
        .collect();
    assert_eq!(
        records,
        ["2"],
        "the record «success», after the API key's and «pending»"
    );

    // Each outgoing request carries the trace context.
    let by_route: HashMap<_, _> = ["contact", "conversation", "crm"]
        .into_iter()
        .map(|route| (route, cli.journal(route)))
        .collect();
    for (route, entries) in by_route {
        for entry in entries {
            let parent = entry["headers"]["traceparent"]
                .as_str()
                .unwrap_or_else(|| panic!("{route} has none"));
            assert!(
                parent.starts_with(&format!("00-{TRACE}-")) && parent.ends_with("-01"),
                "{route}: {parent}"
            );
        }
    }
}
