//! The first message: sent once, found again in the history.

use super::*;

#[rstest]
#[tokio::test]
async fn late_conversation_details_are_polled_or_recovered_later(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = of(backend, WEB_MESSAGING, |options| {
        options.details_delay = Duration::from_secs(20)
    })
    .await;
    platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap();
    assert!(platform.sim.state().calls["details"] > 3);

    let platform = of(backend, WEB_MESSAGING, |options| {
        options.details_delay = Duration::from_secs(90)
    })
    .await;
    let engine = platform.engine().await;
    let error = engine.create(request("ann")).await.unwrap_err();
    assert_eq!(advice(&error).0, "not_ready");
    platform.clock.advance(Duration::from_secs(60));
    recover_one(&engine).await.unwrap();
    platform.assert_each_guest_once(1);
    assert_eq!(
        platform.sim.state().calls["message"],
        1,
        "what was said is not said again"
    );

    let late = |options: &mut guestlane_sim::Options| {
        options.details_delay = Duration::from_secs(90);
        options.prefetch = false;
    };
    let platform = of(backend, OPEN_MESSAGING, late).await;
    let engine = platform.engine().await;
    engine.create(request("ann")).await.unwrap_err();
    platform.clock.advance(Duration::from_secs(60));
    recover_one(&engine).await.unwrap();
    assert_eq!(
        platform.sim.state().calls["open-message"],
        1,
        "the message's id is on record"
    );
}

#[rstest]
#[tokio::test]
async fn sent_message_completes_late_and_an_unknown_one_is_not_resent(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for surface in [WEB_MESSAGING, OPEN_MESSAGING] {
        let platform = of(backend, surface, |_| {}).await;
        platform.faults(&["link:500"]);
        let engine = platform.engine().await;
        engine.create(request("ann")).await.unwrap_err();
        platform.faults(&[]);
        platform.clock.advance(Duration::from_secs(30 * 3600));
        recover_one(&*platform.engine().await).await.unwrap();
        platform.assert_each_guest_once(1);
    }
    let platform = of(backend, OPEN_MESSAGING, |_| {}).await;
    platform.faults(&["open-message:answer-lost"]);
    platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap_err();
    platform.faults(&[]);
    platform.clock.advance(Duration::from_secs(2 * 3600));
    let error = platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap_err();
    assert_eq!(advice(&error).0, "needs_attention");
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn session_expired_with_outcome_unknown_needs_attention(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = of(backend, WEB_MESSAGING, |options| {
        options.deployment.session_seconds = 900
    })
    .await;
    platform.faults(&["message:answer-lost", "history:500"]);
    platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap_err();
    platform.faults(&[]);
    platform.clock.advance(Duration::from_secs(1200));
    let error = platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap_err();
    assert_eq!(advice(&error).0, "needs_attention", "{error}");
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn lost_message_echo_is_found_in_history_without_resending(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for fault in [
        "answer-lost",
        "reset-after",
        "502-after",
        "504-after",
        "truncated",
        "not-json",
        "empty",
        "wrong-types",
    ] {
        let platform = web(backend).await;
        platform.faults(&[&format!("message:{fault}:nth=1")]);
        platform
            .engine()
            .await
            .create(request("ann"))
            .await
            .unwrap();
        let state = platform.sim.state();
        assert_eq!(
            (
                state.calls["message"],
                state.calls["history"],
                state.repeated_first_messages
            ),
            (1, 1, 0),
            "{fault}"
        );
        platform.assert_each_guest_once(1);
    }
}

#[rstest]
#[tokio::test]
async fn lagging_history_is_reread_before_the_message_is_resent(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for (stale, repeated) in [("history:stale:first=1", 0), ("history:stale:first=2", 1)] {
        let platform = web(backend).await;
        platform.faults(&["message:answer-lost:nth=1", stale]);
        platform
            .engine()
            .await
            .create(request("ann"))
            .await
            .unwrap();
        assert_eq!(
            platform.sim.state().repeated_first_messages,
            repeated,
            "{stale}"
        );
        platform.assert_each_guest_once(1);
    }
}

#[rstest]
#[tokio::test]
async fn new_session_does_not_read_the_message_history(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = web(backend).await;
    platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap();
    assert_eq!(
        (
            platform.sim.state().calls["jwt"],
            platform.sim.state().calls["history"]
        ),
        (0, 0)
    );
}

#[rstest]
#[tokio::test]
async fn join_event_opens_the_conversation_or_error_names_the_setting(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = web(backend).await;
    platform.config.messaging.first_message = FirstMessage::Join;
    platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap();
    assert_eq!(
        bodies(&platform, "message")[0]["message"]["events"][0]["presence"]["type"],
        "Join"
    );

    let mut platform = of(backend, WEB_MESSAGING, |options| options.join_opens = false).await;
    platform.config.messaging.first_message = FirstMessage::Join;
    let error = create_refused(&platform, "ann").await;
    assert!(
        diagnosis::of(&error).fix.contains("GENESYS_FIRST_MESSAGE"),
        "{:?}",
        diagnosis::of(&error)
    );
}

#[rstest]
#[tokio::test]
async fn out_of_order_frames_do_not_change_the_result(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = of(backend, WEB_MESSAGING, |options| {
        options.pushes_out_of_order = true;
        options.greeting = Some("Welcome!".to_owned());
    })
    .await;
    platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap();
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn session_with_a_sent_message_is_not_failed_by_a_403(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = web(backend).await;
    platform.faults(&["details:403"]);
    let engine = platform.engine().await;
    let error = engine.create(request("ann")).await.unwrap_err();
    let id = error.session().unwrap();
    assert_eq!(
        engine.store().session(id).await.unwrap().unwrap().state,
        session::SessionState::MessageSent,
        "it is completed later"
    );
    platform.faults(&[]);
    platform.clock.advance(Duration::from_secs(60));
    assert_eq!(engine.recover_abandoned().await.unwrap().len(), 1);
    platform.assert_each_guest_once(1);
}
