//! `POST /v1/sessions:batch`: many sessions in one streamed request.

use guestlane_core::api_key::Scope;
use guestlane_runtime::http_client::HttpResponse;
use http::Method;
use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::harness::{World, bearer, header};

async fn batch(world: &World, key: &str, lines: &str) -> (HttpResponse, Vec<Value>) {
    let authorization = bearer(world.key(Scope::SessionsWrite));
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/jsonl"),
        ("idempotency-key", key),
    ];
    let answer = world
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
async fn each_line_has_its_answer_and_the_last_one_the_sum() {
    let world = World::new().await;
    let lines = format!(
        "{}\n{{\"guestId\":\"\"}}\nnonsense\n{}",
        rows(100),
        "{\"guestId\":\"last\"}"
    );
    let (answer, lines) = batch(&world, "night", &lines).await;
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
    world.assert_each_guest_once(101);

    let (_, again) = batch(&world, "night", &rows(100)).await;
    assert_eq!(again.last().unwrap()["summary"]["replayed"], 100);
    world.assert_each_guest_once(101);
}

#[tokio::test]
async fn a_batch_whose_caller_went_away_is_completed_by_sending_it_again() {
    let world = World::with(
        |platform| platform.latency = std::time::Duration::from_millis(20),
        crate::harness::settings(),
    )
    .await;
    let host = world.address.strip_prefix("http://").unwrap();
    let body = rows(300);
    let mut stream = TcpStream::connect(host).await.unwrap();
    let head = format!(
        "POST /v1/sessions:batch HTTP/1.1\r\nhost: {host}\r\nauthorization: {}\r\ncontent-type: application/jsonl\r\nidempotency-key: night\r\ncontent-length: {}\r\n\r\n{body}",
        bearer(world.key(Scope::SessionsWrite)),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    world
        .until(async |world| world.sim.state().conversations > 20)
        .await;
    drop(stream);
    let (_, lines) = batch(&world, "night", &body).await;
    let summary = &lines.last().unwrap()["summary"];
    assert_eq!(
        (summary["rows"].as_u64(), summary["failed"].as_u64()),
        (Some(300), Some(0)),
        "{summary}"
    );
    world.assert_each_guest_once(300);
}

#[tokio::test]
async fn a_caller_who_takes_compressed_answers_gets_all_lines() {
    let world = World::new().await;
    let authorization = bearer(world.key(Scope::SessionsWrite));
    for encoding in ["gzip", "gzip, deflate, br", "identity"] {
        let headers = [
            ("authorization", authorization.as_str()),
            ("content-type", "application/jsonl"),
            ("accept-encoding", encoding),
            ("idempotency-key", "night"),
        ];
        let answer = world
            .send(Method::POST, "/v1/sessions:batch", &headers, rows(30))
            .await;
        assert_eq!(
            answer.body.split(|byte| *byte == b'\n').count(),
            32,
            "{encoding}"
        );
    }
    world.assert_each_guest_once(30);
}

/// Starts a batch whose client sends `lines` and keeps the connection open.
async fn held(world: &World, key: &str, lines: &str) -> TcpStream {
    let host = world.address.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let head = format!(
        "POST /v1/sessions:batch HTTP/1.1\r\nhost: {host}\r\nauthorization: {}\r\ncontent-type: application/jsonl\r\ncontent-length: 100000000\r\n\r\n{lines}",
        bearer(key)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_caller_who_does_not_read_holds_up_no_other_batch() {
    let world = World::new().await;
    let key = world.key(Scope::SessionsWrite);
    let long: String = (0..4000)
        .map(|row| format!("{{\"guestId\":\"{row:0>128}\"}}\n"))
        .collect();
    let mut stream = held(&world, key, "").await;
    let (sending, ()) = tokio::join!(
        world.engine.clock().timeout(
            std::time::Duration::from_secs(3),
            stream.write_all(long.as_bytes())
        ),
        async {}
    );
    // The write may not complete, because the service stops reading.
    let _ = sending;
    let (_, lines) = batch(&world, "other", &rows(20)).await;
    assert_eq!(lines.last().unwrap()["summary"]["opened"], 20);
}

#[tokio::test]
async fn a_key_that_is_revoked_ends_its_batch() {
    let world = World::new().await;
    let key = crate::harness::new_key(&world.engine, "sessions:write", |_| {}).await;
    world
        .until(async |world| {
            world
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
    let mut stream = held(&world, &key, "{\"guestId\":\"before\"}\n").await;
    world
        .until(async |world| world.sim.state().conversations == 1)
        .await;
    world
        .engine
        .store()
        .revoke_api_key(key[3..15].to_owned(), world.engine.clock().now())
        .await
        .unwrap();
    world
        .until(async |world| {
            world
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
    world.assert_each_guest_once(1);
}

/// Neither blank lines nor silence keep a batch of a revoked key open.
#[tokio::test]
async fn a_key_that_is_revoked_ends_its_batch_although_no_row_comes() {
    let world = World::new().await;
    for sent in ["", "\n"] {
        let key = crate::harness::new_key(&world.engine, "sessions:write", |_| {}).await;
        let errors = async |world: &World| {
            world
                .send(
                    Method::GET,
                    "/v1/errors",
                    &[("authorization", &bearer(&key))],
                    "",
                )
                .await
                .status
        };
        world.until(async |world| errors(world).await == 403).await;
        let mut stream = held(&world, &key, sent).await;
        world
            .engine
            .store()
            .revoke_api_key(key[3..15].to_owned(), world.engine.clock().now())
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
async fn a_batch_during_an_outage_does_not_hold_up_the_end() {
    let mut world = World::new().await;
    assert_eq!(
        world
            .create(&[], &serde_json::json!({"guestId": "ann"}))
            .await
            .status,
        201
    );
    world.faults(&["contact:503"]);
    let key = world.key(Scope::SessionsWrite).to_owned();
    let stream = held(&world, &key, &rows(200)).await;
    world
        .until(async |world| world.engine.platform_down_for().is_some())
        .await;
    drop(stream);
    // If the service did not end, the test would exceed its time limit.
    world.ended().await;
    world.faults(&[]);
}

#[tokio::test]
async fn an_overlong_line_is_refused_and_the_next_ones_are_read() {
    let world = World::new().await;
    let long = "x".repeat(200 * 1024);
    for line_break in ["\n", "\r", "\r\n"] {
        let text = ["{\"guestId\":\"ann\"}", &long, "", "{\"guestId\":\"bob\"}"].join(line_break);
        let (_, lines) = batch(&world, "night", &text).await;
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
    world.assert_each_guest_once(2);
}

#[tokio::test]
async fn a_batch_is_read_by_lines_whatever_ends_them_and_a_byte_order_mark_has_no_meaning() {
    let world = World::new().await;
    let text = "\u{feff}{\"guestId\":\"ann\"}\r{\"guestId\":\"bob\"}\r\n\r\n{\"guestId\":\"cy\"}\n{\"guestId\":\"dee\"}";
    let (_, lines) = batch(&world, "night", text).await;
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
    world.assert_each_guest_once(4);
}

#[tokio::test]
async fn a_json_array_is_refused_as_a_whole() {
    let world = World::new().await;
    for text in [
        "[\n{\"guestId\":\"ann\"}\n]",
        "\n[{\"guestId\":\"ann\"},\n{\"guestId\":\"bob\"}\n]",
    ] {
        let (_, lines) = batch(&world, "night", text).await;
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
    world.assert_each_guest_once(0);
}
