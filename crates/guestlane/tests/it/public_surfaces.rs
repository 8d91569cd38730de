//! Sessions on the public platform's surfaces: the requests that are sent, the results that are
//! found again, and the errors that are reported.

mod contacts;
mod guest_messages;
mod open_messaging;
mod refusals;

use std::time::Duration;

use guestlane::{
    CreatedSession, Error, SessionEngine, TokenRequestAuth, Workspace, messaging::FirstMessage,
};
use guestlane_core::{
    request::{Attributes, ContactDetails, SessionRequest},
    session::{self, SurfaceBinding},
    surface::Surface,
};
use guestlane_genesys::{Operation, Rate};
use guestlane_server::diagnosis;
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
    let advice = diagnosis::of(error);
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

/// Resumes the one abandoned session.
async fn recover_one(engine: &SessionEngine) -> Result<CreatedSession, Error> {
    let mut resumed = engine.recover_abandoned().await.unwrap();
    assert_eq!(resumed.len(), 1, "{resumed:?}");
    resumed.remove(0)
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
