//! The order of events, dead letters and replays.

use super::*;

#[rstest]
#[tokio::test]
async fn events_of_one_guest_keep_order_and_do_not_block_other_guests(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    let outbox = engine.outbox().unwrap();
    platform.faults(&["crm:500:first=1"]);
    let create = async |guest: &str, key: &str| {
        let opened = engine
            .create(SessionRequest {
                key: key.parse().unwrap(),
                ..request(guest)
            })
            .await
            .unwrap();
        outbox.wait_for_initial_deliveries().await;
        opened.session.conversation_id.unwrap().to_string()
    };
    let first = create("ann", "one").await;
    let (second, third) = (create("ann", "two").await, create("ann", "three").await);
    let other = create("bob", "bob").await;
    let delivered = || -> Vec<String> {
        platform
            .sim
            .crm_events()
            .iter()
            .map(|event| event["data"]["conversationId"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        delivered(),
        [other.as_str()],
        "the first of ann's failed, so the others wait"
    );
    outbox.deliver_due().await.unwrap();
    assert_eq!(delivered().len(), 1, "also for a worker");
    platform.clock.advance(Duration::from_secs(6));
    outbox.deliver_due().await.unwrap();
    assert_eq!(delivered(), [other, first, second, third]);
}

#[rstest]
#[tokio::test]
async fn dead_letter_unblocks_the_next_event_and_can_be_replayed(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    let outbox = engine.outbox().unwrap();
    platform.faults(&["crm:500:first=10"]);
    for key in ["one", "two"] {
        engine
            .create(SessionRequest {
                key: key.parse().unwrap(),
                ..request("ann")
            })
            .await
            .unwrap();
    }
    outbox.wait_for_initial_deliveries().await;
    for _ in 0..9 {
        platform.clock.advance(Duration::from_secs(27 * 3600));
        outbox.deliver_due().await.unwrap();
    }
    let [dead] = &engine
        .store()
        .events(Some(DeliveryState::Dead), None, 10)
        .await
        .unwrap()[..]
    else {
        panic!()
    };
    assert_eq!(
        (dead.event.attempts, platform.sim.state().crm.events),
        (10, 1),
        "after ten attempts the second event is delivered"
    );
    assert_eq!(
        dead.last_error.as_deref(),
        Some("the endpoint responded with HTTP 500")
    );
    engine
        .store()
        .replay(
            ReplayFilter::Event(dead.event.id.clone()),
            platform.clock.now(),
        )
        .await
        .unwrap();
    outbox.deliver_due().await.unwrap();
    assert_eq!(platform.sim.state().crm.events, 2);
}

#[rstest]
#[tokio::test]
async fn events_in_a_time_range_are_counted_and_replayed(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    let mut times = Vec::new();
    for guest in ["ann", "bob", "cy"] {
        times.push(platform.clock.now());
        engine.create(request(guest)).await.unwrap();
        engine.outbox().unwrap().wait_for_initial_deliveries().await;
        platform.clock.advance(Duration::from_secs(60));
    }
    let of = |since, until, state| ReplayFilter::Written {
        since,
        until,
        state,
    };
    let count = async |replay| engine.store().replayable(replay).await.unwrap();
    assert_eq!(count(of(times[0], platform.clock.now(), None)).await, 3);
    assert_eq!(count(of(times[1], times[2], None)).await, 1);
    assert_eq!(
        count(of(
            times[0],
            platform.clock.now(),
            Some(DeliveryState::Dead)
        ))
        .await,
        0
    );
    assert_eq!(
        platform.sim.state().crm.repeated,
        0,
        "counting sends nothing"
    );
    assert_eq!(
        engine
            .store()
            .replay(
                of(times[1], platform.clock.now(), None),
                platform.clock.now()
            )
            .await
            .unwrap(),
        2
    );
    engine.outbox().unwrap().deliver_due().await.unwrap();
    let crm = platform.sim.state().crm;
    assert_eq!((crm.events, crm.repeated), (3, 2));
}

/// A worker that stalls during a delivery must not settle it after another worker has claimed it.
#[rstest]
#[tokio::test]
async fn delivery_with_an_expired_lease_is_not_recorded(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    platform.faults(&["crm:500:nth=1"]);
    engine.create(request("ann")).await.unwrap();
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    platform.clock.advance(Duration::from_secs(60));
    let store = engine.store();
    let late = store
        .claim_events(1, 9, platform.clock.now())
        .await
        .unwrap()
        .remove(0);
    assert!(
        store
            .claim_events(1, 9, platform.clock.now())
            .await
            .unwrap()
            .is_empty(),
        "it is taken"
    );
    platform.clock.advance(Duration::from_secs(11));
    let now = platform.clock.now();
    let other = store.claim_events(1, 9, now).await.unwrap().remove(0);
    assert!(other.epoch > late.epoch);
    store
        .record_delivery(
            late.clone(),
            DeliveryOutcome::Dead {
                error: "late".to_owned(),
            },
            now,
        )
        .await
        .unwrap();
    assert_eq!(
        store.event(late.id.clone()).await.unwrap()[0].state,
        DeliveryState::Pending
    );
    store
        .record_delivery(other, DeliveryOutcome::Delivered, now)
        .await
        .unwrap();
    assert_eq!(
        store.event(late.id).await.unwrap()[0].state,
        DeliveryState::Delivered
    );
}
