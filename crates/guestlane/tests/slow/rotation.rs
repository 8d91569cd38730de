//! Rotation of signing keys while processes run, and sessions that were started with a deleted key.

use std::time::Duration;

use guestlane::{CreatedSession, SessionEngine, Workspace};
use guestlane_core::{
    session::SessionState,
    token::{self, KeyInfo, KeyState, RotationPolicy},
};
use guestlane_testkit::{
    Backend::{self, Postgres, Sqlite},
    platform::{TestPlatform, fresh, request},
};
use rstest::rstest;

const MINUTE: Duration = Duration::from_secs(60);
/// Time until each running process serves a new key.
const PROPAGATION_TIME: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);
const ONE: &str = "webchat-guest-key-v1";
const TWO: &str = "webchat-guest-key-v2";
const THREE: &str = "webchat-guest-key-v3";

fn published_for(publish_before: Duration) -> RotationPolicy {
    RotationPolicy::new(publish_before, None).unwrap()
}

async fn keys(platform: &TestPlatform) -> Vec<(String, KeyState)> {
    let list: Vec<KeyInfo> = platform.state().await.keyring.list(platform.clock.now());
    list.into_iter().map(|key| (key.kid, key.state)).collect()
}

/// Returns the `kid` of the token that a new session gets.
async fn signs(engine: &SessionEngine) -> String {
    engine.create(fresh("ann")).await.unwrap().session.token.kid
}

fn is_accepted(
    engine: &SessionEngine,
    opened: &CreatedSession,
    platform: &TestPlatform,
) -> Result<(), token::TokenError> {
    token::verify(
        &engine.keyring(),
        opened.guest_token.expose(),
        platform.clock.now(),
    )
    .map(drop)
}

/// Registers the store's present keys with the platform.
async fn register_keys(platform: &TestPlatform) {
    let keyring = platform.state().await.keyring;
    let jwks = keyring.jwks(platform.clock.now()).to_string();
    platform.sim.register_guest_keys(&jwks).unwrap();
}

/// Another process revokes the first key.
async fn revoke_elsewhere(platform: &TestPlatform) {
    let other = elsewhere(platform).await;
    other.revoke_key(ONE, platform.clock.now()).await.unwrap();
}

/// Opens the store as another process does, for one operation.
async fn elsewhere(platform: &TestPlatform) -> Workspace {
    platform.state().await
}

/// Waits until the running process has read the keys again.
async fn wait_one_second(platform: &TestPlatform) {
    platform.clock().sleep(Duration::from_millis(1001)).await;
}

#[rstest]
#[tokio::test]
async fn rotation_by_another_process_takes_effect_on_time_without_reads(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    elsewhere(&platform)
        .await
        .rotate_key(published_for(HOUR), &platform.clock())
        .await
        .unwrap();
    wait_one_second(&platform).await;
    let set = engine.keyring().jwks(platform.clock.now());
    assert_eq!(
        set["keys"].as_array().unwrap().len(),
        2,
        "it publishes what it does not use yet"
    );
    let before = engine.create(fresh("ann")).await.unwrap();
    assert_eq!(before.session.token.kid, ONE);
    break_store(&platform, true);
    platform.clock.advance(HOUR + PROPAGATION_TIME);
    break_store(&platform, false);
    assert_eq!(signs(&engine).await, TWO);
    assert_eq!(
        keys(&platform).await,
        [
            (ONE.to_owned(), KeyState::Retiring),
            (TWO.to_owned(), KeyState::Active)
        ]
    );
}

#[rstest]
#[tokio::test]
async fn revocation_by_another_process_takes_effect_within_a_second(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    let before = engine.create(fresh("ann")).await.unwrap();
    is_accepted(&engine, &before, &platform).unwrap();
    revoke_elsewhere(&platform).await;
    wait_one_second(&platform).await;
    let refused = token::TokenError::NotTrusted {
        kid: ONE.to_owned(),
        state: KeyState::Revoked,
    };
    assert_eq!(is_accepted(&engine, &before, &platform), Err(refused));
    assert_eq!(
        engine.keyring().jwks(platform.clock.now())["keys"][0]["kid"],
        TWO
    );
    let after = engine.create(fresh("bob")).await.unwrap();
    assert_eq!(after.session.token.kid, TWO);
    is_accepted(&engine, &after, &platform).unwrap();
}

/// Makes the keys unreadable by renaming their table.
fn break_store(platform: &TestPlatform, broken: bool) {
    let (from, to) = if broken {
        ("signing_key", "away")
    } else {
        ("away", "signing_key")
    };
    platform.sql(&format!("ALTER TABLE {from} RENAME TO {to}"));
}

#[rstest]
#[tokio::test]
async fn process_keeps_its_keys_while_the_store_is_unreadable(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    elsewhere(&platform)
        .await
        .rotate_key(published_for(MINUTE), &platform.clock())
        .await
        .unwrap();
    break_store(&platform, true);
    platform.clock().sleep(5 * MINUTE).await;
    if platform.postgres.is_none() {
        // Where processes notify each other, the engine may already know the next key.
        assert_eq!(
            signs(&engine).await,
            ONE,
            "it could not learn of the next key"
        );
    }
    break_store(&platform, false);
    wait_one_second(&platform).await;
    assert_eq!(signs(&engine).await, TWO);
}

#[rstest]
#[tokio::test]
async fn concurrent_rotations_create_one_next_key(#[values(Sqlite, Postgres)] backend: Backend) {
    let mut platform = TestPlatform::new(backend).await;
    platform.config.key_rotation = RotationPolicy::new(HOUR, Some(2 * HOUR)).unwrap();
    let (one, two) = (platform.engine().await, platform.engine().await);
    platform.clock.advance(HOUR);
    let (by_one, by_two) = tokio::join!(one.rotate_if_due(), two.rotate_if_due());
    assert!(by_one.unwrap() != by_two.unwrap(), "one of them made it");
    assert_eq!(
        keys(&platform).await,
        [
            (ONE.to_owned(), KeyState::Active),
            (TWO.to_owned(), KeyState::Next)
        ]
    );
    let refused = elsewhere(&platform)
        .await
        .rotate_key(published_for(HOUR), &platform.clock())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(refused.contains(TWO), "{refused}");
}

#[rstest]
#[tokio::test]
async fn scheduled_rotation_publishes_each_key_before_it_signs(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = TestPlatform::new(backend).await;
    platform.config.key_rotation = RotationPolicy::new(2 * MINUTE, Some(10 * MINUTE)).unwrap();
    let engine = platform.engine().await;
    let working = tokio::spawn(guestlane::Workers::new(std::sync::Arc::clone(&engine)).run());
    platform.clock().sleep(35 * MINUTE).await;
    working.abort();
    let list = platform.state().await.keyring.list(platform.clock.now());
    assert_eq!(list.len(), 4, "{list:?}");
    for pair in list.windows(2) {
        let [one, two] = pair else { panic!() };
        let (age, published) = (
            two.active_from.since(one.active_from),
            two.active_from.since(two.created_at),
        );
        assert!(
            age >= 10 * MINUTE && age <= 10 * MINUTE + Duration::from_secs(12),
            "{age:?}"
        );
        assert_eq!(published, 2 * MINUTE + PROPAGATION_TIME);
    }
    let states: Vec<_> = list.iter().map(|key| key.state).collect();
    assert_eq!(
        states,
        [
            KeyState::Retired,
            KeyState::Retired,
            KeyState::Retiring,
            KeyState::Active
        ]
    );
}

#[rstest]
#[tokio::test]
async fn without_a_schedule_no_key_is_created(#[values(Sqlite, Postgres)] backend: Backend) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    platform.clock.advance(24 * 365 * 10 * HOUR);
    assert!(!engine.rotate_if_due().await.unwrap());
}

/// Opens a conversation on the platform whose response is lost; meanwhile keys are rotated.
async fn with_a_lost_answer(platform: &TestPlatform) -> std::sync::Arc<SessionEngine> {
    platform.faults(&["conversation:answer-lost:first=4"]);
    let engine = platform.engine().await;
    engine.create(request("ann")).await.unwrap_err();
    platform.faults(&[]);
    engine
}

fn bodies(platform: &TestPlatform) -> Vec<String> {
    let mut bodies: Vec<_> = platform
        .journal("conversation")
        .into_iter()
        .map(|entry| entry.body.to_string())
        .collect();
    bodies.dedup();
    bodies
}

#[rstest]
#[tokio::test]
async fn session_with_a_retired_key_resends_the_same_bytes(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = with_a_lost_answer(&platform).await;
    elsewhere(&platform)
        .await
        .rotate_key(published_for(MINUTE), &platform.clock())
        .await
        .unwrap();
    platform.clock().sleep(HOUR).await;
    assert_eq!(
        keys(&platform).await[0],
        (ONE.to_owned(), KeyState::Retired)
    );
    let opened = engine.create(request("ann")).await.unwrap();
    assert_eq!(
        (opened.session.token.kid.as_str(), bodies(&platform).len()),
        (ONE, 1)
    );
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn session_with_a_revoked_key_resends_bytes_while_outcome_is_unknown(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = with_a_lost_answer(&platform).await;
    revoke_elsewhere(&platform).await;
    register_keys(&platform).await;
    wait_one_second(&platform).await;
    let opened = engine.create(request("ann")).await.unwrap();
    assert_eq!(
        (opened.session.token.kid.as_str(), bodies(&platform).len()),
        (ONE, 1)
    );
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn session_with_a_revoked_key_gets_a_new_token_if_step_had_no_effect(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    platform.faults(&["conversation:429:nth=1,retry-after=400"]);
    let engine = platform.engine().await;
    engine.create(request("ann")).await.unwrap_err();
    revoke_elsewhere(&platform).await;
    register_keys(&platform).await;
    platform.clock.advance(Duration::from_secs(401));
    wait_one_second(&platform).await;
    let opened = engine.create(request("ann")).await.unwrap();
    assert_eq!(opened.session.token.kid, TWO);
    is_accepted(&engine, &opened, &platform).unwrap();
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn session_with_an_unknown_revoked_key_gets_a_new_token_on_rejection(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    // The request had no effect, but the caller cannot know.
    platform.faults(&["conversation:reset:first=4"]);
    let engine = platform.engine().await;
    engine.create(request("ann")).await.unwrap_err();
    platform.faults(&[]);
    revoke_elsewhere(&platform).await;
    register_keys(&platform).await;
    wait_one_second(&platform).await;
    let opened = engine.create(request("ann")).await.unwrap();
    assert_eq!(
        (opened.session.token.kid.as_str(), bodies(&platform).len()),
        (TWO, 2)
    );
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn session_begun_with_a_newer_key_is_resumed_at_once(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let old = platform.engine().await;
    revoke_elsewhere(&platform).await;
    platform.faults(&["conversation:answer-lost:first=4"]);
    let young = platform.engine().await;
    young.create(request("ann")).await.unwrap_err();
    drop(young);
    platform.faults(&[]);
    let session = old.create(request("ann")).await.unwrap().session;
    assert_eq!(
        (session.token.kid.as_str(), session.state),
        (TWO, SessionState::Open)
    );
    elsewhere(&platform)
        .await
        .revoke_key(TWO, platform.clock.now())
        .await
        .unwrap();
    let newest = platform.engine().await.create(fresh("bob")).await.unwrap();
    assert_eq!(newest.session.token.kid, THREE);
    let again = old.create(newest.session.request).await.unwrap();
    assert!(again.replayed && again.guest_token == newest.guest_token);
    platform.assert_each_guest_once(2);
}
