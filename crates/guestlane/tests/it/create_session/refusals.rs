//! Requests that the platform refuses.

use super::*;

#[rstest]
#[tokio::test]
async fn idempotency_key_reuse_with_another_request_names_the_field(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    engine.create(request("ann")).await.unwrap();
    let other = SessionRequest {
        queue: SUPPORT.parse().unwrap(),
        ..request("ann")
    };
    let error = engine.create(other).await.unwrap_err();
    assert!(
        matches!(&error, Error::IdempotencyKeyReused { fields, .. } if fields == &["queueId"]),
        "{error:?}"
    );
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn missing_scope_error_names_the_scope_and_key_stays_usable(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::with(backend, |options| {
        options.clients[0].scopes = vec![guestlane_sim::SCOPE_CONTACTS.to_owned()]
    })
    .await;
    let engine = platform.engine().await;
    let error = engine.create(request("ann")).await.unwrap_err();
    let advice = diagnosis::of(&error);
    assert_eq!(advice.code, guestlane::error::ErrorCode::Forbidden);
    assert!(
        advice.fix.contains("conversations:messaging"),
        "{}",
        advice.fix
    );
    assert!(error.correlation_id().is_some());
    assert_eq!(
        platform.journal("conversation").len(),
        1,
        "a refusal is not repeated"
    );
    let stored = engine
        .store()
        .session(error.session().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(stored.state, SessionState::Failed);
    assert_eq!(platform.audit().last().unwrap()["status"], "failed");

    let again = engine.create(request("ann")).await.unwrap_err();
    assert_eq!(again.session(), error.session());
    assert_eq!(
        platform.journal("contact").len(),
        1,
        "the contact is there already"
    );
}

#[rstest]
#[tokio::test]
async fn wrong_credentials_fail_create_with_one_auth_error(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = TestPlatform::new(backend).await;
    platform.config.credentials.clients[0].secret = "wrong".to_owned().into();
    let engine = platform.engine().await;
    let error = engine.create(request("ann")).await.unwrap_err();
    assert!(
        diagnosis::of(&error)
            .cause
            .contains("OAuth authentication failed"),
        "{:?}",
        diagnosis::of(&error)
    );
    assert!(
        diagnosis::of(&error)
            .fix
            .contains("verify client credentials and scopes")
    );
    engine.flush_counters().await.unwrap();
    assert_eq!(
        engine.store().error_counts().await.unwrap().auth,
        1,
        "one token request failed for all callers that waited for it"
    );
    let records = platform.audit();
    assert_eq!(records.len(), 1);
    assert_eq!(
        (&records[0]["status"], &records[0]["guestIdentifier"]),
        (&json!("failed"), &json!("ann"))
    );
    assert_eq!(platform.sim.state().contacts, 0);
}

#[rstest]
#[tokio::test]
async fn guest_token_of_an_unregistered_key_is_rejected_and_counted(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    platform.register_foreign_keys(backend).await;
    let error = engine.create(request("ann")).await.unwrap_err();
    assert_eq!(
        error.code(),
        guestlane::error::ErrorCode::GuestTokenRejected
    );
    engine.flush_counters().await.unwrap();
    assert_eq!(
        engine
            .store()
            .error_counts()
            .await
            .unwrap()
            .token_validation,
        1
    );
    platform
        .sim
        .register_guest_keys(&engine.keyring().jwks(platform.clock.now()).to_string())
        .unwrap();
    assert!(engine.create(request("ann")).await.is_ok());
}
