//! The creation of one session, from the request to the session record.

mod refusals;

use guestlane::Error;
use guestlane_core::{request::SessionRequest, session::SessionState, token};
use guestlane_server::diagnosis;
use guestlane_testkit::{
    Backend::{self, Postgres, Sqlite},
    platform::{SALES, SUPPORT, TestPlatform, create_many, fresh, request},
};
use rstest::rstest;
use serde_json::{Value, json};

#[rstest]
#[tokio::test]
async fn rest_requests_of_the_sample_guest_match_the_requirements(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    let opened = engine.create(fresh("user-8842-xyz")).await.unwrap();
    let token = opened.guest_token.expose();
    let key = opened.session.request.key.as_str();

    let [contact] = &platform.journal("contact")[..] else {
        panic!()
    };
    assert_eq!(
        (contact.method.as_str(), contact.path.as_str()),
        ("POST", "/api/v2/externalcontacts/contacts")
    );
    assert_eq!(
        contact.body,
        format!(
            r#"{{"type":"webchat","address":"guest-user-8842-xyz","externalContactId":"user-8842-xyz","customAttributes":{{"guestToken":"{token}","source":"web-portal","tier":"premium"}}}}"#
        )
    );
    let [conversation] = &platform.journal("conversation")[..] else {
        panic!()
    };
    assert_eq!(
        (conversation.method.as_str(), conversation.path.as_str()),
        ("POST", "/api/v2/conversations/messaging")
    );
    assert_eq!(
        conversation.body,
        format!(
            r#"{{"contactId":"guest-user-8842-xyz","routingData":{{"queueId":"{SALES}","skillRequirements":[]}},"customAttributes":{{"sessionToken":"{token}","routingTarget":"{SALES}"}}}}"#
        )
    );
    for (entry, step) in [(contact, "contact"), (conversation, "conversation")] {
        assert_eq!(
            entry.headers["authorization"], "Bearer ***",
            "the journal shows no token"
        );
        assert_eq!(entry.headers["content-type"], "application/json");
        assert_eq!(entry.headers["idempotency-key"], format!("{key}-{step}"));
        assert!(key.starts_with("webchat-session-"));
    }
    let [sign_in] = &platform.journal("token")[..] else {
        panic!()
    };
    assert_eq!(sign_in.path, "/api/v2/oauth/token");
    assert_eq!(
        sign_in.headers["content-type"],
        "application/x-www-form-urlencoded"
    );
    assert_eq!(
        sign_in.body,
        "grant_type=client_credentials&client_id=sim-client&client_secret=***"
    );
    assert_eq!(
        opened.session.contact_id.as_deref(),
        Some("0a110000-0000-4000-8000-000000000002")
    );
    assert_eq!(opened.session.state, SessionState::Open);
    assert_eq!((opened.replayed, opened.session.attempts), (false, 2));
}

#[rstest]
#[tokio::test]
async fn guest_token_verifies_with_the_exported_public_key_alone(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    let opened = engine.create(fresh("user-8842-xyz")).await.unwrap();

    let pem = engine
        .keyring()
        .active(platform.clock.now())
        .public_pem()
        .unwrap();
    let key = jsonwebtoken::DecodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    validation.validate_exp = false; // the test's clock differs from the machine's
    let data =
        jsonwebtoken::decode::<Value>(opened.guest_token.expose(), &key, &validation).unwrap();
    assert_eq!(data.header.kid.as_deref(), Some("webchat-guest-key-v1"));
    let claims = data.claims;
    assert_eq!(claims["guestId"], "user-8842-xyz");
    assert_eq!(
        (&claims["source"], &claims["tier"]),
        (&json!("web-portal"), &json!("premium"))
    );
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        300
    );
    let header = token::decode(opened.guest_token.expose()).unwrap().0;
    assert_eq!(
        header,
        json!({"alg": "RS256", "kid": "webchat-guest-key-v1"})
    );
}

#[rstest]
#[tokio::test]
async fn replay_returns_the_same_session_without_platform_calls(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let first = platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap();
    let calls = platform.sim.journal().len();

    let again = platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap(); // another process
    assert!(again.replayed);
    assert_eq!(again.session, first.session);
    assert_eq!(again.guest_token, first.guest_token);
    assert_eq!(
        platform.journal("contact").len()
            + platform.journal("conversation").len()
            + platform.journal("queue").len(),
        3
    );
    assert_eq!(
        platform
            .sim
            .journal()
            .iter()
            .filter(|entry| entry.n > calls as u64 && entry.path.starts_with("/api"))
            .count(),
        0
    );
}

#[rstest]
#[tokio::test]
async fn lost_responses_cause_no_duplicate_among_1000_sessions(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = TestPlatform::with(backend, |options| options.seed = 7).await;
    platform.outlast_random_faults();
    let engine = platform.engine().await;
    platform.faults(&["any:answer-lost:p=0.05"]);
    let created = create_many(&engine, 1000, 64).await;
    let bad: Vec<_> = created
        .iter()
        .filter_map(|one| one.as_ref().err().map(|e| e.redacted()))
        .collect();
    assert!(bad.is_empty(), "{bad:?}");
    platform.assert_each_guest_once(1000);
    let state = platform.sim.state();
    assert!(state.faults["answer-lost"] > 50, "{:?}", state.faults);
    // The response to the single token request may be among the lost ones.
    assert_eq!(
        engine.platform_metrics().token_requests(),
        state.calls["token"]
    );
    assert!(state.calls["token"] <= 2, "{:?}", state.calls);
}

#[rstest]
#[tokio::test]
async fn concurrent_creates_with_one_key_return_one_session(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    let asked =
        futures_util::future::join_all((0..20).map(|_| engine.create(request("ann")))).await;
    let ids: std::collections::HashSet<_> = asked
        .iter()
        .map(|opened| opened.as_ref().unwrap().session.id)
        .collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(
        asked
            .iter()
            .filter(|opened| !opened.as_ref().unwrap().replayed)
            .count(),
        1
    );
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn queue_lookup_is_single_flight(#[values(Sqlite, Postgres)] backend: Backend) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    assert!(create_many(&engine, 50, 50).await.iter().all(Result::is_ok));
    assert_eq!(platform.journal("queue").len(), 1);
}

#[rstest]
#[tokio::test]
async fn audit_record_has_every_field_but_no_token_or_attribute(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let opened = platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap();
    let [pending, success] = &platform.audit()[..] else {
        panic!()
    };
    assert_eq!(pending["status"], "pending");
    let session = &opened.session;
    assert_eq!(
        success.as_object().unwrap().iter().filter(|(name, _)| *name != "timestamp" && *name != "latencyMs").collect::<Vec<_>>(),
        json!({
            "index": 1, "action": "session.create", "status": "success", "sessionId": session.id.to_string(),
            "guestIdentifier": "ann", "queueId": SALES, "routingTarget": SALES, "contactId": session.contact_id,
            "conversationId": session.conversation_id, "error": null, "tokenExpiryPolicy": "PT5M",
            "errorRates": {"total": 0, "tokenValidation": 0, "rateLimit": 0, "auth": 0, "network": 0, "tokenValidationRate": "0.0000"},
        })
        .as_object()
        .unwrap()
        .iter()
        .collect::<Vec<_>>()
    );
    assert!(success["latencyMs"].is_number() && success["timestamp"].is_string());
    let text = std::fs::read_to_string(platform.audit_path()).unwrap();
    assert!(
        !text.contains(opened.guest_token.expose()) && !text.contains("premium"),
        "no token and no attribute's value"
    );
}

#[rstest]
#[tokio::test]
async fn access_token_is_refreshed_early_without_blocking_callers(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    engine.create(request("ann")).await.unwrap();
    platform
        .clock
        .advance(std::time::Duration::from_secs(1800 - 30));
    engine.create(request("bob")).await.unwrap(); // with the old token, which expires in 30 s
    while platform.sim.state().tokens_issued < 2 {
        tokio::task::yield_now().await;
    }
    platform.clock.advance(std::time::Duration::from_secs(60));
    engine.create(request("cy")).await.unwrap(); // with the new one
    assert_eq!(platform.sim.state().tokens_issued, 2);
    engine.flush_counters().await.unwrap();
    assert_eq!(engine.store().error_counts().await.unwrap().total, 0);
}

/// This happens during an update of a fleet, and where one machine has two versions installed.
#[rstest]
#[tokio::test]
async fn writes_are_refused_once_a_newer_version_changed_the_format(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    engine.create(request("ann")).await.unwrap();
    platform.sql(match backend {
        guestlane_testkit::Backend::Sqlite => "PRAGMA user_version = 99",
        guestlane_testkit::Backend::Postgres => "UPDATE format SET number = 99",
    });
    let refused = engine.create(request("bob")).await.unwrap_err();
    assert_eq!(refused.code().name(), "state_newer", "{refused:?}");
    assert!(
        diagnosis::of(&refused).fix.contains("restart"),
        "{:?}",
        diagnosis::of(&refused)
    );
    assert!(
        engine
            .store()
            .revoke_api_key("unknown".to_owned(), platform.clock.now())
            .await
            .is_err()
    );
    assert!(
        engine
            .store()
            .claim_due(9, platform.clock.now())
            .await
            .is_err()
    );
    platform.assert_each_guest_once(1);
}
