//! The overview, the event stream and the metrics.

use std::time::Duration;

use guestlane_core::api_key::Scope;
use guestlane_runtime::http_client::HttpClient;
use guestlane_runtime::{Clock, TlsRoots};
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use guestlane_testkit::service::{TestService, bearer, json};

async fn scrape(test_service: &TestService) -> String {
    let client =
        HttpClient::new(Clock::system(), Duration::from_secs(10), &TlsRoots::System).unwrap();
    let request = Request::get(&test_service.metrics)
        .header("accept", "application/openmetrics-text;version=1.0.0")
        .body(Full::default())
        .unwrap();
    let answer = client
        .send(request, Clock::system().now() + Duration::from_secs(10))
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    String::from_utf8(answer.body.to_vec()).unwrap()
}

fn value(page: &str, metric: &str) -> f64 {
    let line = page
        .lines()
        .find(|line| line.starts_with(metric))
        .unwrap_or_else(|| panic!("no {metric}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn event_stream_sends_sessions_and_overviews() {
    let test_service = TestService::new().await;
    let host = test_service.address.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let head = format!(
        "GET /v1/events HTTP/1.1\r\nhost: {host}\r\nauthorization: {}\r\n\r\n",
        bearer(test_service.key(Scope::SessionsRead))
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut event = async || {
        let mut name = String::new();
        loop {
            let line = lines.next_line().await.unwrap().unwrap();
            if let Some(found) = line.strip_prefix("event: ") {
                name = found.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                return (name, serde_json::from_str::<Value>(data).unwrap());
            }
        }
    };
    let (first, overview) = event().await;
    assert_eq!(
        (first.as_str(), overview["scopes"].clone()),
        ("overview", json!(["sessions:read"]))
    );
    test_service.create(&[], &json!({"guestId": "ann"})).await;
    let session = loop {
        let (name, data) = event().await;
        if name == "session" {
            break data;
        }
    };
    assert_eq!(
        (session["guestId"].as_str(), session["state"].as_str()),
        (Some("ann"), Some("open"))
    );
    assert!(session.get("guestToken").is_none());
    let counted = loop {
        let (name, data) = event().await;
        if name == "overview" && data["sessions"]["open"] == 1 {
            break data;
        }
    };
    assert_eq!(counted["series"]["opened"].as_array().unwrap().len(), 60);
}

#[tokio::test]
async fn metrics_count_operations_and_contain_no_identifiers() {
    let test_service = TestService::new().await;
    test_service.faults(&["contact:503:nth=1"]);
    let session = json(
        &test_service
            .create(
                &[("idempotency-key", "canary-key")],
                &json!({"guestId": "canary-guest"}),
            )
            .await,
    );
    test_service
        .get("/v1/sessions/019ab123-4567-7000-8000-0123456789ab")
        .await;
    test_service
        .create(
            &[],
            &json!({"guestId": "bob", "queueId": "00000000-0000-4000-8000-000000000009"}),
        )
        .await;
    let page = scrape(&test_service).await;
    assert!(page.ends_with("# EOF\n"));
    for (metric, expected) in [
        (
            "guestlane_session_create_duration_seconds_count{surface=\"rest\"}",
            1.0,
        ),
        (
            "guestlane_session_failures_total{code=\"unknown_queue\"",
            1.0,
        ),
        ("guestlane_platform_retries_total{attempt=\"2\"}", 1.0),
        ("guestlane_errors_total{category=\"network\"}", 1.0),
        ("guestlane_oauth_token_requests_total", 1.0),
        ("guestlane_platform_up", 1.0),
    ] {
        assert!(
            (value(&page, metric) - expected).abs() < 1e-9,
            "{metric} {}",
            value(&page, metric)
        );
    }
    assert!(page.contains("http_route=\"/v1/sessions/{id}\",http_response_status_code=\"404\",error_type=\"not_found\""));
    for reported in [
        "guestlane_signing_key_age_seconds{state=\"active\"}",
        "process_cpu_seconds_total",
        "process_start_time_seconds",
    ] {
        assert!(value(&page, reported) >= 0.0, "{reported}");
    }
    assert!(
        value(&page, "guestlane_master_key_seals") >= 3.0,
        "signing key, audit key, the secret of API keys"
    );
    assert!(
        page.contains(
            "guestlane_operation=\"open_conversation\",http_response_status_code=\"200\""
        )
    );
    let secrets = ["sessionId", "contactId", "conversationId", "guestToken"]
        .map(|name| session[name].as_str().unwrap().to_owned());
    for secret in secrets.iter().map(String::as_str).chain([
        "canary",
        test_service.key(Scope::SessionsWrite),
        "019ab123",
    ]) {
        assert!(!page.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn webhook_events_are_listed_and_replayed() {
    let test_service = TestService::new().await;
    let session = json(&test_service.create(&[], &json!({"guestId": "ann"})).await);
    test_service
        .until(async |test_service| {
            json(&test_service.get("/v1/outbox?state=delivered").await)["events"][0]["sessionId"]
                == session["sessionId"]
        })
        .await;
    let event = json(&test_service.get("/v1/outbox").await)["events"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let replayed = test_service
        .post(
            &format!("/v1/outbox/{event}:replay"),
            Scope::Admin,
            &[],
            &json!({}),
        )
        .await;
    assert_eq!(
        (replayed.status.as_u16(), json(&replayed)["events"].as_u64()),
        (202, Some(1))
    );
    test_service
        .until(async |test_service| test_service.sim.state().crm.repeated >= 1)
        .await;
    assert_eq!(
        test_service.sim.state().crm.events,
        1,
        "the receiver knows it by its id"
    );
}

#[tokio::test]
async fn audit_verification_detects_an_altered_log() {
    let test_service = TestService::new().await;
    for guest in ["ann", "bob"] {
        test_service.create(&[], &json!({"guestId": guest})).await;
    }
    let verify = async || {
        test_service
            .post("/v1/audit:verify", Scope::Admin, &[], &json!({}))
            .await
    };
    let good = verify().await;
    assert_eq!(
        (
            good.status.as_u16(),
            json(&good)["logs"][0]["size"].as_u64()
        ),
        (200, Some(8)),
        "four API keys, two sessions"
    );
    let checkpoint = json(&test_service.get("/v1/audit/checkpoint").await);
    assert_eq!(
        (&checkpoint["size"], &checkpoint["root"]),
        (&json!(8), &json(&good)["logs"][0]["root"])
    );
    assert!(
        checkpoint["note"]
            .as_str()
            .unwrap()
            .contains(checkpoint["origin"].as_str().unwrap())
    );

    let path = test_service
        .directory
        .path()
        .join("audit/session-audit.jsonl");
    let changed = std::fs::read_to_string(&path)
        .unwrap()
        .replacen("success", "failure", 1);
    std::fs::write(&path, changed).unwrap();
    let bad = verify().await;
    assert_eq!(
        (bad.status.as_u16(), json(&bad)["code"].as_str()),
        (500, Some("audit_verification_failed")),
        "{}",
        json(&bad)
    );
}
