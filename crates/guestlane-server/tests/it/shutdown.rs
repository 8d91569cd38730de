//! Graceful shutdown: the service accepts no new requests and loses no sessions.

use std::time::Duration;

use http::Method;
use serde_json::json;

use guestlane_testkit::service::{TestService, json, settings};

#[tokio::test]
async fn accepted_sessions_complete_before_shutdown() {
    let mut test_service = TestService::with(
        |platform| platform.latency = Duration::from_millis(300),
        settings(),
    )
    .await;
    let accepted = test_service
        .create(&[("prefer", "respond-async")], &json!({"guestId": "ann"}))
        .await;
    assert_eq!(accepted.status, 202);
    test_service.shut_down().await;
    let sessions = test_service
        .engine
        .store()
        .sessions(guestlane_store::SessionFilter {
            limit: 5,
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!(
        sessions.sessions[0].state,
        guestlane_core::session::SessionState::Open
    );
    test_service.assert_each_guest_once(1);
}

#[tokio::test]
async fn shutdown_completes_request_in_flight_and_refuses_connections() {
    let mut test_service = TestService::with(
        |platform| platform.latency = Duration::from_millis(300),
        settings(),
    )
    .await;
    assert_eq!(
        test_service
            .send(Method::GET, "/readyz", &[], "")
            .await
            .status,
        200
    );
    let request = json!({"guestId": "ann"});
    let (answer, ()) = tokio::join!(test_service.create(&[], &request), async {
        test_service
            .until(async |test_service| {
                test_service.engine.store().unfinished().await.unwrap() == 1
            })
            .await;
        test_service.start_shutdown();
    });
    assert_eq!(answer.status, 201);
    test_service.shut_down().await;
    let host = test_service.address.strip_prefix("http://").unwrap();
    assert!(
        tokio::net::TcpStream::connect(host).await.is_err(),
        "the listener is closed"
    );
    test_service.assert_each_guest_once(1);
}

#[tokio::test]
async fn overload_gets_429_and_accepted_sessions_are_created_once() {
    let mut settings = settings();
    settings.max_sessions = 4;
    let test_service = TestService::with(
        |platform| platform.latency = Duration::from_millis(100),
        settings,
    )
    .await;
    let requests: Vec<_> = (0..40)
        .map(|guest| json!({"guestId": format!("guest-{guest}")}))
        .collect();
    let answers = futures_util::future::join_all(
        requests
            .iter()
            .map(|request| test_service.create(&[], request)),
    )
    .await;
    let (taken, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 201);
    assert!(
        taken.len() >= 4 && !refused.is_empty(),
        "{} taken",
        taken.len()
    );
    for answer in &refused {
        assert_eq!(
            (answer.status.as_u16(), json(answer)["code"].as_str()),
            (429, Some("overloaded"))
        );
        assert!(["1", "2", "3"].contains(&answer.headers["retry-after"].to_str().unwrap()));
        assert!(
            json(answer)["idempotencyKey"].is_string(),
            "under which to ask again"
        );
    }
    test_service.assert_each_guest_once(taken.len() as u64);
}
