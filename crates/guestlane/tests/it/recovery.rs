//! Recovery of abandoned sessions, and of sessions that must wait.

use std::time::Duration;

use guestlane::Error;
use guestlane_core::session::SessionState;
use guestlane_store::StoreError;
use guestlane_testkit::{
    Backend::{self, Postgres, Sqlite},
    platform::{TestPlatform, request},
};
use rstest::rstest;

#[rstest]
#[tokio::test]
async fn long_retry_after_parks_the_session_and_it_completes_later(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let world = TestPlatform::new(backend).await;
    let engine = world.engine().await;
    world.faults(&["conversation:429:first=1,retry-after=90"]);
    let error = engine.create(request("ann")).await.unwrap_err();
    assert_eq!(
        error.advice().code,
        guestlane::error::ErrorCode::RateLimited
    );
    let id = error.session().unwrap();
    assert_eq!(
        engine.store().session(id).await.unwrap().unwrap().state,
        SessionState::Parked
    );

    assert!(
        engine.recover_abandoned().await.unwrap().is_empty(),
        "not before the platform's time"
    );
    world.clock.advance(Duration::from_secs(92));
    let finished = engine.recover_abandoned().await.unwrap();
    assert!(matches!(&finished[..], [Ok(opened)] if opened.session.id == id));
    world.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn create_on_a_parked_session_waits_for_retry_after(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let world = TestPlatform::new(backend).await;
    let engine = world.engine().await;
    world.faults(&["conversation:429:first=1,retry-after=70"]);
    engine.create(request("ann")).await.unwrap_err();
    world.clock.advance(Duration::from_secs(30));
    assert!(engine.create(request("ann")).await.is_ok());
    world.assert_each_guest_once(1);
    assert_eq!(
        world.sim.state().calls["conversation"],
        2,
        "and does not hurry the platform"
    );
}

#[rstest]
#[tokio::test]
async fn guest_token_expired_while_parked_is_signed_again(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let world = TestPlatform::new(backend).await;
    let engine = world.engine().await;
    world.faults(&["conversation:429:first=1,retry-after=400"]);
    let error = engine.create(request("ann")).await.unwrap_err();
    world.clock.advance(Duration::from_secs(402));
    let finished = engine.recover_abandoned().await.unwrap();
    let [Ok(opened)] = &finished[..] else {
        panic!("{finished:?}")
    };
    assert_eq!(Some(opened.session.id), error.session());
    let tokens: std::collections::HashSet<_> = world
        .journal("conversation")
        .iter()
        .map(|entry| entry.body.clone())
        .collect();
    assert_eq!(
        tokens.len(),
        2,
        "the old one was refused, the new one taken"
    );
    world.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn possibly_accepted_token_is_resent_and_resigned_only_on_rejection(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let world = TestPlatform::new(backend).await;
    let engine = world.engine().await;
    world.faults(&["conversation:reset:first=4"]);
    engine.create(request("ann")).await.unwrap_err();
    world.clock.advance(Duration::from_secs(3600));
    assert!(matches!(
        &engine.recover_abandoned().await.unwrap()[..],
        [Ok(_)]
    ));
    let sent: Vec<_> = world
        .journal("conversation")
        .into_iter()
        .skip(4)
        .map(|entry| entry.status)
        .collect();
    assert_eq!(sent, [Some(400), Some(200)]);
    world.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn lost_response_is_recovered_after_the_token_expired(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let world = TestPlatform::new(backend).await;
    let engine = world.engine().await;
    world.faults(&["conversation:answer-lost:first=4"]);
    engine.create(request("ann")).await.unwrap_err();
    world.clock.advance(Duration::from_secs(3600));
    assert!(matches!(
        &engine.recover_abandoned().await.unwrap()[..],
        [Ok(_)]
    ));
    world.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn outcome_unknown_for_24_hours_needs_attention(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let world = TestPlatform::new(backend).await;
    let engine = world.engine().await;
    world.faults(&["conversation:answer-lost"]);
    engine.create(request("ann")).await.unwrap_err();
    let calls = world.sim.state().calls["conversation"];
    world.clock.advance(Duration::from_secs(24 * 3600));
    world.faults(&[]);
    let ended = engine.recover_abandoned().await.unwrap();
    assert!(
        matches!(&ended[..], [Err(Error::NeedsAttention { known, .. })] if known[0].0 == "contact"),
        "{ended:?}"
    );
    assert_eq!(
        world.sim.state().calls["conversation"],
        calls,
        "nothing is guessed"
    );
    assert!(matches!(
        engine.create(request("ann")).await,
        Err(Error::NeedsAttention { .. })
    ));
    world.assert_each_guest_once(1);
    assert_eq!(world.audit().last().unwrap()["status"], "failed");
}

#[rstest]
#[tokio::test]
async fn create_after_a_failure_does_not_wait_for_the_retry_time(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let world = TestPlatform::new(backend).await;
    let engine = world.engine().await;
    world.faults(&["conversation:500:first=4"]);
    engine.create(request("ann")).await.unwrap_err();
    let opened = engine.create(request("ann")).await.unwrap();
    assert_eq!(opened.session.attempts, 1 + 4 + 1);
    world.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn owner_with_an_expired_lease_cannot_write(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = TestPlatform::new(backend).await;
    let (stuck, other) = (world.engine().await, world.engine().await);
    world.faults(&["conversation:500:first=4"]);
    let error = stuck.create(request("ann")).await.unwrap_err();
    let id = error.session().unwrap();
    let late = stuck
        .store()
        .claim(id, world.clock.now())
        .await
        .unwrap()
        .unwrap();
    world.clock.advance(guestlane_core::session::LEASE_TTL); // it is paused, and renews nothing
    assert!(matches!(
        &other.recover_abandoned().await.unwrap()[..],
        [Ok(_)]
    ));
    let written = stuck.resume(late).await;
    assert!(
        matches!(written, Err(Error::Store(StoreError::LeaseLost))),
        "{written:?}"
    );
    world.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn session_in_progress_is_not_claimed_however_long_it_takes(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let world = TestPlatform::new(backend).await;
    let (engine, other) = (world.engine().await, world.engine().await);
    world.faults(&["conversation:429:first=2,retry-after=20"]);
    let creating = tokio::spawn(async move { engine.create(request("ann")).await });
    let clock = world.clock();
    for _ in 0..35 {
        clock.sleep(Duration::from_secs(1)).await;
        assert!(other.recover_abandoned().await.unwrap().is_empty());
    }
    creating.await.unwrap().unwrap();
    world.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn worker_completes_abandoned_sessions(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = TestPlatform::new(backend).await;
    let engine = world.engine().await;
    world.faults(&["conversation:500:first=4"]);
    let id = engine
        .create(request("ann"))
        .await
        .unwrap_err()
        .session()
        .unwrap();
    let working = tokio::spawn(guestlane::Workers::new(std::sync::Arc::clone(&engine)).run());
    while engine.store().session(id).await.unwrap().unwrap().state != SessionState::Open {
        world.clock().sleep(Duration::from_secs(1)).await;
    }
    working.abort();
    world.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn wrong_credentials_do_not_fail_an_unfinished_session(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut world = TestPlatform::new(backend).await;
    world.faults(&["conversation:500:first=4"]);
    world
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap_err();
    let good = world.config.credentials.clients[0].secret.clone();
    world.config.credentials.clients[0].secret = "wrong".to_owned().into();
    world.clock.advance(Duration::from_secs(15));
    let ended = world.engine().await.recover_abandoned().await.unwrap();
    assert!(
        matches!(&ended[..], [Err(error)] if error.advice().code.name() == "auth_failed"),
        "{ended:?}"
    );

    world.config.credentials.clients[0].secret = good;
    world.clock.advance(Duration::from_secs(300));
    assert!(matches!(
        &world.engine().await.recover_abandoned().await.unwrap()[..],
        [Ok(_)]
    ));
    world.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn failed_token_request_after_lost_response_keeps_outcome_unknown(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let world = TestPlatform::with(backend, |options| {
        options.token_life = Duration::from_secs(300)
    })
    .await;
    let engine = world.engine().await;
    // The conversation is opened and the response lost. After that, the platform no longer accepts
    // the credentials.
    world.faults(&[
        "conversation:answer-lost:nth=1",
        "conversation:500:nth=2",
        "token:500",
    ]);
    engine.create(request("bob")).await.unwrap_err(); // without a token, nothing is created
    world.faults(&["conversation:answer-lost:nth=1"]);
    let creating = tokio::spawn({
        let engine = engine.clone();
        async move { engine.create(request("ann")).await }
    });
    while world.sim.state().conversations == 0 {
        tokio::task::yield_now().await;
    }
    world.sim.revoke_tokens();
    world.faults(&["token:500"]);
    let error = creating.await.unwrap().unwrap_err();
    let stored = engine
        .store()
        .session(error.session().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert!(
        stored.state.is_unfinished() && stored.outcome_unknown,
        "{stored:?}"
    );
    world.faults(&[]);
    world.clock.advance(Duration::from_secs(300));
    assert!(matches!(
        &engine.recover_abandoned().await.unwrap()[..],
        [Ok(_)]
    ));
    world.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn rejected_session_may_be_retried_days_later(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = TestPlatform::with(backend, |options| options.clients[0].scopes = vec![]).await;
    let engine = world.engine().await;
    engine.create(request("ann")).await.unwrap_err();
    world.clock.advance(Duration::from_secs(3 * 24 * 3600));
    let again = engine.create(request("ann")).await.unwrap_err();
    assert_eq!(
        again.advice().code,
        guestlane::error::ErrorCode::Forbidden,
        "the platform gets the call, and the session is not set aside"
    );
}

#[rstest]
#[tokio::test]
async fn cancelled_queue_lookup_does_not_block_other_callers(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let world = TestPlatform::new(backend).await;
    let engine = world.engine().await;
    world.faults(&["queue:429:first=1,retry-after=5"]);
    {
        let asking = engine.create(request("ann"));
        let mut asking = std::pin::pin!(asking);
        while world.sim.state().calls["queue"] == 0 {
            let _ = futures_util::poll!(&mut asking);
            tokio::task::yield_now().await;
        }
    }
    world.clock().sleep(Duration::from_secs(3600)).await;
    engine.create(request("bob")).await.unwrap();
    world.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn state_directory_is_bound_to_one_platform(#[values(Sqlite, Postgres)] backend: Backend) {
    let (world, elsewhere) = (
        TestPlatform::new(backend).await,
        TestPlatform::new(backend).await,
    );
    world.engine().await.create(request("ann")).await.unwrap();
    let mut config = world.config.clone();
    config.credentials.hosts.api = elsewhere.sim.base_url().parse().unwrap();
    let error = guestlane::SessionEngine::open(config, world.clock())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Settings(invalid) if invalid[0].field == "GUESTLANE_STATE_DIR"),
        "{error}"
    );
}

#[rstest]
#[tokio::test]
async fn exhausted_rate_limit_times_out_and_the_session_completes_later(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut world = TestPlatform::new(backend).await;
    world.config.call_policy.quota = Some("1/min".parse().unwrap());
    let engine = world.engine().await;
    let error = engine.create(request("ann")).await.unwrap_err();
    assert_eq!(
        error.advice().code,
        guestlane::error::ErrorCode::RateLimitTimeout
    );
    while world.sim.state().conversations == 0 {
        world.clock.advance(Duration::from_secs(300));
        let _ = engine.recover_abandoned().await.unwrap();
        assert!(
            world.sim.state().calls["contact"] <= 1,
            "an expired token is not sent when the platform cannot know the key"
        );
    }
    world.assert_each_guest_once(1);
}
