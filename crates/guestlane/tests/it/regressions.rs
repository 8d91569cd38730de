//! Each defect of the first draft (docs/requirements.md#defects), by its name. With the defect put
//! back, its test fails.

mod platform_calls;

use std::{fs, time::Duration};

use guestlane::{Error, Rate};
use guestlane_core::{
    request::{Attributes, GuestId, QueueId},
    session::SessionState,
    token,
};
use guestlane_testkit::{
    Backend::{self, Postgres, Sqlite},
    platform::{TestPlatform, create_many, request},
};
use rstest::rstest;

#[rstest]
#[tokio::test]
async fn attributes_cannot_override_reserved_claims(#[values(Sqlite, Postgres)] backend: Backend) {
    for name in [
        "guestToken",
        "guestId",
        "sessionToken",
        "routingTarget",
        "exp",
        "iat",
    ] {
        assert!(
            Attributes::from_pairs([(name, "forged")]).is_err(),
            "{name}"
        );
    }
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    let opened = engine.create(request("ann")).await.unwrap();
    let verified = token::verify(
        &engine.keyring(),
        opened.guest_token.expose(),
        platform.clock.now(),
    )
    .unwrap();
    assert_eq!(verified.guest_id, "ann");
}

#[rstest]
#[tokio::test]
async fn crm_event_contains_the_guest_id_and_no_claims(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    let mut wish = request("ann");
    wish.attributes = Attributes::from_pairs([("email", "ann@example.org")]).unwrap();
    let opened = engine.create(wish).await.unwrap();
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    let [event] = &platform.sim.crm_events()[..] else {
        panic!()
    };
    assert_eq!(event["data"]["guestId"], "ann");
    assert_eq!(event["event"], "webchat.session.created");
    let mut fields: Vec<_> = event["data"].as_object().unwrap().keys().cloned().collect();
    fields.sort();
    assert_eq!(
        fields,
        [
            "contactId",
            "conversationId",
            "guestId",
            "initializationLatencyMs"
        ]
    );
    let claims = opened
        .guest_token
        .expose()
        .split('.')
        .nth(1)
        .unwrap()
        .to_owned();
    let sent = &platform.journal("crm")[0].body;
    assert!(!sent.contains("ann@example.org") && !sent.contains(&claims));
}

#[rstest]
#[tokio::test]
async fn signing_key_is_shared_persistent_and_encrypted(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let (one, two) = (platform.engine().await, platform.engine().await);
    assert_eq!(
        one.keyring().jwks(platform.clock.now()),
        two.keyring().jwks(platform.clock.now()),
        "two processes, one key"
    );
    let opened = one.create(request("ann")).await.unwrap();
    drop((one, two));
    let restarted = platform.engine().await;
    token::verify(
        &restarted.keyring(),
        opened.guest_token.expose(),
        platform.clock.now(),
    )
    .unwrap();
    // The stored key is not readable in plain: PKCS#8 begins with the version and the algorithm's
    // OID.
    let database = platform.stored_bytes();
    let rsa_pkcs8 = [
        0x02, 0x01, 0x00, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01,
        0x01,
    ];
    assert!(
        !database
            .windows(rsa_pkcs8.len())
            .any(|window| window == rsa_pkcs8)
    );
    let in_hex: String = rsa_pkcs8.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(
        !database
            .windows(in_hex.len())
            .any(|window| window == in_hex.as_bytes())
    );
}

#[rstest]
#[tokio::test]
async fn audit_directory_is_created(#[values(Sqlite, Postgres)] backend: Backend) {
    let platform = TestPlatform::new(backend).await;
    assert!(!platform.audit_path().parent().unwrap().exists());
    platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap();
    assert_eq!(platform.audit().len(), 2);
}

#[rstest]
#[tokio::test]
async fn failed_audit_write_fails_create_before_platform_calls(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    block_audit_file(&platform);
    let error = engine.create(request("ann")).await.unwrap_err();
    assert!(matches!(error, Error::Audit(_)), "{error:?}");
    assert_eq!(platform.sim.state().contacts, 0);

    unblock_audit_file(&platform);
    engine.create(request("ann")).await.unwrap(); // with the same idempotency key
    platform.assert_each_guest_once(1);
    let statuses: Vec<_> = platform
        .audit()
        .iter()
        .map(|record| record["status"].clone())
        .collect();
    assert_eq!(
        statuses,
        ["pending", "failed", "pending", "success"],
        "the records were only late"
    );
}

#[rstest]
#[tokio::test]
async fn failed_audit_write_does_not_hide_a_created_session(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    platform.faults(&["conversation:hang:first=1"]);
    let creating = tokio::spawn({
        let engine = engine.clone();
        async move { engine.create(request("ann")).await }
    });
    platform.hanging().await;
    block_audit_file(&platform);
    platform.clock.advance(Duration::from_secs(10));
    let opened = creating.await.unwrap().unwrap();
    assert_eq!(opened.session.state, SessionState::Open);
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    assert_eq!(platform.sim.state().crm.events, 1, "the event is delivered");

    unblock_audit_file(&platform);
    engine.create(request("bob")).await.unwrap();
    let statuses: Vec<_> = platform
        .audit()
        .iter()
        .map(|record| record["status"].clone())
        .collect();
    assert_eq!(
        statuses,
        ["pending", "success", "pending", "success"],
        "the record was only late"
    );
}

/// Puts a directory in the place of the log file, so that no user can write it, not even root.
fn block_audit_file(platform: &TestPlatform) {
    let path = platform.audit_path();
    let _ = fs::rename(path, path.with_extension("aside"));
    fs::create_dir_all(path).unwrap();
}

fn unblock_audit_file(platform: &TestPlatform) {
    let path = platform.audit_path();
    fs::remove_dir(path).unwrap();
    let _ = fs::rename(path.with_extension("aside"), path);
}

#[rstest]
#[tokio::test]
async fn crash_between_the_calls_is_recovered_from_the_session_record(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    platform.faults(&["conversation:hang:first=1"]);
    let engine = platform.engine().await;
    let creating = tokio::spawn(async move { engine.create(request("ann")).await });
    platform.hanging().await;
    creating.abort(); // the process crashes between the two requests
    let _ = creating.await;
    assert_eq!(
        (
            platform.sim.state().contacts,
            platform.sim.state().conversations
        ),
        (1, 0)
    );

    platform.clock.advance(guestlane_core::session::LEASE_TTL);
    let restarted = platform.engine().await;
    let finished = restarted.recover_abandoned().await.unwrap();
    let [Ok(opened)] = &finished[..] else {
        panic!("{finished:?}")
    };
    assert_eq!(opened.session.state, SessionState::Open);
    platform.assert_each_guest_once(1);
    assert_eq!(platform.journal("contact").len(), 1, "the same contact");
}

#[rstest]
#[tokio::test]
async fn empty_guest_or_unknown_queue_is_rejected_before_contact_calls(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    assert!("".parse::<GuestId>().is_err());
    assert!("".parse::<QueueId>().is_err());
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    let mut wish = request("ann");
    wish.queue = "00000000-0000-4000-8000-000000000000".parse().unwrap();
    let error = engine.create(wish.clone()).await.unwrap_err();
    assert!(matches!(error, Error::UnknownQueue { .. }), "{error:?}");
    let state = platform.sim.state();
    assert_eq!(
        (state.contacts, state.calls["contact"], state.calls["queue"]),
        (0, 0, 1)
    );
    assert_eq!(platform.audit().len(), 1);
    // The idempotency key was not claimed, so the corrected request may use it.
    wish.queue = request("ann").queue;
    engine.create(wish).await.unwrap();
}
