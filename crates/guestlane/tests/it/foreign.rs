//! Text from the platform is bounded and cleaned before it reaches a path, a record or a log.
//! Responses of an unexpected form are parsed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use guestlane::{Endpoints, TokenRequestAuth};
use guestlane_core::session::SessionState;
use guestlane_runtime::text::display_chain;
use guestlane_server::diagnosis;
use guestlane_store::RecordFilter;
use guestlane_testkit::{
    Backend::{self, Postgres, Sqlite},
    platform::{OPEN_MESSAGING, TestPlatform, fresh, request},
};
use rstest::rstest;
use serde_json::json;

use crate::peer::{Asked, Peer, Reply, json};

/// Starts a platform of the surface `rest` that succeeds, except for the requests that `odd`
/// answers.
fn platform(odd: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) -> Peer {
    Peer::start(move |asked| {
        odd(asked).unwrap_or_else(|| match asked.path.as_str() {
            "/api/v2/oauth/token" | "/oauth/token" => {
                json(200, r#"{"access_token":"a-token","expires_in":1800}"#)
            }
            "/api/v2/externalcontacts/contacts" => json(201, r#"{"id":"contact-1"}"#),
            "/api/v2/conversations/messaging" => json(201, r#"{"id":"conversation-1"}"#),
            _ => json(200, "{}"),
        })
    })
}

async fn against(backend: Backend, peer: &Peer) -> TestPlatform {
    let mut platform = TestPlatform::new(backend).await;
    platform.config.credentials.hosts = Endpoints::one_origin(peer.url.parse().unwrap());
    platform.config.webhooks = None;
    platform
}

#[rstest]
#[tokio::test]
async fn oversized_platform_texts_are_bounded_and_block_no_later_process(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let giant = "i".repeat(900_000);
    let odd: [(u16, serde_json::Value); 4] = [
        (
            500,
            json!({"contextId": giant, "code": giant, "message": giant}),
        ),
        (
            400,
            json!({"contextId": giant, "code": giant, "message": giant}),
        ),
        (201, json!({"id": giant})),
        (201, json!({"id": "two words"})),
    ];
    for (status, body) in odd {
        let sane = Arc::new(AtomicBool::new(false));
        let (is_sane, answer) = (Arc::clone(&sane), body.to_string());
        let peer = platform(move |asked| {
            let odd = asked.path.ends_with("/contacts") && !is_sane.load(Ordering::Relaxed);
            odd.then(|| json(status, &answer))
        });
        let platform = against(backend, &peer).await;
        let engine = platform.engine().await;
        let error = engine.create(request("ann")).await.unwrap_err();
        let told = format!(
            "{error} {} {}",
            display_chain(&error),
            diagnosis::of(&error).cause_for_caller()
        );
        assert!(told.len() < 10_000, "{status}: {}", told.len());
        let session = engine
            .store()
            .session(error.session().unwrap())
            .await
            .unwrap()
            .unwrap();
        assert!(
            session.contact_id.is_none() && session.state != SessionState::Open,
            "{session:?}"
        );
        let filter = RecordFilter {
            session: None,
            guest: None,
            limit: 100,
        };
        let records = engine.store().records(filter).await.unwrap();
        assert!(
            records.iter().all(|record| record.line.len() < 8192),
            "{status}"
        );
        drop(engine);
        assert!(platform.stored_bytes().len() < 5_000_000);

        sane.store(true, Ordering::Relaxed);
        let next = platform.engine().await;
        next.create(request("bob")).await.unwrap();
        platform.clock.advance(Duration::from_secs(600));
        assert_eq!(
            next.create(request("ann"))
                .await
                .unwrap()
                .session
                .contact_id
                .as_deref(),
            Some("contact-1")
        );
    }
}

#[rstest]
#[tokio::test]
async fn platform_ids_are_percent_encoded_as_one_path_segment(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let peer = Peer::start(|asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", "/oauth/token") => json(200, r#"{"access_token":"t"}"#),
        ("POST", path) if path.ends_with("/enrich") => json(201, r#"{"id":"contact/1?a#b"}"#),
        ("POST", path) if path.contains("/inbound/open/message") => {
            json(202, r#"{"id":"m/../../1"}"#)
        }
        ("GET", "/api/v2/conversations/messages/m%2F..%2F..%2F1/details") => {
            json(200, r#"{"conversationId":"c/%2e"}"#)
        }
        ("GET", "/api/v2/conversations/c%2F%252e") => json(
            200,
            r#"{"participants":[{"purpose":"customer","messages":[{"id":"s/1"}]},{"id":"w?","purpose":"workflow"}]}"#,
        ),
        ("PUT" | "POST", path) if path.contains("c%2F%252e") => json(202, ""),
        ("GET", "/api/v2/tokens/me") => json(200, r#"{"organization":null}"#),
        ("GET", path) if path.starts_with("/api/v2/routing/queues/") => json(200, r#"{"name":7}"#),
        _ => json(404, r#"{"code":"not.found"}"#),
    });
    let mut platform = TestPlatform::on(backend, &OPEN_MESSAGING).await;
    platform.config.credentials.hosts = Endpoints::one_origin(peer.url.parse().unwrap());
    platform.config.credentials.sign_in = TokenRequestAuth::Basic;
    platform.config.webhooks = None;
    let opened = platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap();
    assert_eq!(opened.session.conversation_id.as_deref(), Some("c/%2e"));
    let changes: Vec<_> = peer
        .asked()
        .into_iter()
        .filter(|asked| asked.path.contains("c%2F%252e"))
        .collect();
    let paths: Vec<_> = changes
        .iter()
        .map(|asked| format!("{} {}", asked.method, asked.path))
        .collect();
    assert_eq!(
        paths,
        [
            "GET /api/v2/conversations/c%2F%252e",
            "PUT /api/v2/externalcontacts/conversations/c%2F%252e",
            "POST /api/v2/conversations/c%2F%252e/participants/w%3F/replace/queue",
        ]
    );
    assert!(
        changes[1].body.contains(r#""communicationId":"s/1""#),
        "{}",
        changes[1].body
    );
}

#[rstest]
#[tokio::test]
async fn platform_error_text_reaches_only_its_caller(#[values(Sqlite, Postgres)] backend: Backend) {
    const SAID: &str = "HIV-positive, +31 20 555 0100";
    for field in [
        "message",
        "error_description",
        "description",
        "code",
        "error",
    ] {
        let body = json!({field: format!("Invalid value: {SAID}")}).to_string();
        let peer =
            platform(move |asked| asked.path.ends_with("/contacts").then(|| json(400, &body)));
        let platform = against(backend, &peer).await;
        let engine = platform.engine().await;
        let error = engine.create(request("ann")).await.unwrap_err();
        assert!(
            diagnosis::of(&error).cause_for_caller().contains(SAID),
            "{field}: the caller gets the message"
        );
        let problems = format!("{:?}", engine.metrics().failures_by_code());
        let shown = format!(
            "{error} {error:?} {} {} {}",
            display_chain(&error),
            error.redacted(),
            diagnosis::of(&error).cause
        );
        assert!(
            !shown.contains("HIV") && !problems.contains("HIV"),
            "{field}: {shown} {problems}"
        );
        assert_eq!(engine.metrics().failures_by_code().len(), 1);
        drop(engine);
        let kept = platform.stored_bytes();
        assert!(!kept.windows(3).any(|bytes| bytes == b"HIV"), "{field}");
        assert!(
            !platform
                .audit()
                .iter()
                .any(|record| record.to_string().contains("HIV")),
            "{field}"
        );
    }
}

#[rstest]
#[tokio::test]
async fn correlation_id_loses_control_and_bidi_characters(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let peer = platform(|asked| {
        let forged = r#"{"contextId":"c\r\n\u001b[2KThe session of ann is open.\u202e"}"#;
        asked.path.ends_with("/contacts").then(|| json(500, forged))
    });
    let platform = against(backend, &peer).await;
    let error = platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap_err();
    assert!(
        !error
            .redacted()
            .chars()
            .any(|c| c.is_control() || c == '\u{202e}'),
        "{}",
        error.redacted()
    );
    assert_eq!(
        error.correlation_id(),
        Some("c   [2KThe session of ann is open.")
    );
}

#[rstest]
#[tokio::test]
async fn token_response_with_missing_or_odd_fields_is_accepted(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for answer in [
        r#"{"access_token":"t","token_type":"bearer","expires_in":"1800"}"#,
        r#"{"access_token":"t","expires_in":1800.0}"#,
        r#"{"access_token":"t"}"#,
        r#"{"access_token":"t","expires_in":null,"token_type":null,"scope":7}"#,
    ] {
        let peer = platform(move |asked| asked.path.ends_with("/token").then(|| json(200, answer)));
        let platform = against(backend, &peer).await;
        platform
            .engine()
            .await
            .create(request("ann"))
            .await
            .unwrap_or_else(|error| panic!("{answer}: {}", display_chain(&error)));
        let sign_ins = peer
            .asked()
            .iter()
            .filter(|asked| asked.path.ends_with("/token"))
            .count();
        assert_eq!(sign_ins, 1, "{answer}");
    }
    // A token without `expires_in` is treated as short-lived: it is refreshed after five minutes,
    // not used for hours.
    let peer = platform(|asked| {
        asked
            .path
            .ends_with("/token")
            .then(|| json(200, r#"{"access_token":"t"}"#))
    });
    let platform = against(backend, &peer).await;
    let engine = platform.engine().await;
    for _ in 0..2 {
        engine.create(fresh("ann")).await.unwrap();
        platform.clock.advance(Duration::from_secs(400));
    }
    assert_eq!(
        peer.asked()
            .iter()
            .filter(|asked| asked.path.ends_with("/token"))
            .count(),
        2
    );
}

#[rstest]
#[tokio::test]
async fn malformed_access_token_is_neither_sent_nor_shown(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let long = "t".repeat(100_000);
    for token in ["", "two words", long.as_str()] {
        let body = json!({"access_token": token, "expires_in": 1800}).to_string();
        let peer = platform(move |asked| asked.path.ends_with("/token").then(|| json(200, &body)));
        let platform = against(backend, &peer).await;
        let error = platform
            .engine()
            .await
            .create(request("ann"))
            .await
            .unwrap_err();
        assert!(
            !display_chain(&error).contains("two words") && display_chain(&error).len() < 1000,
            "{}",
            display_chain(&error)
        );
        assert!(
            peer.asked()
                .iter()
                .all(|asked| asked.path.ends_with("/token")),
            "nothing is sent with it"
        );
    }
}

/// The wait is only in the message text, as some layers of the platform send it, and lasts longer
/// than three retries would.
#[rstest]
#[tokio::test]
async fn platform_429_is_retried_beyond_the_retry_limit(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for (fault, calls, least) in [
        ("contact:429-sentence:first=7,retry-after=5", 8, 35),
        ("contact:429:first=9", 10, 9),
        ("token:429-sentence:first=6", 1, 6),
    ] {
        let platform = TestPlatform::new(backend).await;
        platform.faults(&[fault]);
        let before = platform.clock.now();
        platform
            .engine()
            .await
            .create(request("ann"))
            .await
            .unwrap_or_else(|error| panic!("{fault}: {}", display_chain(&error)));
        let took = platform.clock.now().since(before).as_secs();
        assert!(took >= least && took < 60, "{fault}: {took} s");
        assert_eq!(platform.journal("contact").len(), calls, "{fault}");
        platform.assert_each_guest_once(1);
    }
}

#[rstest]
#[tokio::test]
async fn platform_retry_after_is_capped_at_one_hour(#[values(Sqlite, Postgres)] backend: Backend) {
    for (fault, wait) in [
        ("contact:503:retry-after=4294967295", 3600),
        ("contact:429:retry-after=86400", 3600),
        ("contact:429-sentence:retry-after=86400", 3600),
        ("contact:503:retry-after=300", 300),
    ] {
        let platform = TestPlatform::new(backend).await;
        let engine = platform.engine().await;
        platform.faults(&[fault]);
        let error = engine.create(request("ann")).await.unwrap_err();
        let session = engine
            .store()
            .session(error.session().unwrap())
            .await
            .unwrap()
            .unwrap();
        let waits = session
            .due_at()
            .unwrap()
            .since(platform.clock.now())
            .as_secs();
        assert!(
            session.state == SessionState::Parked && (wait - 5..=wait + 5).contains(&waits),
            "{fault}: {waits} s"
        );
        platform.faults(&[]);
        platform.clock.advance(Duration::from_secs(wait + 10));
        engine.create(request("ann")).await.unwrap();
    }
}
