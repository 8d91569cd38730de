//! Recovery of abandoned sessions, and of sessions that must wait.

mod parked;

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
async fn possibly_accepted_token_is_resent_and_resigned_only_on_rejection(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    platform.faults(&["conversation:reset:first=4"]);
    engine.create(request("ann")).await.unwrap_err();
    platform.clock.advance(Duration::from_secs(3600));
    assert!(matches!(
        &engine.recover_abandoned().await.unwrap()[..],
        [Ok(_)]
    ));
    let sent: Vec<_> = platform
        .journal("conversation")
        .into_iter()
        .skip(4)
        .map(|entry| entry.status)
        .collect();
    assert_eq!(sent, [Some(400), Some(200)]);
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn lost_response_is_recovered_after_the_token_expired(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    platform.faults(&["conversation:answer-lost:first=4"]);
    engine.create(request("ann")).await.unwrap_err();
    platform.clock.advance(Duration::from_secs(3600));
    assert!(matches!(
        &engine.recover_abandoned().await.unwrap()[..],
        [Ok(_)]
    ));
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn outcome_unknown_for_24_hours_needs_attention(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    platform.faults(&["conversation:answer-lost"]);
    engine.create(request("ann")).await.unwrap_err();
    let calls = platform.sim.state().calls["conversation"];
    platform.clock.advance(Duration::from_secs(24 * 3600));
    platform.faults(&[]);
    let ended = engine.recover_abandoned().await.unwrap();
    assert!(
        matches!(&ended[..], [Err(Error::NeedsAttention { known, .. })] if known[0].0 == "contact"),
        "{ended:?}"
    );
    assert_eq!(
        platform.sim.state().calls["conversation"],
        calls,
        "nothing is guessed"
    );
    assert!(matches!(
        engine.create(request("ann")).await,
        Err(Error::NeedsAttention { .. })
    ));
    platform.assert_each_guest_once(1);
    assert_eq!(platform.audit().last().unwrap()["status"], "failed");
}

#[rstest]
#[tokio::test]
async fn create_after_a_failure_does_not_wait_for_the_retry_time(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    platform.faults(&["conversation:500:first=4"]);
    engine.create(request("ann")).await.unwrap_err();
    let opened = engine.create(request("ann")).await.unwrap();
    assert_eq!(opened.session.attempts, 1 + 4 + 1);
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn owner_with_an_expired_lease_cannot_write(#[values(Sqlite, Postgres)] backend: Backend) {
    let platform = TestPlatform::new(backend).await;
    let (stuck, other) = (platform.engine().await, platform.engine().await);
    platform.faults(&["conversation:500:first=4"]);
    let error = stuck.create(request("ann")).await.unwrap_err();
    let id = error.session().unwrap();
    let late = stuck
        .store()
        .claim(id, platform.clock.now())
        .await
        .unwrap()
        .unwrap();
    platform.clock.advance(guestlane_core::session::LEASE_TTL); // it is paused, and renews nothing
    assert!(matches!(
        &other.recover_abandoned().await.unwrap()[..],
        [Ok(_)]
    ));
    let written = stuck.resume(late).await;
    assert!(
        matches!(written, Err(Error::Store(StoreError::LeaseLost))),
        "{written:?}"
    );
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn session_in_progress_is_not_claimed_however_long_it_takes(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let (engine, other) = (platform.engine().await, platform.engine().await);
    platform.faults(&["conversation:429:first=2,retry-after=20"]);
    let creating = tokio::spawn(async move { engine.create(request("ann")).await });
    let clock = platform.clock();
    for _ in 0..35 {
        clock.sleep(Duration::from_secs(1)).await;
        assert!(other.recover_abandoned().await.unwrap().is_empty());
    }
    creating.await.unwrap().unwrap();
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn worker_completes_abandoned_sessions(#[values(Sqlite, Postgres)] backend: Backend) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    platform.faults(&["conversation:500:first=4"]);
    let id = engine
        .create(request("ann"))
        .await
        .unwrap_err()
        .session()
        .unwrap();
    let working = tokio::spawn(guestlane::Workers::new(std::sync::Arc::clone(&engine)).run());
    while engine.store().session(id).await.unwrap().unwrap().state != SessionState::Open {
        platform.clock().sleep(Duration::from_secs(1)).await;
    }
    working.abort();
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn wrong_credentials_do_not_fail_an_unfinished_session(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = TestPlatform::new(backend).await;
    platform.faults(&["conversation:500:first=4"]);
    platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap_err();
    let good = platform.config.credentials.clients[0].secret.clone();
    platform.config.credentials.clients[0].secret = "wrong".to_owned().into();
    platform.clock.advance(Duration::from_secs(15));
    let ended = platform.engine().await.recover_abandoned().await.unwrap();
    assert!(
        matches!(&ended[..], [Err(error)] if error.code().name() == "auth_failed"),
        "{ended:?}"
    );

    platform.config.credentials.clients[0].secret = good;
    platform.clock.advance(Duration::from_secs(300));
    assert!(matches!(
        &platform.engine().await.recover_abandoned().await.unwrap()[..],
        [Ok(_)]
    ));
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn failed_token_request_after_lost_response_keeps_outcome_unknown(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::with(backend, |options| {
        options.token_life = Duration::from_secs(300)
    })
    .await;
    let engine = platform.engine().await;
    // The conversation is opened and the response lost. After that, the platform no longer accepts
    // the credentials.
    platform.faults(&[
        "conversation:answer-lost:nth=1",
        "conversation:500:nth=2",
        "token:500",
    ]);
    engine.create(request("bob")).await.unwrap_err(); // without a token, nothing is created
    platform.faults(&["conversation:answer-lost:nth=1"]);
    let creating = tokio::spawn({
        let engine = engine.clone();
        async move { engine.create(request("ann")).await }
    });
    while platform.sim.state().conversations == 0 {
        tokio::task::yield_now().await;
    }
    platform.sim.revoke_tokens();
    platform.faults(&["token:500"]);
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
    platform.faults(&[]);
    platform.clock.advance(Duration::from_secs(300));
    assert!(matches!(
        &engine.recover_abandoned().await.unwrap()[..],
        [Ok(_)]
    ));
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn rejected_session_may_be_retried_days_later(#[values(Sqlite, Postgres)] backend: Backend) {
    let platform = TestPlatform::with(backend, |options| options.clients[0].scopes = vec![]).await;
    let engine = platform.engine().await;
    engine.create(request("ann")).await.unwrap_err();
    platform.clock.advance(Duration::from_secs(3 * 24 * 3600));
    let again = engine.create(request("ann")).await.unwrap_err();
    assert_eq!(
        again.code(),
        guestlane::error::ErrorCode::Forbidden,
        "the platform gets the call, and the session is not set aside"
    );
}

#[rstest]
#[tokio::test]
async fn cancelled_queue_lookup_does_not_block_other_callers(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    platform.faults(&["queue:429:first=1,retry-after=5"]);
    {
        let asking = engine.create(request("ann"));
        let mut asking = std::pin::pin!(asking);
        while platform.sim.state().calls["queue"] == 0 {
            let _ = futures_util::poll!(&mut asking);
            tokio::task::yield_now().await;
        }
    }
    platform.clock().sleep(Duration::from_secs(3600)).await;
    engine.create(request("bob")).await.unwrap();
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn state_directory_is_bound_to_one_platform(#[values(Sqlite, Postgres)] backend: Backend) {
    let (platform, elsewhere) = (
        TestPlatform::new(backend).await,
        TestPlatform::new(backend).await,
    );
    platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap();
    let mut config = platform.config.clone();
    config.credentials.hosts.api = elsewhere.sim.base_url().parse().unwrap();
    let error = guestlane::SessionEngine::open(config, platform.clock())
        .await
        .unwrap_err();
    let setting = match backend {
        Sqlite => "storage.home",
        Postgres => "storage.database",
    };
    assert!(
        matches!(&error, Error::Settings(invalid) if invalid[0].field == setting),
        "{error}"
    );
}

#[rstest]
#[tokio::test]
async fn exhausted_rate_limit_times_out_and_the_session_completes_later(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = TestPlatform::new(backend).await;
    platform.config.call_policy.quota = Some("1/min".parse().unwrap());
    let engine = platform.engine().await;
    let error = engine.create(request("ann")).await.unwrap_err();
    assert_eq!(error.code(), guestlane::error::ErrorCode::RateLimitTimeout);
    while platform.sim.state().conversations == 0 {
        platform.clock.advance(Duration::from_secs(300));
        let _ = engine.recover_abandoned().await.unwrap();
        assert!(
            platform.sim.state().calls["contact"] <= 1,
            "an expired token is not sent when the platform cannot know the key"
        );
    }
    platform.assert_each_guest_once(1);
}
