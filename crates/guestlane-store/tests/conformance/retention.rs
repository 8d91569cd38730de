//! Retention, erasure, and counts that outlive what is deleted.

use std::time::Duration;

use guestlane_core::session::LEASE_TTL;
use guestlane_store::{DeliveryOutcome, ErasureOutcome, SessionFilter};
use rstest::rstest;

use crate::kit::{Backend, Postgres, SECOND, Sqlite, TestStore, request};

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn prune(world: &TestStore) -> (u64, u64) {
    let pruned = world.store.prune(None, world.now(), 100).await.unwrap();
    (pruned.sessions, pruned.events)
}

#[rstest]
#[tokio::test]
async fn only_finished_sessions_without_pending_events_are_pruned(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let world = TestStore::open(backend).await;
    let delivered = world.admit(request("ann")).await;
    let event = world.complete(delivered.clone(), 1).await.first.remove(0);
    let pending = world.admit(request("bob")).await;
    world.complete(pending.clone(), 1).await;
    let unfinished = world.admit(request("eve")).await;
    let now = world.now();
    world
        .store
        .record_delivery(event, DeliveryOutcome::Delivered, now)
        .await
        .unwrap();
    assert_eq!(prune(&world).await, (0, 0), "all are as new as the limit");

    world.clock.advance(DAY);
    assert_eq!(prune(&world).await, (1, 1));
    let store = &world.store;
    let exists = |id| async move { store.session(id).await.unwrap().is_some() };
    assert_eq!(
        (
            exists(delivered.id).await,
            exists(pending.id).await,
            exists(unfinished.id).await
        ),
        (false, true, true)
    );
    let summary = world.store.summary().await.unwrap();
    assert_eq!(summary.sessions["open"], 2, "pruned sessions are counted");
    assert_eq!(summary.events["delivered"], 1);
    assert_eq!(summary.latency.count, 2);
}

#[rstest]
#[tokio::test]
async fn retention_deletes_nothing_without_a_period(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = TestStore::open(backend).await;
    assert_eq!(world.store.advance_retention(None).await.unwrap(), None);
    let until = world.store.advance_retention(Some(DAY)).await.unwrap();
    assert!(until.is_none_or(|until| until + DAY <= world.now()));
}

#[rstest]
#[tokio::test]
async fn erased_guest_is_found_by_nothing_and_its_records_stay(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let world = TestStore::open(backend).await;
    let session = world.admit(request("ann")).await;
    let guest = session.request.guest.clone();
    let refused = world
        .store
        .erase_guest(guest.clone(), world.now())
        .await
        .unwrap();
    assert_eq!(refused, ErasureOutcome::Unfinished(vec![session.id]));
    let event = world.complete(session.clone(), 1).await.first.remove(0);
    let now = world.now();
    world
        .store
        .record_delivery(event, DeliveryOutcome::Delivered, now)
        .await
        .unwrap();

    world.clock.advance(LEASE_TTL + SECOND);
    let would = world
        .store
        .would_erase_guest(guest.clone(), world.now())
        .await
        .unwrap();
    assert!(matches!(&would, ErasureOutcome::Erased(report) if report.sessions == 1));
    let by_key = world
        .store
        .find_by_key(session.request.key.clone())
        .await
        .unwrap();
    assert!(by_key.is_some(), "a preview changes nothing");

    let erased = world
        .store
        .erase_guest(guest.clone(), world.now())
        .await
        .unwrap();
    let ErasureOutcome::Erased(report) = erased else {
        panic!("{erased:?}");
    };
    assert_eq!((report.sessions, report.events), (1, 1));
    assert_eq!(report.plain_records, [(1, 2)]);
    let of_guest = SessionFilter {
        guest: Some("ann".to_owned()),
        limit: 10,
        ..SessionFilter::default()
    };
    let page = world.store.sessions(of_guest).await.unwrap();
    assert!(page.sessions.is_empty());
    assert_eq!(
        world.store.find_by_key(session.request.key).await.unwrap(),
        None
    );
    let kept = world.store.session(session.id).await.unwrap().unwrap();
    assert!(kept.is_erased());
    let again = world.store.erase_guest(guest, world.now()).await.unwrap();
    assert_eq!(again, ErasureOutcome::Unknown);
}

#[rstest]
#[tokio::test]
async fn gauges_count_what_waits(#[values(Sqlite, Postgres)] backend: Backend) {
    let world = TestStore::open(backend).await;
    let began = world.now();
    world.admit(request("ann")).await;
    world.clock.advance(SECOND);
    let session = world.admit(request("bob")).await;
    world.complete(session, 2).await;
    let gauges = world.store.gauges().await.unwrap();
    assert_eq!(
        (gauges.unfinished, gauges.oldest_unfinished),
        (1, Some(began))
    );
    assert_eq!(
        (gauges.pending_events, gauges.oldest_event),
        (2, Some(world.now()))
    );
    assert_eq!(gauges.audit, Some((1, 3)));
}
