//! Sessions that were left behind, and those that must wait.

use std::time::Duration;

use guestlane::{Error, ledger::State, store::StoreError};

use crate::world::{World, request};

#[tokio::test]
async fn a_wait_longer_than_the_caller_has_is_parked_and_completed_later() {
    let world = World::new().await;
    let lane = world.lane().await;
    world.faults(&["conversation:429:first=1,retry-after=90"]);
    let error = lane.create(request("ann")).await.unwrap_err();
    assert_eq!(error.advice().code, "rate_limited");
    let id = error.session().unwrap();
    assert_eq!(lane.store().session(id).await.unwrap().unwrap().state, State::Parked);

    assert!(lane.recover(true).await.unwrap().is_empty(), "not before the platform's time");
    world.clock.advance(Duration::from_secs(92));
    let finished = lane.recover(false).await.unwrap();
    assert!(matches!(&finished[..], [Ok(opened)] if opened.session.id == id));
    world.assert_each_guest_once(1);
}

#[tokio::test]
async fn a_caller_who_asks_for_a_parked_session_waits_with_it() {
    let world = World::new().await;
    let lane = world.lane().await;
    world.faults(&["conversation:429:first=1,retry-after=70"]);
    lane.create(request("ann")).await.unwrap_err();
    world.clock.advance(Duration::from_secs(30));
    assert!(lane.create(request("ann")).await.is_ok());
    world.assert_each_guest_once(1);
    assert_eq!(world.sim.state().calls["conversation"], 2, "and does not hurry the platform");
}

#[tokio::test]
async fn a_token_that_expired_while_the_session_waited_is_signed_afresh() {
    let world = World::new().await;
    let lane = world.lane().await;
    world.faults(&["conversation:429:first=1,retry-after=400"]);
    let error = lane.create(request("ann")).await.unwrap_err();
    world.clock.advance(Duration::from_secs(402));
    let finished = lane.recover(false).await.unwrap();
    let [Ok(opened)] = &finished[..] else { panic!("{finished:?}") };
    assert_eq!(Some(opened.session.id), error.session());
    let tokens: std::collections::HashSet<_> = world.journal("conversation").iter().map(|entry| entry.body.clone()).collect();
    assert_eq!(tokens.len(), 2, "the old one was refused, the new one taken");
    world.assert_each_guest_once(1);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_old_token_even_when_that_has_expired() {
    let world = World::new().await;
    let lane = world.lane().await;
    world.faults(&["conversation:answer-lost:first=4"]);
    lane.create(request("ann")).await.unwrap_err();
    world.clock.advance(Duration::from_secs(3600));
    assert!(matches!(&lane.recover(false).await.unwrap()[..], [Ok(_)]));
    world.assert_each_guest_once(1);
}

#[tokio::test]
async fn after_the_platforms_24_hours_a_person_must_look() {
    let world = World::new().await;
    let lane = world.lane().await;
    world.faults(&["conversation:answer-lost"]);
    lane.create(request("ann")).await.unwrap_err();
    let calls = world.sim.state().calls["conversation"];
    world.clock.advance(Duration::from_secs(24 * 3600));
    world.faults(&[]);
    let ended = lane.recover(false).await.unwrap();
    assert!(matches!(&ended[..], [Err(Error::NeedsAttention { contact_id: Some(_), .. })]), "{ended:?}");
    assert_eq!(world.sim.state().calls["conversation"], calls, "nothing is guessed");
    assert!(matches!(lane.create(request("ann")).await, Err(Error::NeedsAttention { .. })));
    world.assert_each_guest_once(1);
    assert_eq!(world.audit().last().unwrap()["status"], "failed");
}

#[tokio::test]
async fn a_caller_who_asks_after_a_failure_need_not_wait_for_the_sessions_rest() {
    let world = World::new().await;
    let lane = world.lane().await;
    world.faults(&["conversation:500:first=4"]);
    lane.create(request("ann")).await.unwrap_err();
    let opened = lane.create(request("ann")).await.unwrap();
    assert_eq!(opened.session.attempts, 1 + 4 + 1);
    world.assert_each_guest_once(1);
}

#[tokio::test]
async fn a_driver_that_wakes_up_late_can_write_nothing() {
    let world = World::new().await;
    let (stuck, other) = (world.lane().await, world.lane().await);
    world.faults(&["conversation:500:first=4"]);
    let error = stuck.create(request("ann")).await.unwrap_err();
    let id = error.session().unwrap();
    let late = stuck.store().take_up_one(id, world.clock.now()).await.unwrap().unwrap();
    world.clock.advance(guestlane::ledger::LEASE); // it is paused, and renews nothing
    assert!(matches!(&other.recover(false).await.unwrap()[..], [Ok(_)]));
    let written = stuck.resume(late).await;
    assert!(matches!(written, Err(Error::Store(StoreError::LeaseLost))), "{written:?}");
    world.assert_each_guest_once(1);
}

#[tokio::test]
async fn a_session_that_is_driven_is_not_taken_up_however_long_it_takes() {
    let world = World::new().await;
    let (lane, other) = (world.lane().await, world.lane().await);
    world.faults(&["conversation:429:first=2,retry-after=20"]);
    let creating = tokio::spawn(async move { lane.create(request("ann")).await });
    let clock = world.clock();
    for _ in 0..35 {
        clock.sleep(Duration::from_secs(1)).await;
        assert!(other.recover(true).await.unwrap().is_empty());
    }
    creating.await.unwrap().unwrap();
    world.assert_each_guest_once(1);
}

#[tokio::test]
async fn work_finishes_what_was_left_behind_without_being_asked() {
    let world = World::new().await;
    let lane = world.lane().await;
    world.faults(&["conversation:500:first=4"]);
    let id = lane.create(request("ann")).await.unwrap_err().session().unwrap();
    let working = tokio::spawn(std::sync::Arc::clone(&lane).work());
    while lane.store().session(id).await.unwrap().unwrap().state != State::Open {
        world.clock().sleep(Duration::from_secs(1)).await;
    }
    working.abort();
    world.assert_each_guest_once(1);
}
