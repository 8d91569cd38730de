//! The wall clock is set an hour ahead or back while sessions are in progress.

use std::{sync::Arc, time::Duration};

use guestlane::Error;
use guestlane_core::session::SessionState;
use guestlane_runtime::{ManualClock, Timestamp};
use guestlane_server::diagnosis;
use guestlane_testkit::{
    Backend::{self, Postgres, Sqlite},
    platform::{TestPlatform, request},
};
use rstest::rstest;

const HOUR: i64 = 3600;

/// Returns a harness whose platform has its own clock.
async fn platform(
    backend: Backend,
    change: impl FnOnce(&mut guestlane_sim::Options),
) -> TestPlatform {
    TestPlatform::with(backend, |options| {
        options.clock = ManualClock::new(Timestamp::from_unix_micros(1_795_361_029_000_000)).into();
        change(options);
    })
    .await
}

#[rstest]
#[tokio::test]
async fn session_in_flight_when_the_clock_jumps_ahead_completes_once(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = platform(backend, |_| {}).await;
    let engine = platform.engine().await;
    platform.faults(&["conversation:500:first=2"]);
    let creating = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.create(request("ann")).await }
    });
    while platform.sim.state().calls["conversation"] == 0 {
        tokio::task::yield_now().await;
    }
    platform.clock.set_wall_clock(HOUR);
    // To other workers the lease has expired. They claim the session, and a late writer changes
    // nothing.
    let other = platform.engine().await;
    let _ = other.recover_abandoned().await.unwrap();
    let _ = creating.await.unwrap();
    platform.clock.advance(Duration::from_secs(301));
    let _ = other.recover_abandoned().await.unwrap();
    assert!(engine.create(request("ann")).await.unwrap().replayed);
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn owner_that_lost_its_lease_returns_the_new_owners_session(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = platform(backend, |_| {}).await;
    let (engine, other) = (platform.engine().await, platform.engine().await);
    platform.faults(&["contact:slow:nth=1,seconds=3"]);
    let creating = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.create(request("ann")).await }
    });
    platform.hanging().await;
    platform.clock.set_wall_clock(30); // the lease has expired, the caller's deadline has not
    assert!(matches!(
        &other.recover_abandoned().await.unwrap()[..],
        [Ok(_)]
    ));
    while !creating.is_finished() {
        if platform.sim.state().hanging > 0 {
            platform.clock.advance(Duration::from_millis(300)); // the slow response arrives
        }
        tokio::task::yield_now().await;
    }
    let opened = creating.await.unwrap().unwrap();
    assert!(
        opened.replayed,
        "it is the other one's session: the same one"
    );
    platform.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn restart_claims_abandoned_session_within_5_seconds_at_any_clock(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for step in [0, HOUR, -HOUR] {
        let platform = platform(backend, |_| {}).await;
        platform.faults(&["conversation:hang:nth=1"]);
        let dying = platform.engine().await;
        let creating = tokio::spawn(async move { dying.create(request("ann")).await });
        platform.hanging().await;
        creating.abort();
        let _ = creating.await;

        platform.clock.set_wall_clock(step);
        let engine = platform.engine().await;
        let started = monotonic_micros(&platform);
        let id = engine.store().unfinished_sessions(1).await.unwrap()[0].id;
        let working = tokio::spawn(guestlane::Workers::new(std::sync::Arc::clone(&engine)).run());
        // The session is not open, because the platform refused its token's time, but it was
        // claimed.
        while engine.store().session(id).await.unwrap().unwrap().epoch == 1 {
            platform.clock().sleep(Duration::from_millis(100)).await;
        }
        let waited = monotonic_micros(&platform) - started;
        assert!(waited <= 5_000_000, "{step}: {waited} µs");
        while engine.store().session(id).await.unwrap().unwrap().state != SessionState::Open {
            assert!(
                monotonic_micros(&platform) - started < 600_000_000,
                "{:?}",
                engine.store().session(id).await
            );
            platform.clock().sleep(Duration::from_secs(1)).await;
        }
        working.abort();
        platform.assert_each_guest_once(1);
    }
}

#[rstest]
#[tokio::test]
async fn create_ignores_a_dead_lease_dated_an_hour_ahead(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = platform(backend, |_| {}).await;
    platform.clock.set_wall_clock(HOUR);
    platform.faults(&["contact:hang:nth=1"]);
    let dying = platform.engine().await;
    let creating = tokio::spawn(async move { dying.create(request("ann")).await });
    platform.hanging().await;
    creating.abort();
    let _ = creating.await;
    platform.clock.set_wall_clock(-HOUR); // the clock is right again
    let before = monotonic_micros(&platform);
    platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap();
    assert!(monotonic_micros(&platform) - before < 1_000_000);
    platform.assert_each_guest_once(1);
}

fn monotonic_micros(platform: &TestPlatform) -> i64 {
    platform.clock().monotonic().unix_micros()
}

#[rstest]
#[tokio::test]
async fn clock_moved_back_does_not_delay_events_of_a_killed_process(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = platform(backend, |_| {}).await;
    platform.faults(&["crm:hang:nth=1"]);
    let dying = platform.engine().await;
    dying.create(request("ann")).await.unwrap();
    drop(dying);
    platform.clock.set_wall_clock(-HOUR);
    platform
        .engine()
        .await
        .outbox()
        .unwrap()
        .deliver_due()
        .await
        .unwrap();
    assert_eq!(platform.journal("crm").len(), 2, "not an hour later");
}

#[rstest]
#[tokio::test]
async fn clock_changes_do_not_affect_the_rate_limiter(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for step in [HOUR, -HOUR] {
        let mut platform = platform(backend, |_| {}).await;
        platform.config.call_policy.quota = Some("60/min".parse().unwrap());
        let engine = platform.engine().await;
        for guest in ["ann", "bob", "cy"] {
            engine.create(request(guest)).await.unwrap(); // uses up the burst of the rate limit
        }
        let before = monotonic_micros(&platform);
        platform.clock.set_wall_clock(step);
        let _ = engine.create(request("dee")).await;
        let waited = monotonic_micros(&platform) - before;
        assert!(
            (1_000_000..10_000_000).contains(&waited),
            "{step}: {waited} µs"
        );
    }
}

#[rstest]
#[tokio::test]
async fn clock_an_hour_behind_is_named_in_the_error_and_key_stays_usable(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = platform(backend, |_| {}).await;
    platform.clock.set_wall_clock(-HOUR);
    let engine = platform.engine().await;
    let error = engine.create(request("ann")).await.unwrap_err();
    assert!(
        matches!(error, Error::Platform { .. }) && diagnosis::of(&error).fix.contains("clock"),
        "{:?}",
        diagnosis::of(&error)
    );
    platform.clock.set_wall_clock(HOUR);
    engine.create(request("ann")).await.unwrap();
    platform.assert_each_guest_once(1);
}
