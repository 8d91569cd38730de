//! Contacts: created once, found again, replaced after the platform deleted them.

use super::*;

#[rstest]
#[tokio::test]
async fn returning_guest_gets_no_second_contact(#[values(Sqlite, Postgres)] backend: Backend) {
    for (source, contact_details) in [
        (Some(EXTERNAL_SOURCE_ID), ContactDetails::default()),
        (
            None,
            ContactDetails::new(None, None, Some("ann@example.org".into()), None).unwrap(),
        ),
        (
            None,
            ContactDetails::new(None, None, None, Some("+31 20 555 0100".into())).unwrap(),
        ),
        (None, ContactDetails::default()),
    ] {
        let mut platform = web(backend).await;
        platform.config.messaging.external_source = source;
        let wish = SessionRequest {
            contact_details,
            ..request("ann")
        };
        let engine = platform.engine().await;
        let first = engine
            .create(wish.clone())
            .await
            .unwrap()
            .session
            .contact_id;
        let second = engine
            .create(again(wish, "later"))
            .await
            .unwrap()
            .session
            .contact_id;
        assert!(first.is_some() && first == second);
        let state = platform.sim.state();
        assert_eq!(
            (state.contacts, state.conversations, state.linked),
            (1, 2, 2)
        );
    }
}

#[rstest]
#[tokio::test]
async fn contact_without_identifier_is_not_retried_after_lost_response(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for fault in [
        "contact:answer-lost",
        "contact:502-after",
        "contact:504-after",
        "contact:truncated",
        "contact:reset-after",
    ] {
        let mut platform = web(backend).await;
        platform.config.messaging.external_source = None;
        platform.faults(&[fault]);
        let opened = platform
            .engine()
            .await
            .create(request("ann"))
            .await
            .unwrap();
        assert!(
            opened.session.contact_id_lost && opened.session.contact_id.is_none(),
            "{fault}"
        );
        let state = platform.sim.state();
        assert_eq!(
            (state.contacts, state.conversations, state.linked),
            (1, 1, 0),
            "{fault}"
        );
    }
    // A call that certainly had no effect is repeated.
    let mut platform = web(backend).await;
    platform.config.messaging.external_source = None;
    platform.faults(&["contact:429:first=2"]);
    platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap();
    let state = platform.sim.state();
    assert_eq!(
        (state.contacts, state.conversations, state.linked),
        (1, 1, 1)
    );
}

#[rstest]
#[tokio::test]
async fn contact_409_is_resolved_by_lookup_or_reported(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = web(backend).await;
    let engine = platform.engine().await;
    let first = engine
        .create(request("ann"))
        .await
        .unwrap()
        .session
        .contact_id;
    platform.faults(&["contact:409:nth=1"]);
    assert_eq!(
        engine
            .create(again(request("ann"), "later"))
            .await
            .unwrap()
            .session
            .contact_id,
        first
    );
    platform.faults(&["contact:409"]);
    let error = engine.create(request("bob")).await.unwrap_err();
    assert_eq!(advice(&error).0, "contact_conflict");
}

#[rstest]
#[tokio::test]
async fn recovery_does_not_repeat_a_completed_contact_link(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = of(backend, WEB_MESSAGING, |options| {
        options.flow = Flow::Ignores
    })
    .await;
    platform.config.messaging.move_to_queue = true;
    let engine = platform.engine().await;
    platform.faults(&["transfer:500:nth=1"]);
    let wish = SessionRequest {
        queue: SUPPORT.parse().unwrap(),
        ..request("ann")
    };
    engine.create(wish).await.unwrap_err();
    platform.clock.advance(Duration::from_secs(60));
    recover_one(&engine).await.unwrap();
    let state = platform.sim.state();
    assert_eq!(
        (state.calls["link"], state.transfers, state.linked),
        (1, 1, 1)
    );
}

#[rstest]
#[tokio::test]
async fn shared_phone_number_does_not_block_a_second_guest(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = web(backend).await;
    let engine = platform.engine().await;
    let shared = || ContactDetails::new(None, None, None, Some("+31 20 555 0100".into())).unwrap();
    for guest in ["ann", "bob"] {
        platform.faults(if guest == "bob" {
            &["contact:409:nth=1"]
        } else {
            &[]
        });
        engine
            .create(SessionRequest {
                contact_details: shared(),
                ..request(guest)
            })
            .await
            .unwrap();
    }
    platform.assert_each_guest_once(2);
    assert_eq!(
        bodies(&platform, "contact").last().unwrap()["contact"]["cellPhone"],
        Value::Null
    );
}

#[rstest]
#[tokio::test]
async fn email_is_rejected_on_the_rest_surface(#[values(Sqlite, Postgres)] backend: Backend) {
    let platform = TestPlatform::new(backend).await;
    let contact_details =
        ContactDetails::new(None, None, Some("ann@example.org".into()), None).unwrap();
    let error = platform
        .engine()
        .await
        .create(SessionRequest {
            contact_details,
            ..request("ann")
        })
        .await
        .unwrap_err();
    assert_eq!(error.field(), Some("email"));
    assert!(platform.sim.journal().is_empty());
}

#[rstest]
#[tokio::test]
async fn guest_erasure_removes_contact_details_and_session_token(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = web(backend).await;
    let engine = platform.engine().await;
    let contact_details = ContactDetails::new(
        Some("Canary".into()),
        None,
        Some("canary@example.org".into()),
        None,
    )
    .unwrap();
    let opened = engine
        .create(SessionRequest {
            contact_details,
            ..request("ann")
        })
        .await
        .unwrap();
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    engine
        .store()
        .erase_guest("ann".parse().unwrap(), platform.clock.now())
        .await
        .unwrap();
    let erased = engine
        .store()
        .session(opened.session.id)
        .await
        .unwrap()
        .unwrap();
    assert!(erased.request.contact_details.is_empty());
    assert_eq!(platform.state().await.guest_session(&erased).unwrap(), None);
    drop(engine);
    let bytes = platform.stored_bytes();
    assert!(
        !bytes
            .windows(6)
            .any(|window| window == b"Canary" || window == b"canary")
    );
}

/// The platform deletes a contact after 60 days without interaction, while the store still has its
/// ID. Regression test: the guest never reached the queue again.
#[rstest]
#[tokio::test]
async fn contact_deleted_by_the_platform_is_recreated_once(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for surface in [WEB_MESSAGING, OPEN_MESSAGING] {
        for with_source in [false, true] {
            let mut platform = TestPlatform::on(backend, &surface).await;
            if !with_source {
                platform.config.messaging.external_source = None;
            }
            let engine = platform.engine().await;
            let first = engine.create(request("ann")).await.unwrap().session;
            platform.sim.forget_contacts();
            platform.clock.advance(Duration::from_secs(1));
            let second = engine
                .create(again(request("ann"), "second"))
                .await
                .unwrap()
                .session;
            platform.clock.advance(Duration::from_secs(1));
            let third = engine
                .create(again(request("ann"), "third"))
                .await
                .unwrap()
                .session;
            assert_ne!(first.contact_id, second.contact_id);
            assert_eq!(second.contact_id, third.contact_id, "made once");
            let state = platform.sim.state();
            assert_eq!(
                (state.contacts, state.conversations, state.linked),
                (1, 3, 3),
                "{surface:?}"
            );
        }
    }
}

#[rstest]
#[tokio::test]
async fn guest_is_connected_without_contact_if_recreation_fails(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = TestPlatform::on(backend, &WEB_MESSAGING).await;
    platform.config.messaging.external_source = None;
    let engine = platform.engine().await;
    engine.create(request("ann")).await.unwrap();
    platform.sim.forget_contacts();
    platform.faults(&["contact:answer-lost"]);
    let second = engine
        .create(again(request("ann"), "second"))
        .await
        .unwrap()
        .session;
    assert_eq!(
        (second.state, second.contact_id),
        (session::SessionState::Open, None)
    );
    assert_eq!(platform.sim.state().conversations, 2);
}

/// The crash occurs between forgetting the deleted contact and storing its replacement.
#[cfg(debug_assertions)]
#[rstest]
#[tokio::test]
async fn crash_during_contact_replacement_creates_no_second_contact(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    use guestlane_runtime::{FailPoint, FailPoints};
    for fail_point in [FailPoint::ContactRemoved, FailPoint::ContactCreated] {
        let mut platform = TestPlatform::on(backend, &OPEN_MESSAGING).await;
        platform.config.messaging.external_source = None;
        platform
            .engine()
            .await
            .create(request("ann"))
            .await
            .unwrap();
        platform.sim.forget_contacts();
        let mut config = platform.config.clone();
        config.storage.fail_points = FailPoints::new(move |passed| passed == fail_point);
        let dying = guestlane::SessionEngine::open(config, platform.clock())
            .await
            .unwrap();
        let creating =
            tokio::spawn(async move { dying.create(again(request("ann"), "second")).await });
        platform
            .clock()
            .sleep(std::time::Duration::from_secs(2))
            .await;
        creating.abort();
        let _ = creating.await;
        let engine = platform.engine().await;
        let second = engine
            .create(again(request("ann"), "second"))
            .await
            .unwrap();
        assert_eq!(second.session.state, session::SessionState::Open);
        let state = platform.sim.state();
        assert!(
            state.contacts <= 1 && state.conversations == 2,
            "{fail_point:?}: {state:?}"
        );
    }
}
