//! `POST /v1/sessions`: one session per idempotency key.

mod problems;

use std::time::Duration;

use futures_util::future::join_all;
use guestlane_core::api_key::Scope;
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use guestlane_testkit::service::{SALES, TestService, bearer, header, json};

#[tokio::test]
async fn post_creates_a_session_and_same_key_replays_it() {
    let test_service = TestService::new().await;
    let request = json!({"guestId": "user-8842-xyz", "attributes": {"source": "web-portal", "tier": "premium"}});
    let first = test_service
        .create(&[("idempotency-key", "\"order-2231\"")], &request)
        .await;
    assert_eq!(first.status, 201, "{}", json(&first));
    let session = json(&first);
    let id = session["sessionId"].as_str().unwrap();
    assert_eq!(
        (session["state"].as_str(), session["queueId"].as_str()),
        (Some("open"), Some(SALES))
    );
    assert_eq!(header(&first, "location"), format!("/v1/sessions/{id}"));
    assert_eq!(
        (
            header(&first, "idempotency-key"),
            header(&first, "cache-control")
        ),
        ("\"order-2231\"", "no-store")
    );

    let again = test_service
        .create(&[("idempotency-key", "order-2231")], &request)
        .await;
    assert_eq!(
        (
            again.status.as_u16(),
            header(&again, "idempotency-replayed")
        ),
        (200, "true")
    );
    assert_eq!(
        json(&again)["guestToken"],
        session["guestToken"],
        "the same token, byte for byte"
    );
    test_service.assert_each_guest_once(1);

    let shown = json(&test_service.get(&format!("/v1/sessions/{id}")).await);
    assert_eq!(shown["conversationId"], session["conversationId"]);
    assert!(shown.get("guestToken").is_none(), "a read returns no token");
}

#[tokio::test]
async fn idempotency_key_is_generated_if_absent_and_accepted_in_body() {
    let test_service = TestService::new().await;
    let made = test_service.create(&[], &json!({"guestId": "ann"})).await;
    let key = json(&made)["idempotencyKey"].as_str().unwrap().to_owned();
    assert_eq!(header(&made, "idempotency-key"), format!("\"{key}\""));
    let again = test_service
        .create(&[], &json!({"guestId": "ann", "idempotencyKey": key}))
        .await;
    assert_eq!(again.status, 200);
    let both = test_service
        .create(
            &[("idempotency-key", "another")],
            &json!({"guestId": "ann", "idempotencyKey": key}),
        )
        .await;
    assert_eq!(
        (both.status.as_u16(), json(&both)["field"].as_str()),
        (400, Some("idempotencyKey"))
    );
    test_service.assert_each_guest_once(1);
}

#[tokio::test]
async fn concurrent_requests_with_one_key_create_one_session() {
    let test_service = TestService::with(
        |platform| platform.latency = Duration::from_millis(30),
        guestlane_testkit::service::settings(),
    )
    .await;
    let request = json!({"guestId": "ann"});
    let headers = [("idempotency-key", "one")];
    let answers = join_all((0..50).map(|_| test_service.create(&headers, &request))).await;
    let reported = answers.iter().filter(|answer| answer.status.is_success());
    let ids: std::collections::BTreeSet<_> = reported
        .map(|answer| json(answer)["sessionId"].to_string())
        .collect();
    assert_eq!(ids.len(), 1, "all responses name the same session");
    let statuses: Vec<_> = answers
        .iter()
        .map(|answer| answer.status.as_u16())
        .collect();
    // Requests beyond the limit get 429, and no session is created twice.
    assert_eq!(
        statuses.iter().filter(|status| **status == 201).count(),
        1,
        "{statuses:?}"
    );
    assert!(
        statuses
            .iter()
            .all(|status| [200, 201, 429].contains(status)),
        "{statuses:?}"
    );
    test_service.assert_each_guest_once(1);
}

#[tokio::test]
async fn respond_async_returns_location_and_session_opens_later() {
    let test_service = TestService::with(
        |platform| platform.latency = Duration::from_millis(200),
        guestlane_testkit::service::settings(),
    )
    .await;
    let accepted = test_service
        .create(&[("prefer", "respond-async")], &json!({"guestId": "ann"}))
        .await;
    assert_eq!(
        (
            accepted.status.as_u16(),
            header(&accepted, "preference-applied")
        ),
        (202, "respond-async")
    );
    assert!(!header(&accepted, "retry-after").is_empty());
    assert!(json(&accepted).get("guestToken").is_none());
    let location = header(&accepted, "location").to_owned();
    test_service
        .until(async |test_service| json(&test_service.get(&location).await)["state"] == "open")
        .await;
    test_service.assert_each_guest_once(1);
}

#[tokio::test]
async fn respond_async_replays_same_request_and_refuses_another() {
    let test_service = TestService::new().await;
    let asynchronous = [("idempotency-key", "k1"), ("prefer", "respond-async")];
    assert_eq!(
        test_service
            .create(&[("idempotency-key", "k1")], &json!({"guestId": "ann"}))
            .await
            .status,
        201
    );
    for _ in 0..20 {
        let other = test_service
            .create(&asynchronous, &json!({"guestId": "bob"}))
            .await;
        assert_eq!(
            (other.status.as_u16(), json(&other)["code"].as_str()),
            (422, Some("idempotency_key_reused")),
            "{}",
            json(&other)
        );
        let same = test_service
            .create(&asynchronous, &json!({"guestId": "ann"}))
            .await;
        assert_eq!(
            (same.status.as_u16(), header(&same, "idempotency-replayed")),
            (200, "true")
        );
    }
    test_service.assert_each_guest_once(1);
}

#[tokio::test]
async fn session_is_completed_after_client_disconnects() {
    let test_service = TestService::with(
        |platform| platform.latency = Duration::from_millis(100),
        guestlane_testkit::service::settings(),
    )
    .await;
    let host = test_service.address.strip_prefix("http://").unwrap();
    let body = json!({"guestId": "ann"}).to_string();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let head = format!(
        "POST /v1/sessions HTTP/1.1\r\nhost: {host}\r\nauthorization: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        bearer(test_service.key(Scope::SessionsWrite)),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    test_service
        .until(async |test_service| test_service.engine.store().unfinished().await.unwrap() == 1)
        .await;
    drop(stream);
    test_service
        .until(async |test_service| {
            json(&test_service.get("/v1/sessions?state=open").await)["sessions"][0]["guestId"]
                == "ann"
        })
        .await;
    test_service.assert_each_guest_once(1);
}

#[tokio::test]
async fn sessions_are_listed_page_by_page_newest_first() {
    let test_service = TestService::new().await;
    for guest in 0..7 {
        test_service
            .create(&[], &json!({"guestId": format!("guest-{guest}")}))
            .await;
    }
    let (mut seen, mut path) = (Vec::new(), "/v1/sessions?limit=3".to_owned());
    loop {
        let page = json(&test_service.get(&path).await);
        seen.extend(
            page["sessions"]
                .as_array()
                .unwrap()
                .iter()
                .map(|session| session["guestId"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["nextCursor"].as_str() else {
            break;
        };
        path = format!("/v1/sessions?limit=3&cursor={cursor}");
    }
    assert_eq!(
        seen,
        (0..7)
            .rev()
            .map(|guest| format!("guest-{guest}"))
            .collect::<Vec<_>>()
    );
    let of_queue = json(
        &test_service
            .get(&format!("/v1/sessions?queueId={SALES}&guestId=guest-3"))
            .await,
    );
    assert_eq!(of_queue["sessions"].as_array().unwrap().len(), 1);
    let none = json(
        &test_service
            .get("/v1/sessions?queueId=00000000-0000-4000-8000-000000000009")
            .await,
    );
    assert_eq!(none["sessions"], json!([]));
    for (query, field) in [
        ("state=openish", "state"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("cursor=x", "cursor"),
        ("guestid=x", "guestid"),
    ] {
        let refused = test_service.get(&format!("/v1/sessions?{query}")).await;
        assert_eq!(
            (refused.status.as_u16(), json(&refused)["field"].as_str()),
            (400, Some(field)),
            "{query}"
        );
    }
}

#[tokio::test]
async fn token_verify_endpoint_returns_validity_and_claims() {
    let test_service = TestService::new().await;
    let session = json(
        &test_service
            .create(
                &[],
                &json!({"guestId": "ann", "attributes": {"tier": "gold"}}),
            )
            .await,
    );
    let verify = async |token: &str| {
        json(
            &test_service
                .post(
                    "/v1/tokens:verify",
                    Scope::TokensVerify,
                    &[],
                    &json!({"token": token}),
                )
                .await,
        )
    };
    let good = verify(session["guestToken"].as_str().unwrap()).await;
    assert_eq!(
        (
            good["valid"].as_bool(),
            good["guestId"].as_str(),
            good["claims"]["tier"].as_str()
        ),
        (Some(true), Some("ann"), Some("gold"))
    );
    let bad = verify("eyJhbGciOiJub25lIn0.e30.").await;
    assert_eq!(
        (bad["valid"].as_bool(), bad.get("guestId")),
        (Some(false), None)
    );
    assert!(!bad["reason"].as_str().unwrap().is_empty());
}
