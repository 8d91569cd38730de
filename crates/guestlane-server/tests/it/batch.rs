//! `POST /v1/sessions:batch`: many sessions in one streamed request.

use guestlane_core::api_key::Scope;
use guestlane_runtime::http_client::HttpResponse;
use http::Method;
use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use guestlane_testkit::service::{TestService, bearer, header};

async fn batch(test_service: &TestService, key: &str, lines: &str) -> (HttpResponse, Vec<Value>) {
    let authorization = bearer(test_service.key(Scope::SessionsWrite));
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/jsonl"),
        ("idempotency-key", key),
    ];
    let answer = test_service
        .send(
            Method::POST,
            "/v1/sessions:batch",
            &headers,
            lines.to_owned(),
        )
        .await;
    let lines = String::from_utf8(answer.body.to_vec()).unwrap();
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    (answer, lines)
}

fn rows(count: usize) -> String {
    (0..count)
        .map(|row| format!("{{\"guestId\":\"guest-{row}\"}}\n"))
        .collect()
}

#[tokio::test]
async fn batch_returns_one_result_per_line_and_a_summary() {
    let test_service = TestService::new().await;
    let lines = format!(
        "{}\n{{\"guestId\":\"\"}}\nnonsense\n{}",
        rows(100),
        "{\"guestId\":\"last\"}"
    );
    let (answer, lines) = batch(&test_service, "night", &lines).await;
    assert_eq!(
        (
            answer.status.as_u16(),
            header(&answer, "content-type"),
            header(&answer, "idempotency-key")
        ),
        (200, "application/jsonl", "\"night\"")
    );
    let (summary, answers) = lines.split_last().unwrap();
    assert_eq!(
        summary["summary"],
        serde_json::json!({"rows": 103, "opened": 101, "replayed": 0, "failed": 2})
    );
    let mut numbers: Vec<_> = answers
        .iter()
        .map(|line| line["row"].as_u64().unwrap())
        .collect();
    numbers.sort_unstable();
    // The empty line is skipped, but counts as a line number.
    let expected: Vec<_> = (1..=100).chain([102, 103, 104]).collect();
    assert_eq!(numbers, expected);
    for (row, code) in [(102, "invalid_input"), (103, "invalid_request")] {
        let line = answers.iter().find(|line| line["row"] == row).unwrap();
        assert_eq!(line["error"]["code"], code, "{line}");
    }
    test_service.assert_each_guest_once(101);

    let (_, again) = batch(&test_service, "night", &rows(100)).await;
    assert_eq!(again.last().unwrap()["summary"]["replayed"], 100);
    test_service.assert_each_guest_once(101);
}

#[tokio::test]
async fn disconnected_batch_is_completed_by_sending_it_again() {
    let test_service = TestService::with(
        |platform| platform.latency = std::time::Duration::from_millis(20),
        guestlane_testkit::service::settings(),
    )
    .await;
    let host = test_service.address.strip_prefix("http://").unwrap();
    let body = rows(300);
    let mut stream = TcpStream::connect(host).await.unwrap();
    let head = format!(
        "POST /v1/sessions:batch HTTP/1.1\r\nhost: {host}\r\nauthorization: {}\r\ncontent-type: application/jsonl\r\nidempotency-key: night\r\ncontent-length: {}\r\n\r\n{body}",
        bearer(test_service.key(Scope::SessionsWrite)),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    test_service
        .until(async |test_service| test_service.sim.state().conversations > 20)
        .await;
    drop(stream);
    let (_, lines) = batch(&test_service, "night", &body).await;
    let summary = &lines.last().unwrap()["summary"];
    assert_eq!(
        (summary["rows"].as_u64(), summary["failed"].as_u64()),
        (Some(300), Some(0)),
        "{summary}"
    );
    test_service.assert_each_guest_once(300);
}

#[tokio::test]
async fn compressed_batch_response_contains_all_lines() {
    let test_service = TestService::new().await;
    let authorization = bearer(test_service.key(Scope::SessionsWrite));
    for encoding in ["gzip", "gzip, deflate, br", "identity"] {
        let headers = [
            ("authorization", authorization.as_str()),
            ("content-type", "application/jsonl"),
            ("accept-encoding", encoding),
            ("idempotency-key", "night"),
        ];
        let answer = test_service
            .send(Method::POST, "/v1/sessions:batch", &headers, rows(30))
            .await;
        assert_eq!(
            answer.body.split(|byte| *byte == b'\n').count(),
            32,
            "{encoding}"
        );
    }
    test_service.assert_each_guest_once(30);
}

/// Starts a batch whose client sends `lines` and keeps the connection open.
async fn start_batch(test_service: &TestService, key: &str, lines: &str) -> TcpStream {
    let host = test_service.address.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let head = format!(
        "POST /v1/sessions:batch HTTP/1.1\r\nhost: {host}\r\nauthorization: {}\r\ncontent-type: application/jsonl\r\ncontent-length: 100000000\r\n\r\n{lines}",
        bearer(key)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn stalled_reader_does_not_block_other_batches() {
    let test_service = TestService::new().await;
    let key = test_service.key(Scope::SessionsWrite);
    let long: String = (0..4000)
        .map(|row| format!("{{\"guestId\":\"{row:0>128}\"}}\n"))
        .collect();
    let mut stream = start_batch(&test_service, key, "").await;
    let (sending, ()) = tokio::join!(
        test_service.engine.clock().timeout(
            std::time::Duration::from_secs(3),
            stream.write_all(long.as_bytes())
        ),
        async {}
    );
    // The write may not complete, because the service stops reading.
    let _ = sending;
    let (_, lines) = batch(&test_service, "other", &rows(20)).await;
    assert_eq!(lines.last().unwrap()["summary"]["opened"], 20);
}

#[tokio::test]
async fn revoked_api_key_ends_its_batch() {
    let test_service = TestService::new().await;
    let key =
        guestlane_testkit::service::new_key(&test_service.engine, "sessions:write", |_| {}).await;
    test_service
        .until(async |test_service| {
            test_service
                .send(
                    Method::GET,
                    "/v1/errors",
                    &[("authorization", &bearer(&key))],
                    "",
                )
                .await
                .status
                == 403
        })
        .await;
    let mut stream = start_batch(&test_service, &key, "{\"guestId\":\"before\"}\n").await;
    test_service
        .until(async |test_service| test_service.sim.state().conversations == 1)
        .await;
    test_service
        .engine
        .store()
        .revoke_api_key(key[3..15].to_owned(), test_service.engine.clock().now())
        .await
        .unwrap();
    test_service
        .until(async |test_service| {
            test_service
                .send(
                    Method::GET,
                    "/v1/errors",
                    &[("authorization", &bearer(&key))],
                    "",
                )
                .await
                .status
                == 401
        })
        .await;
    stream
        .write_all(b"{\"guestId\":\"after\"}\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await;
    assert!(String::from_utf8_lossy(&answer).contains("unauthorized"));
    test_service.assert_each_guest_once(1);
}

/// Neither blank lines nor silence keep a batch of a revoked key open.
#[tokio::test]
async fn revoked_api_key_ends_its_idle_batch() {
    let test_service = TestService::new().await;
    for sent in ["", "\n"] {
        let key =
            guestlane_testkit::service::new_key(&test_service.engine, "sessions:write", |_| {})
                .await;
        let errors = async |test_service: &TestService| {
            test_service
                .send(
                    Method::GET,
                    "/v1/errors",
                    &[("authorization", &bearer(&key))],
                    "",
                )
                .await
                .status
        };
        test_service
            .until(async |test_service| errors(test_service).await == 403)
            .await;
        let mut stream = start_batch(&test_service, &key, sent).await;
        test_service
            .engine
            .store()
            .revoke_api_key(key[3..15].to_owned(), test_service.engine.clock().now())
            .await
            .unwrap();
        let mut answer = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await;
        assert!(
            String::from_utf8_lossy(&answer).contains("unauthorized"),
            "{sent:?}"
        );
    }
}

#[tokio::test]
async fn batch_during_platform_outage_does_not_delay_shutdown() {
    let mut test_service = TestService::new().await;
    assert_eq!(
        test_service
            .create(&[], &serde_json::json!({"guestId": "ann"}))
            .await
            .status,
        201
    );
    test_service.faults(&["contact:503"]);
    let key = test_service.key(Scope::SessionsWrite).to_owned();
    let stream = start_batch(&test_service, &key, &rows(200)).await;
    test_service
        .until(async |test_service| test_service.engine.platform_down_for().is_some())
        .await;
    drop(stream);
    // If the service did not end, the test would exceed its time limit.
    test_service.shut_down().await;
    test_service.faults(&[]);
}

#[tokio::test]
async fn overlong_line_is_refused_and_later_lines_are_read() {
    let test_service = TestService::new().await;
    let long = "x".repeat(200 * 1024);
    for line_break in ["\n", "\r", "\r\n"] {
        let text = ["{\"guestId\":\"ann\"}", &long, "", "{\"guestId\":\"bob\"}"].join(line_break);
        let (_, lines) = batch(&test_service, "night", &text).await;
        let refused = lines.iter().find(|line| line["row"] == 2).unwrap();
        assert_eq!(refused["error"]["code"], "payload_too_large");
        assert!(
            lines
                .iter()
                .any(|line| line["row"] == 4 && line["guestId"] == "bob"),
            "{line_break:?}"
        );
        assert_eq!(lines.last().unwrap()["summary"]["rows"], 3);
    }
    test_service.assert_each_guest_once(2);
}

#[tokio::test]
async fn batch_accepts_any_line_break_and_ignores_byte_order_mark() {
    let test_service = TestService::new().await;
    let text = "\u{feff}{\"guestId\":\"ann\"}\r{\"guestId\":\"bob\"}\r\n\r\n{\"guestId\":\"cy\"}\n{\"guestId\":\"dee\"}";
    let (_, lines) = batch(&test_service, "night", text).await;
    assert_eq!(
        lines.last().unwrap()["summary"],
        serde_json::json!({"rows": 4, "opened": 4, "replayed": 0, "failed": 0})
    );
    let row =
        |guest: &str| lines.iter().find(|line| line["guestId"] == guest).unwrap()["row"].as_u64();
    assert_eq!(
        [row("ann"), row("bob"), row("cy"), row("dee")],
        [Some(1), Some(2), Some(4), Some(5)]
    );
    test_service.assert_each_guest_once(4);
}

#[tokio::test]
async fn a_json_array_is_refused_as_a_whole() {
    let test_service = TestService::new().await;
    for text in [
        "[\n{\"guestId\":\"ann\"}\n]",
        "\n[{\"guestId\":\"ann\"},\n{\"guestId\":\"bob\"}\n]",
    ] {
        let (_, lines) = batch(&test_service, "night", text).await;
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[0]["error"]["code"], "invalid_request");
        assert!(
            lines[0]["error"]["detail"]
                .as_str()
                .unwrap()
                .contains("JSON array"),
            "{lines:?}"
        );
    }
    test_service.assert_each_guest_once(0);
}
