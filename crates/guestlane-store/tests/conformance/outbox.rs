//! The outbox: events in order, one worker at a time, and none lost.

use guestlane_core::event::Event;
use guestlane_store::{DeliveryOutcome, DeliveryState, DisabledEndpoint, ReplayFilter};
use rstest::rstest;

use crate::kit::{Backend, Postgres, SECOND, Sqlite, TestStore, request};

/// Opens a session of the guest with an event for each endpoint.
async fn event_of(test: &TestStore, guest: &str, key: &str, endpoints: u32) -> Vec<Event> {
    let mut wanted = request(guest);
    wanted.key = key.parse().unwrap();
    let session = test.admit(wanted).await;
    test.complete(session, endpoints).await.first
}

async fn claim(test: &TestStore, endpoint: u32) -> Vec<String> {
    let now = test.now();
    let claimed = test.store.claim_events(endpoint, 10, now).await.unwrap();
    claimed.into_iter().map(|event| event.id).collect()
}

#[rstest]
#[tokio::test]
async fn first_delivery_belongs_to_the_process_that_wrote_the_event(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let test = TestStore::open(backend).await;
    let first = event_of(&test, "ann", "one", 2).await;
    assert_eq!(first.len(), 2);
    assert_eq!(claim(&test, 1).await, [""; 0], "its lease has not ended");
    assert!(
        test.store
            .next_initial_delivery_at(test.now())
            .await
            .unwrap()
            .is_some()
    );
    test.clock.advance(Event::LEASE + SECOND);
    assert_eq!(claim(&test, 1).await, [first[0].id.clone()]);
    assert_eq!(claim(&test, 1).await, [""; 0], "it is leased again");
}

#[rstest]
#[tokio::test]
async fn events_of_one_guest_are_delivered_in_order(#[values(Sqlite, Postgres)] backend: Backend) {
    let test = TestStore::open(backend).await;
    let one = event_of(&test, "ann", "one", 1).await.remove(0);
    assert_eq!(
        event_of(&test, "ann", "two", 1).await,
        [],
        "it waits for the first"
    );
    let other = event_of(&test, "bob", "three", 1).await;
    assert_eq!(other.len(), 1, "another guest's event does not wait");

    test.clock.advance(Event::LEASE + SECOND);
    let mut due = claim(&test, 1).await;
    due.sort();
    let mut expected = [one.id.clone(), other[0].id.clone()];
    expected.sort();
    assert_eq!(due, expected);

    let claimed = test
        .store
        .event(one.id.clone())
        .await
        .unwrap()
        .remove(0)
        .event;
    let now = test.now();
    test.store
        .record_delivery(claimed, DeliveryOutcome::Delivered, now)
        .await
        .unwrap();
    assert_eq!(claim(&test, 1).await.len(), 1, "the second is due now");
    assert_eq!(test.store.pending_events().await.unwrap(), 2);
}

#[rstest]
#[tokio::test]
async fn result_of_an_expired_delivery_lease_is_ignored(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let test = TestStore::open(backend).await;
    let slow = event_of(&test, "ann", "one", 1).await.remove(0);
    test.clock.advance(Event::LEASE + SECOND);
    assert_eq!(claim(&test, 1).await.len(), 1);
    let dead = DeliveryOutcome::Dead {
        error: "late".to_owned(),
    };
    let now = test.now();
    test.store
        .record_delivery(slow.clone(), dead, now)
        .await
        .unwrap();
    let found = test.store.event(slow.id).await.unwrap().remove(0);
    assert_eq!(
        (found.state, found.last_error),
        (DeliveryState::Pending, None)
    );
}

#[rstest]
#[tokio::test]
async fn failed_event_is_retried_then_dead_then_replayed(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let test = TestStore::open(backend).await;
    let event = event_of(&test, "ann", "one", 1).await.remove(0);
    let id = event.id.clone();
    let retry = DeliveryOutcome::Retry {
        at: test.now() + SECOND * 60,
        error: "503".to_owned(),
    };
    let now = test.now();
    test.store.record_delivery(event, retry, now).await.unwrap();
    let found = test.store.event(id.clone()).await.unwrap().remove(0);
    assert_eq!(
        (found.event.attempts, found.last_error.as_deref()),
        (1, Some("503"))
    );
    assert_eq!(claim(&test, 1).await, [""; 0]);
    assert_eq!(test.store.expedite_events(test.now()).await.unwrap(), 1);
    let again = test
        .store
        .claim_events(1, 10, test.now())
        .await
        .unwrap()
        .remove(0);

    let dead = DeliveryOutcome::Dead {
        error: "410".to_owned(),
    };
    let now = test.now();
    test.store.record_delivery(again, dead, now).await.unwrap();
    let dead = test
        .store
        .events(Some(DeliveryState::Dead), None, 10)
        .await
        .unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(test.store.gauges().await.unwrap().dead_events, 1);

    let replay = ReplayFilter::Event(id.clone());
    assert_eq!(test.store.replayable(replay.clone()).await.unwrap(), 1);
    assert_eq!(test.store.replay(replay, test.now()).await.unwrap(), 1);
    assert_eq!(claim(&test, 1).await, [id]);
}

#[rstest]
#[tokio::test]
async fn endpoint_stays_disabled_until_enabled_or_moved(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let test = TestStore::open(backend).await;
    let disabled = |address: &str| DisabledEndpoint {
        number: 2,
        address: address.to_owned(),
        at: test.now(),
    };
    let store = test.opened_again().await;
    assert!(test.store.disable_endpoint(disabled("one")).await.unwrap());
    assert!(
        !store.disable_endpoint(disabled("one")).await.unwrap(),
        "it is disabled"
    );
    assert!(store.disable_endpoint(disabled("two")).await.unwrap());
    assert_eq!(store.disabled_endpoints().await.unwrap(), [disabled("two")]);
    assert!(store.enable_endpoint(2).await.unwrap());
    assert!(!test.store.enable_endpoint(2).await.unwrap());
    assert_eq!(test.store.disabled_endpoints().await.unwrap(), []);
}

#[rstest]
#[tokio::test]
async fn events_of_removed_endpoints_are_counted(#[values(Sqlite, Postgres)] backend: Backend) {
    let test = TestStore::open(backend).await;
    event_of(&test, "ann", "one", 3).await;
    assert_eq!(test.store.pending_events_after(1).await.unwrap(), 2);
    assert_eq!(test.store.pending_events_after(3).await.unwrap(), 0);
}
