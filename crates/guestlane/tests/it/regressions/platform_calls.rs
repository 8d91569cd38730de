//! Defects of calls to the platform.

use super::*;

#[rstest]
#[tokio::test]
async fn retry_reuses_the_idempotency_key_and_causes_no_duplicate(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = TestPlatform::with(backend, |options| options.seed = 42).await;
    platform.outlast_random_faults();
    let engine = platform.engine().await;
    platform.faults(&[
        "contact:answer-lost:p=0.05",
        "conversation:answer-lost:p=0.05",
    ]);
    assert!(
        create_many(&engine, 2000, 64)
            .await
            .iter()
            .all(Result::is_ok)
    );
    platform.assert_each_guest_once(2000);
    assert!(platform.sim.state().faults["answer-lost"] > 100);
}

#[rstest]
#[tokio::test]
async fn failed_second_step_does_not_repeat_the_first(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    platform.faults(&["conversation:500"]);
    let error = engine.create(request("ann")).await.unwrap_err();
    assert_eq!(error.code(), guestlane::error::ErrorCode::PlatformFailing);
    let state = platform.sim.state();
    assert_eq!(
        (
            state.contacts,
            state.calls["contact"],
            state.calls["conversation"]
        ),
        (1, 1, 4)
    );
}

#[rstest]
#[tokio::test]
async fn every_429_is_counted_as_a_rate_limit_error(#[values(Sqlite, Postgres)] backend: Backend) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    platform.faults(&["contact:429"]);
    engine.create(request("ann")).await.unwrap_err();
    let errors = engine.store().error_counts().await.unwrap();
    let calls = platform.sim.state().calls["contact"];
    assert!(calls > 4, "a 429 is none of the three repetitions: {calls}");
    assert_eq!((errors.rate_limit, errors.total), (calls, calls));
}

#[rstest]
#[tokio::test]
async fn payload_400_is_not_retried(#[values(Sqlite, Postgres)] backend: Backend) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    // Only the key of another harness is registered, so the platform answers 400.
    platform.register_foreign_keys(backend).await;
    let before = platform.clock.now();
    engine.create(request("ann")).await.unwrap_err();
    assert_eq!(platform.sim.state().calls["contact"], 1);
    assert!(platform.clock.now().since(before) < Duration::from_secs(1));
}

#[rstest]
#[tokio::test]
async fn calls_are_paced_to_the_rate_limit(#[values(Sqlite, Postgres)] backend: Backend) {
    let mut platform =
        TestPlatform::with(backend, |options| options.quota = Some(Rate::REST)).await;
    platform.config.call_policy.quota = Some(Rate::REST);
    platform.config.deadline = Duration::from_secs(3600);
    let engine = platform.engine().await;
    let before = platform.clock.now();
    let created = create_many(&engine, 1000, 1000).await;
    assert!(created.iter().all(Result::is_ok), "none lost");
    platform.assert_each_guest_once(1000);
    let calls = engine.platform_metrics().calls();
    assert!(
        engine.platform_metrics().throttled() * 1000 <= calls,
        "{} of {calls} answered 429",
        engine.platform_metrics().throttled()
    );
    let seconds = platform.clock.now().since(before).as_secs_f64();
    assert!(
        calls as f64 / seconds >= 97.0,
        "{calls} calls in {seconds} s: the limit is not used"
    );
}

#[rstest]
#[tokio::test]
async fn call_waits_for_retry_after(#[values(Sqlite, Postgres)] backend: Backend) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    platform.faults(&["contact:429:first=1,retry-after=20"]);
    let before = platform.clock.now();
    engine.create(request("ann")).await.unwrap();
    assert!(platform.clock.now().since(before) >= Duration::from_secs(20));
    assert_eq!(platform.sim.state().calls["contact"], 2);
}

#[rstest]
#[tokio::test]
async fn token_refresh_is_single_flight_for_256_sessions(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    assert!(
        create_many(&engine, 256, 256)
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(platform.sim.state().tokens_issued, 1);

    // All calls of the first wave waited for the queue lookup. Now 256 calls find at the same time
    // that there is no token.
    platform.sim.revoke_tokens();
    let more: Vec<_> = (0..256)
        .map(|n| engine.create(request(&format!("another-{n}"))))
        .collect();
    assert!(
        futures_util::future::join_all(more)
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(platform.sim.state().tokens_issued, 2);
}

#[rstest]
#[tokio::test]
async fn wrong_credentials_are_not_retried_by_each_waiter(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = TestPlatform::new(backend).await;
    platform.config.credentials.clients[0].secret = "wrong".to_owned().into();
    let engine = platform.engine().await;
    assert!(
        create_many(&engine, 256, 256)
            .await
            .iter()
            .all(Result::is_err)
    );
    // A caller that arrives after the failure was reported requests a token again. The number of
    // such requests depends on the machine's load.
    let at_most = 25;
    assert!(
        platform.sim.state().calls["token"] <= at_most,
        "{:?}",
        platform.sim.state().calls
    );
}

#[rstest]
#[tokio::test]
async fn revoked_access_token_is_replaced_after_one_extra_attempt(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    engine.create(request("ann")).await.unwrap();
    platform.sim.revoke_tokens();
    engine.create(request("bob")).await.unwrap();
    let state = platform.sim.state();
    assert_eq!(
        (state.tokens_issued, state.calls["contact"]),
        (2, 3),
        "one extra attempt"
    );
}

#[rstest]
#[tokio::test]
async fn platform_calls_time_out(#[values(Sqlite, Postgres)] backend: Backend) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    platform.faults(&["contact:hang:first=1"]);
    let creating = tokio::spawn(async move { engine.create(request("ann")).await });
    platform.hanging().await;
    platform.clock.advance(Duration::from_secs(10));
    creating.await.unwrap().unwrap();
    platform.assert_each_guest_once(1);
}
