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

use crate::harness::{World, bearer, json};

async fn scrape(world: &World) -> String {
    let client =
        HttpClient::new(Clock::system(), Duration::from_secs(10), &TlsRoots::System).unwrap();
    let request = Request::get(&world.metrics)
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
async fn the_stream_tells_of_each_session_and_of_each_second() {
    let world = World::new().await;
    let host = world.address.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let head = format!(
        "GET /v1/events HTTP/1.1\r\nhost: {host}\r\nauthorization: {}\r\n\r\n",
        bearer(world.key(Scope::SessionsRead))
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
    world.create(&[], &json!({"guestId": "ann"})).await;
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
async fn the_metrics_count_what_happened_and_name_nobody() {
    let world = World::new().await;
    world.faults(&["contact:503:nth=1"]);
    let session = json(
        &world
            .create(
                &[("idempotency-key", "canary-key")],
                &json!({"guestId": "canary-guest"}),
            )
            .await,
    );
    world
        .get("/v1/sessions/019ab123-4567-7000-8000-0123456789ab")
        .await;
    world
        .create(
            &[],
            &json!({"guestId": "bob", "queueId": "00000000-0000-4000-8000-000000000009"}),
        )
        .await;
    let page = scrape(&world).await;
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
    for told in [
        "guestlane_signing_key_age_seconds{state=\"active\"}",
        "process_cpu_seconds_total",
        "process_start_time_seconds",
    ] {
        assert!(value(&page, told) >= 0.0, "{told}");
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
        world.key(Scope::SessionsWrite),
        "019ab123",
    ]) {
        assert!(!page.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn events_are_listed_and_sent_again() {
    let world = World::new().await;
    let session = json(&world.create(&[], &json!({"guestId": "ann"})).await);
    world
        .until(async |world| {
            json(&world.get("/v1/outbox?state=delivered").await)["events"][0]["sessionId"]
                == session["sessionId"]
        })
        .await;
    let event = json(&world.get("/v1/outbox").await)["events"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let replayed = world
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
    world
        .until(async |world| world.sim.state().crm.repeated >= 1)
        .await;
    assert_eq!(
        world.sim.state().crm.events,
        1,
        "the receiver knows it by its id"
    );
}

#[tokio::test]
async fn the_audit_log_is_verified_and_one_that_was_changed_is_told() {
    let world = World::new().await;
    for guest in ["ann", "bob"] {
        world.create(&[], &json!({"guestId": guest})).await;
    }
    let verify = async || {
        world
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
    let checkpoint = json(&world.get("/v1/audit/checkpoint").await);
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

    let path = world.directory.path().join("audit/session-audit.jsonl");
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
