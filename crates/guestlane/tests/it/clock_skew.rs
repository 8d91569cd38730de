//! The wall clock is set an hour ahead or back while sessions are in progress.

use std::{sync::Arc, time::Duration};

use guestlane::Error;
use guestlane_core::session::SessionState;
use guestlane_runtime::{ManualClock, Timestamp};

use crate::harness::{World, request};

const HOUR: i64 = 3600;

/// Returns a harness whose platform has its own clock.
async fn world(change: impl FnOnce(&mut guestlane_sim::Options)) -> World {
    World::with(|options| {
        options.clock = ManualClock::new(Timestamp::from_unix_micros(1_795_361_029_000_000)).into();
        change(options);
    })
    .await
}

#[tokio::test]
async fn a_session_that_is_under_way_when_the_clock_is_set_ahead_is_completed_once() {
    let world = world(|_| {}).await;
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

#[tokio::test]
async fn a_driver_who_was_taken_for_dead_answers_what_the_other_one_made() {
    let world = world(|_| {}).await;
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

#[tokio::test]
async fn what_a_killed_process_left_behind_is_taken_up_within_5_seconds_of_the_next_start_whatever_the_clock_shows()
 {
    for step in [0, HOUR, -HOUR] {
        let world = world(|_| {}).await;
        world.faults(&["conversation:hang:nth=1"]);
        let dying = world.engine().await;
        let creating = tokio::spawn(async move { dying.create(request("ann")).await });
        world.hanging().await;
        creating.abort();
        let _ = creating.await;

        world.clock.set_wall_clock(step);
        let engine = world.engine().await;
        let started = lane_time(&world);
        let id = engine.store().unfinished_sessions(1).await.unwrap()[0].id;
        let working = tokio::spawn(guestlane::Workers::new(std::sync::Arc::clone(&engine)).run());
        // The session is not open, because the platform refused its token's time, but it was
        // claimed.
        while engine.store().session(id).await.unwrap().unwrap().epoch == 1 {
            world.clock().sleep(Duration::from_millis(100)).await;
        }
        let waited = lane_time(&world) - started;
        assert!(waited <= 5_000_000, "{step}: {waited} µs");
        while engine.store().session(id).await.unwrap().unwrap().state != SessionState::Open {
            assert!(
                lane_time(&world) - started < 600_000_000,
                "{:?}",
                engine.store().session(id).await
            );
            world.clock().sleep(Duration::from_secs(1)).await;
        }
        working.abort();
        world.assert_each_guest_once(1);
    }
}

#[tokio::test]
async fn a_caller_need_not_wait_for_the_lease_of_a_dead_process_that_a_clock_an_hour_ahead_gave() {
    let world = world(|_| {}).await;
    world.clock.set_wall_clock(HOUR);
    world.faults(&["contact:hang:nth=1"]);
    let dying = world.engine().await;
    let creating = tokio::spawn(async move { dying.create(request("ann")).await });
    world.hanging().await;
    creating.abort();
    let _ = creating.await;
    world.clock.set_wall_clock(-HOUR); // the clock is right again
    let before = lane_time(&world);
    world.engine().await.create(request("ann")).await.unwrap();
    assert!(lane_time(&world) - before < 1_000_000);
    world.assert_each_guest_once(1);
}

fn lane_time(world: &World) -> i64 {
    world.clock().monotonic().unix_micros()
}

#[tokio::test]
async fn an_event_of_a_killed_process_is_delivered_soon_although_the_clock_was_set_back() {
    let world = world(|_| {}).await;
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

#[tokio::test]
async fn the_pace_of_calls_is_not_changed_by_a_clock_that_is_set() {
    for step in [HOUR, -HOUR] {
        let mut world = world(|_| {}).await;
        world.config.call_policy.quota = Some("60/min".parse().unwrap());
        let engine = world.engine().await;
        for guest in ["ann", "bob", "cy"] {
            engine.create(request(guest)).await.unwrap(); // uses up the burst of the rate limit
        }
        let before = lane_time(&world);
        world.clock.set_wall_clock(step);
        let _ = engine.create(request("dee")).await;
        let waited = lane_time(&world) - before;
        assert!(
            (1_000_000..10_000_000).contains(&waited),
            "{step}: {waited} µs"
        );
    }
}

#[tokio::test]
async fn with_a_clock_an_hour_behind_the_platforms_the_refusal_names_the_clock_and_the_key_works_once_it_is_right()
 {
    let world = world(|_| {}).await;
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
