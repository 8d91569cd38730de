//! Graceful shutdown: the service accepts no new requests and loses no sessions.

use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::harness::{World, json, settings};

#[tokio::test]
async fn what_was_begun_is_finished_before_the_service_ends() {
    let mut world = World::with(
        |platform| platform.latency = Duration::from_millis(300),
        settings(),
    )
    .await;
    let accepted = world
        .create(&[("prefer", "respond-async")], &json!({"guestId": "ann"}))
        .await;
    assert_eq!(accepted.status, 202);
    world.ended().await;
    let sessions = world
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
    world.assert_each_guest_once(1);
}

#[tokio::test]
async fn who_was_waiting_is_answered_and_who_comes_later_is_not_taken() {
    let mut world = World::with(
        |platform| platform.latency = Duration::from_millis(300),
        settings(),
    )
    .await;
    assert_eq!(
        world.send(Method::GET, "/readyz", &[], "").await.status,
        200
    );
    let wish = json!({"guestId": "ann"});
    let (answer, ()) = tokio::join!(world.create(&[], &wish), async {
        world
            .until(async |world| world.engine.store().unfinished().await.unwrap() == 1)
            .await;
        world.end();
    });
    assert_eq!(answer.status, 201);
    world.ended().await;
    let host = world.address.strip_prefix("http://").unwrap();
    assert!(
        tokio::net::TcpStream::connect(host).await.is_err(),
        "nobody listens any more"
    );
    world.assert_each_guest_once(1);
}

#[tokio::test]
async fn more_than_can_be_served_soon_is_sent_back_at_once_and_nobody_is_lost() {
    let mut settings = settings();
    settings.max_sessions = 4;
    let world = World::with(
        |platform| platform.latency = Duration::from_millis(100),
        settings,
    )
    .await;
    let wishes: Vec<_> = (0..40)
        .map(|guest| json!({"guestId": format!("guest-{guest}")}))
        .collect();
    let answers =
        futures_util::future::join_all(wishes.iter().map(|wish| world.create(&[], wish))).await;
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
    world.assert_each_guest_once(taken.len() as u64);
}
