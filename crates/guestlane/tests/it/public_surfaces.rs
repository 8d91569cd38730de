//! Sessions on the public platform's surfaces: the requests that are sent, the results that are
//! found again, and the errors that are reported.

use std::time::Duration;

use guestlane::{Error, SessionEngine, TokenRequestAuth, Workspace, messaging::FirstMessage};
use guestlane_core::{
    request::{Attributes, ContactDetails, SessionRequest},
    session::{self, SurfaceBinding},
    surface::Surface,
};
use guestlane_genesys::{Operation, Rate};
use guestlane_sim::{DEPLOYMENT_ID, EXTERNAL_SOURCE_ID, Flow, UnknownDeployment};
use guestlane_testkit::{
    Backend::{self, Postgres, Sqlite},
    platform::{OPEN_MESSAGING, SALES, SUPPORT, TestPlatform, WEB_MESSAGING, request},
};
use rstest::rstest;
use serde_json::{Value, json};

/// Returns a harness whose inbound flow reads `routingTarget` and whose platform shows
/// conversations at once.
async fn web(backend: Backend) -> TestPlatform {
    of(backend, WEB_MESSAGING, |_| {}).await
}

async fn of(
    backend: Backend,
    surface: Surface,
    change: impl FnOnce(&mut guestlane_sim::Options),
) -> TestPlatform {
    let mut platform = TestPlatform::with(backend, change).await;
    platform.config.surface = surface;
    platform.config.credentials.sign_in = TokenRequestAuth::Basic;
    platform.config.messaging.external_source = Some(EXTERNAL_SOURCE_ID);
    platform
}

fn bodies(platform: &TestPlatform, route: &str) -> Vec<Value> {
    platform
        .journal(route)
        .iter()
        .map(|entry| serde_json::from_str(&entry.body).unwrap_or_default())
        .collect()
}

fn again(request: SessionRequest, key: &str) -> SessionRequest {
    SessionRequest {
        key: key.parse().unwrap(),
        ..request
    }
}

fn advice(error: &Error) -> (&'static str, String) {
    let advice = error.advice();
    (advice.code.name(), advice.fix)
}

async fn create_refused(platform: &TestPlatform, guest: &str) -> Error {
    platform
        .engine()
        .await
        .create(request(guest))
        .await
        .unwrap_err()
}

#[rstest]
#[tokio::test]
async fn web_messaging_sends_expected_frames_and_reaches_the_queue(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = web(backend).await;
    let person = ContactDetails::new(
        Some("Ada".into()),
        Some("Guest".into()),
        Some("ada@example.org".into()),
        Some("+31 20 555 0100".into()),
    );
    let wish = SessionRequest {
        contact_details: person.unwrap(),
        queue: SUPPORT.parse().unwrap(),
        ..request("user-8842-xyz")
    };
    let opened = platform.engine().await.create(wish).await.unwrap();

    let identifier =
        json!({"externalSource": {"id": EXTERNAL_SOURCE_ID}, "value": "user-8842-xyz"});
    assert_eq!(
        bodies(&platform, "contact")[0],
        json!({
            "matchingIdentifiers": [{"type": "ExternalId", "value": "user-8842-xyz", "externalSource": {"id": EXTERNAL_SOURCE_ID}}],
            "action": "Upsert",
            "contact": {
                "firstName": "Ada", "lastName": "Guest", "personalEmail": "ada@example.org",
                "cellPhone": {"display": "+31 20 555 0100"}, "externalIds": [identifier],
            },
        })
    );
    let mut frames: Vec<Value> = ["configure", "message"]
        .into_iter()
        .flat_map(|route| bodies(&platform, route))
        .collect();
    frames
        .iter_mut()
        .for_each(|frame| drop(frame.as_object_mut().unwrap().remove("tracingId")));
    assert_eq!(
        frames,
        [
            json!({"action": "configureSession", "token": "***", "deploymentId": DEPLOYMENT_ID}),
            json!({"action": "onMessage", "token": "***", "message": {"type": "Text", "text": "Hello", "channel": {"metadata": {
                "customAttributes": {"guestId": "user-8842-xyz", "routingTarget": SUPPORT, "source": "web-portal", "tier": "premium"},
            }}}}),
        ]
    );
    assert_eq!(
        platform.journal("socket")[0].headers["origin"],
        "https://localhost"
    );
    let state = platform.sim.state();
    assert_eq!((state.linked, state.transfers, state.sockets), (1, 0, 0));
    assert_eq!(
        state.queues[&SUPPORT.parse().unwrap()],
        1,
        "the inbound flow read routingTarget"
    );
    platform.assert_each_guest_once(1);
    assert_eq!(
        opened.session.attempts, 5,
        "contact, message, details, conversation, link"
    );
    let life = Duration::from_secs(259_200);
    assert!(
        opened
            .session
            .guest_session_expires_at
            .unwrap()
            .since(platform.clock.now())
            <= life
    );
    assert!(
        opened.guest_session.is_some(),
        "with it a browser takes over"
    );
}

#[rstest]
#[tokio::test]
async fn guest_session_token_is_readable_only_with_the_master_key(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = web(backend).await;
    let engine = platform.engine().await;
    let opened = engine.create(request("ann")).await.unwrap();
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    let token = opened.guest_session.unwrap();
    let needle = token.expose().as_bytes();
    for directory in ["", "audit"] {
        for file in std::fs::read_dir(platform.directory.path().join(directory))
            .unwrap()
            .flatten()
        {
            let bytes = std::fs::read(file.path()).unwrap_or_default();
            assert!(
                !bytes.windows(needle.len()).any(|window| window == needle),
                "{:?}",
                file.path()
            );
        }
    }
    assert!(!format!("{:?}", platform.sim.crm_events()).contains(token.expose()));
    assert!(
        !format!(
            "{:?}",
            engine.store().session(opened.session.id).await.unwrap()
        )
        .contains(token.expose())
    );
    let state = Workspace::open_read_only(&platform.config.storage, &platform.clock())
        .await
        .unwrap();
    assert_eq!(
        state.guest_session(&opened.session).unwrap(),
        Some(token),
        "and is readable with the master key"
    );
}

#[rstest]
#[tokio::test]
async fn replay_returns_the_same_guest_session_token_without_calls(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = web(backend).await;
    let engine = platform.engine().await;
    let first = engine.create(request("ann")).await.unwrap();
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    let calls = platform.sim.state().calls;
    let second = platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap();
    assert!(second.replayed && second.guest_session == first.guest_session);
    let mut now = platform.sim.state().calls;
    now.insert("queue", calls["queue"]);
    now.insert("token", calls["token"]);
    assert_eq!(now, calls);
}

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
async fn conversation_is_transferred_when_the_flow_ignores_the_queue(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for surface in [WEB_MESSAGING, OPEN_MESSAGING] {
        let mut platform = of(backend, surface, |options| options.flow = Flow::Ignores).await;
        platform.config.messaging.move_to_queue = true;
        let engine = platform.engine().await;
        engine
            .create(SessionRequest {
                queue: SUPPORT.parse().unwrap(),
                ..request("ann")
            })
            .await
            .unwrap();
        // The flow's own choice happens to be bob's queue.
        engine.create(request("bob")).await.unwrap();
        let state = platform.sim.state();
        assert_eq!(state.transfers, 1);
        assert_eq!(
            (
                state.queues[&SALES.parse().unwrap()],
                state.queues[&SUPPORT.parse().unwrap()]
            ),
            (1, 1)
        );
    }
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
    engine
        .recover_abandoned()
        .await
        .unwrap()
        .pop()
        .unwrap()
        .unwrap();
    let state = platform.sim.state();
    assert_eq!(
        (state.calls["link"], state.transfers, state.linked),
        (1, 1, 1)
    );
}

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
    engine
        .recover_abandoned()
        .await
        .unwrap()
        .pop()
        .unwrap()
        .unwrap();
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
    engine
        .recover_abandoned()
        .await
        .unwrap()
        .pop()
        .unwrap()
        .unwrap();
    assert_eq!(
        platform.sim.state().calls["open-message"],
        1,
        "the message's id is on record"
    );
}

#[rstest]
#[tokio::test]
async fn failed_session_restarts_on_the_currently_configured_surface(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = web(backend).await;
    let right = platform.config.surface.clone();
    platform.config.surface = Surface::WebMessaging {
        deployment: uuid::Uuid::nil(),
    };
    create_refused(&platform, "ann").await;
    platform.config.surface = right;
    let opened = platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap();
    assert_eq!(opened.session.surface_binding.surface(), WEB_MESSAGING);
    platform.assert_each_guest_once(1);
    let kept = platform
        .engine()
        .await
        .store()
        .session(opened.session.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        kept.surface_binding, opened.session.surface_binding,
        "and stays on it"
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
        platform
            .engine()
            .await
            .recover_abandoned()
            .await
            .unwrap()
            .pop()
            .unwrap()
            .unwrap();
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
async fn store_accepts_any_oauth_client_of_its_organization_only(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let with_second = |options: &mut guestlane_sim::Options| {
        let mut second = options.clients[0].clone();
        second.id = "second".to_owned();
        options.clients.push(second);
    };
    let mut platform = of(backend, WEB_MESSAGING, with_second).await;
    platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap();
    assert_eq!(platform.sim.state().calls["token-info"], 1);
    platform
        .engine()
        .await
        .create(request("bob"))
        .await
        .unwrap();
    assert_eq!(
        platform.sim.state().calls["token-info"],
        1,
        "a known client is not looked up again"
    );
    platform.config.credentials.clients[0].id = "second".to_owned();
    platform
        .engine()
        .await
        .create(request("eve"))
        .await
        .unwrap();
    assert_eq!(platform.sim.state().calls["token-info"], 2);

    platform.config.credentials.clients[0].id = "sim-client".to_owned();
    platform.faults(&["token-info:500:first=2"]);
    // The call is retried until it succeeds.
    platform
        .engine()
        .await
        .create(request("dan"))
        .await
        .unwrap();
    platform.faults(&["token-info:500"]);
    platform.config.credentials.clients[0].id = "second".to_owned();
    let error = platform
        .engine()
        .await
        .create(request("joe"))
        .await
        .unwrap_err();
    assert_eq!(advice(&error).0, "platform_failing");
    assert_eq!(
        platform.sim.state().contacts,
        4,
        "nothing is created before it is known for whom"
    );
    platform.faults(&[]);

    platform.sql("UPDATE platform SET organization = 'another', client_id = 'another'");
    let error = platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("belongs to the organization another"),
        "{error}"
    );
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
        error.advice().fix.contains("GENESYS_FIRST_MESSAGE"),
        "{:?}",
        error.advice()
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
async fn open_messaging_conversation_comes_from_response_or_details(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for (prefetch, looked) in [(true, 0), (false, 1)] {
        let platform = of(backend, OPEN_MESSAGING, |options| {
            options.prefetch = prefetch
        })
        .await;
        let opened = platform
            .engine()
            .await
            .create(request("ann"))
            .await
            .unwrap();
        assert_eq!(platform.sim.state().calls["details"], looked);
        let sent = &bodies(&platform, "open-message")[0];
        let id = opened.session.id.to_string();
        assert_eq!(
            (
                &sent["channel"]["from"]["id"],
                &sent["channel"]["messageId"]
            ),
            (&json!(id), &json!(id))
        );
        assert_eq!(
            sent["channel"]["metadata"]["customAttributes"]["routingTarget"],
            SALES
        );
        platform.assert_each_guest_once(1);
    }
}

#[rstest]
#[tokio::test]
async fn open_messaging_resends_identical_bytes_into_one_conversation(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for dedupe in [true, false] {
        let platform = of(backend, OPEN_MESSAGING, |options| {
            options.dedupe_open_messages = dedupe
        })
        .await;
        platform.faults(&["open-message:answer-lost:nth=1"]);
        platform
            .engine()
            .await
            .create(request("ann"))
            .await
            .unwrap();
        let sent = platform.journal("open-message");
        assert_eq!((sent.len(), &sent[0].body), (2, &sent[1].body));
        platform.assert_each_guest_once(1);
        assert_eq!(
            platform.sim.state().repeated_first_messages,
            u64::from(!dedupe)
        );
    }
}

#[rstest]
#[tokio::test]
async fn oversized_attributes_are_rejected_before_any_request(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = web(backend).await;
    let wide = |bytes: usize| SessionRequest {
        attributes: Attributes::from_pairs([("a", "x".repeat(bytes - 1))]).unwrap(),
        ..request("ann")
    };
    let ours = "guestId".len() + "ann".len() + "routingTarget".len() + SALES.len();
    let error = platform
        .engine()
        .await
        .create(wide(2048 - ours + 1))
        .await
        .unwrap_err();
    assert_eq!(error.field(), Some("attributes"));
    assert!(platform.sim.journal().is_empty());
    platform
        .engine()
        .await
        .create(wide(2048 - ours))
        .await
        .unwrap();
}

#[rstest]
#[tokio::test]
async fn guest_token_is_sent_up_to_the_exact_attribute_size_limit(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for (spare, sent) in [(0, true), (-1, false)] {
        let mut platform = web(backend).await;
        platform.config.messaging.send_guest_token = true;
        let engine = platform.engine().await;
        let first = engine
            .create(SessionRequest {
                attributes: Attributes::default(),
                ..request("ann")
            })
            .await
            .unwrap();
        let fixed = "guestId".len() + 3 + "routingTarget".len() + SALES.len() + "guestToken".len();
        // The token contains the attribute too, in base64. Search for the length that exactly
        // reaches the limit.
        let length = |n: usize| {
            let attributes = Attributes::from_pairs([("a", "x".repeat(n))]).unwrap();
            let token = guestlane_core::token::GuestToken::placeholder(
                &"bob".parse().unwrap(),
                &attributes,
                "webchat-guest-key-v1",
            );
            fixed + 1 + n + token.expose().len()
        };
        let n = (1..2000).find(|n| length(*n) > 2048).unwrap() - 1;
        let n = if spare == 0 { n } else { n + 1 };
        let attributes = Attributes::from_pairs([("a", "x".repeat(n))]).unwrap();
        engine
            .create(SessionRequest {
                attributes,
                ..request("bob")
            })
            .await
            .unwrap();
        let attributes =
            bodies(&platform, "message")[1]["message"]["channel"]["metadata"]["customAttributes"]
                .clone();
        assert_eq!(
            attributes["guestToken"].is_string(),
            sent,
            "{n} bytes, {}",
            length(n)
        );
        assert!(first.guest_session.is_some());
    }
}

#[rstest]
#[tokio::test]
async fn guest_token_is_sent_when_it_fits_beside_the_attributes(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = web(backend).await;
    platform.config.messaging.send_guest_token = true;
    let engine = platform.engine().await;
    let opened = engine.create(request("ann")).await.unwrap();
    let wide = Attributes::from_pairs([("a", "x".repeat(1500))]).unwrap();
    engine
        .create(SessionRequest {
            attributes: wide,
            ..request("bob")
        })
        .await
        .unwrap();
    let sent = |n: usize| {
        bodies(&platform, "message")[n]["message"]["channel"]["metadata"]["customAttributes"]
            .clone()
    };
    assert_eq!(sent(0)["guestToken"], opened.guest_token.expose());
    assert_eq!(
        (sent(1)["guestToken"].clone(), sent(1)["guestId"].clone()),
        (Value::Null, json!("bob"))
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
async fn throttled_sign_in_is_rate_limited_and_wrong_secret_not_retried(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = of(backend, WEB_MESSAGING, |options| {
        options.token_quota = Some("1/min".parse::<Rate>().unwrap())
    })
    .await;
    platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap();
    platform.sim.revoke_tokens(); // on PostgreSQL, processes share the token and would not request one
    let error = create_refused(&platform, "bob").await;
    assert_eq!(advice(&error).0, "rate_limited");

    for status in [400, 401] {
        let status = http::StatusCode::from_u16(status).unwrap();
        let mut platform = of(backend, WEB_MESSAGING, |options| {
            options.bad_client_status = status
        })
        .await;
        platform.config.credentials.clients[0].secret = "wrong".to_owned().into();
        let error = create_refused(&platform, "ann").await;
        assert_eq!(advice(&error).0, "auth_failed", "{status}");
        assert_eq!(platform.sim.state().calls["token"], 1);
    }
}

#[rstest]
#[tokio::test]
async fn unknown_deployment_or_forbidden_origin_names_the_setting(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for unknown in [
        UnknownDeployment::Upgrade(http::StatusCode::NOT_FOUND),
        UnknownDeployment::Configure,
    ] {
        let mut platform = of(backend, WEB_MESSAGING, |options| {
            options.unknown_deployment = unknown
        })
        .await;
        platform.config.surface = Surface::WebMessaging {
            deployment: uuid::Uuid::nil(),
        };
        let error = create_refused(&platform, "ann").await;
        assert!(
            advice(&error).1.contains("GENESYS_DEPLOYMENT_ID"),
            "{:?}",
            error.advice()
        );
        assert!(
            error.correlation_id().is_some(),
            "something to quote to support"
        );
    }
    let platform = of(backend, WEB_MESSAGING, |options| {
        options.deployment.allow_all_domains = false;
        options.deployment.allowed_domains = vec!["example.com".to_owned()];
    })
    .await;
    let error = create_refused(&platform, "ann").await;
    assert!(
        advice(&error).0 == "forbidden" && advice(&error).1.contains("GENESYS_ORIGIN"),
        "{:?}",
        error.advice()
    );
    assert_eq!(
        platform.sim.state().calls["socket"],
        1,
        "a refusal is not repeated"
    );
}

#[rstest]
#[tokio::test]
async fn missing_permission_is_named_and_session_completes_once_granted(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for (permission, operation) in [
        ("externalContacts:contact:enrich", Operation::EnrichContact),
        ("conversation:communication:view", Operation::Conversation),
    ] {
        let platform = of(backend, WEB_MESSAGING, |options| {
            let mut poor = options.clients[0].clone();
            poor.scopes.retain(|scope| scope != permission);
            poor.id = "poor".to_owned();
            options.clients.push(poor);
        })
        .await;
        let mut poor = platform.config.clone();
        poor.credentials.clients[0].id = "poor".to_owned();
        let error = SessionEngine::open(poor, platform.clock())
            .await
            .unwrap()
            .create(request("ann"))
            .await
            .unwrap_err();
        assert!(
            advice(&error).1.contains(operation.permissions()[0]),
            "{:?}",
            error.advice()
        );
        platform
            .engine()
            .await
            .create(request("ann"))
            .await
            .unwrap();
        platform.assert_each_guest_once(1);
        assert_eq!(platform.sim.state().calls["message"], 1);
    }
}

#[rstest]
#[tokio::test]
async fn session_keeps_its_surface_after_a_settings_change(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = web(backend).await;
    platform.faults(&["details:500"]);
    let engine = platform.engine().await;
    engine.create(request("ann")).await.unwrap_err();
    platform.faults(&[]);
    platform.config.surface = OPEN_MESSAGING;
    platform.clock.advance(Duration::from_secs(60));
    let opened = platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap();
    assert!(matches!(
        opened.session.surface_binding,
        SurfaceBinding::WebMessaging { .. }
    ));
    assert_eq!(platform.sim.state().calls["open-message"], 0);
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
