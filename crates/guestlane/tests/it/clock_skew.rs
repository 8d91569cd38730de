//! The wall clock is set an hour ahead or back while sessions are in progress.

use std::{sync::Arc, time::Duration};

use guestlane::Error;
use guestlane_core::session::SessionState;
use guestlane_runtime::{ManualClock, Timestamp};
use guestlane_testkit::{
    Backend::{self, Postgres, Sqlite},
    platform::{TestPlatform, request},
};
use rstest::rstest;

const HOUR: i64 = 3600;

/// Returns a harness whose platform has its own clock.
async fn world(backend: Backend, change: impl FnOnce(&mut guestlane_sim::Options)) -> TestPlatform {
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
    let world = world(backend, |_| {}).await;
    let engine = world.engine().await;
    world.faults(&["conversation:500:first=2"]);
    let creating = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.create(request("ann")).await }
    });
    while world.sim.state().calls["conversation"] == 0 {
        tokio::task::yield_now().await;
    }
    world.clock.set_wall_clock(HOUR);
    // To other workers the lease has expired. They claim the session, and a late writer changes
    // nothing.
    let other = world.engine().await;
    let _ = other.recover_abandoned().await.unwrap();
    let _ = creating.await.unwrap();
    world.clock.advance(Duration::from_secs(301));
    let _ = other.recover_abandoned().await.unwrap();
    assert!(engine.create(request("ann")).await.unwrap().replayed);
    world.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn owner_that_lost_its_lease_returns_the_new_owners_session(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let world = world(backend, |_| {}).await;
    let (engine, other) = (world.engine().await, world.engine().await);
    world.faults(&["contact:slow:nth=1,seconds=3"]);
    let creating = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.create(request("ann")).await }
    });
    world.hanging().await;
    world.clock.set_wall_clock(30); // the lease has expired, the caller's deadline has not
    assert!(matches!(
        &other.recover_abandoned().await.unwrap()[..],
        [Ok(_)]
    ));
    while !creating.is_finished() {
        if world.sim.state().hanging > 0 {
            world.clock.advance(Duration::from_millis(300)); // the slow response arrives
        }
        tokio::task::yield_now().await;
    }
    let opened = creating.await.unwrap().unwrap();
    assert!(
        opened.replayed,
        "it is the other one's session: the same one"
    );
    world.assert_each_guest_once(1);
}

#[rstest]
#[tokio::test]
async fn restart_claims_abandoned_session_within_5_seconds_at_any_clock(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for step in [0, HOUR, -HOUR] {
        let world = world(backend, |_| {}).await;
        world.faults(&["conversation:hang:nth=1"]);
        let dying = world.engine().await;
        let creating = tokio::spawn(async move { dying.create(request("ann")).await });
        world.hanging().await;
        creating.abort();
        let _ = creating.await;

        world.clock.set_wall_clock(step);
        let engine = world.engine().await;
        let started = monotonic_micros(&world);
        let id = engine.store().unfinished_sessions(1).await.unwrap()[0].id;
        let working = tokio::spawn(guestlane::Workers::new(std::sync::Arc::clone(&engine)).run());
        // The session is not open, because the platform refused its token's time, but it was
        // claimed.
        while engine.store().session(id).await.unwrap().unwrap().epoch == 1 {
            world.clock().sleep(Duration::from_millis(100)).await;
        }
        let waited = monotonic_micros(&world) - started;
        assert!(waited <= 5_000_000, "{step}: {waited} µs");
        while engine.store().session(id).await.unwrap().unwrap().state != SessionState::Open {
            assert!(
                monotonic_micros(&world) - started < 600_000_000,
                "{:?}",
                engine.store().session(id).await
            );
            world.clock().sleep(Duration::from_secs(1)).await;
        }
        working.abort();
        world.assert_each_guest_once(1);
    }
}

#[rstest]
#[tokio::test]
async fn create_ignores_a_dead_lease_dated_an_hour_ahead(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let world = world(backend, |_| {}).await;
    world.clock.set_wall_clock(HOUR);
    world.faults(&["contact:hang:nth=1"]);
    let dying = world.engine().await;
    let creating = tokio::spawn(async move { dying.create(request("ann")).await });
    world.hanging().await;
    creating.abort();
    let _ = creating.await;
    world.clock.set_wall_clock(-HOUR); // the clock is right again
    let before = monotonic_micros(&world);
    world.engine().await.create(request("ann")).await.unwrap();
    assert!(monotonic_micros(&world) - before < 1_000_000);
    world.assert_each_guest_once(1);
}

fn monotonic_micros(world: &TestPlatform) -> i64 {
    world.clock().monotonic().unix_micros()
}

#[rstest]
#[tokio::test]
async fn clock_moved_back_does_not_delay_events_of_a_killed_process(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let world = world(backend, |_| {}).await;
    world.faults(&["crm:hang:nth=1"]);
    let dying = world.engine().await;
    dying.create(request("ann")).await.unwrap();
    drop(dying);
    world.clock.set_wall_clock(-HOUR);
    world
        .engine()
        .await
        .outbox()
        .unwrap()
        .deliver_due()
        .await
        .unwrap();
    assert_eq!(world.journal("crm").len(), 2, "not an hour later");
}

#[rstest]
#[tokio::test]
async fn clock_changes_do_not_affect_the_rate_limiter(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for step in [HOUR, -HOUR] {
        let mut world = world(backend, |_| {}).await;
        world.config.call_policy.quota = Some("60/min".parse().unwrap());
        let engine = world.engine().await;
        for guest in ["ann", "bob", "cy"] {
            engine.create(request(guest)).await.unwrap(); // uses up the burst of the rate limit
        }
        let before = monotonic_micros(&world);
        world.clock.set_wall_clock(step);
        let _ = engine.create(request("dee")).await;
        let waited = monotonic_micros(&world) - before;
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
    let world = world(backend, |_| {}).await;
    world.clock.set_wall_clock(-HOUR);
    let engine = world.engine().await;
    let error = engine.create(request("ann")).await.unwrap_err();
    assert!(
        matches!(error, Error::Platform { .. }) && error.advice().fix.contains("clock"),
        "{:?}",
        error.advice()
    );
    world.clock.set_wall_clock(HOUR);
    engine.create(request("ann")).await.unwrap();
    world.assert_each_guest_once(1);
}
