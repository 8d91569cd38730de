//! Retention, erasure, and counts that outlive what is deleted.

use std::time::Duration;

use guestlane_core::session::LEASE_TTL;
use guestlane_store::{DeliveryOutcome, ErasureOutcome, SessionFilter};
use rstest::rstest;

use crate::kit::{Backend, Postgres, SECOND, Sqlite, TestStore, request};

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn prune(test: &TestStore) -> (u64, u64) {
    let pruned = test.store.prune(None, test.now(), 100).await.unwrap();
    (pruned.sessions, pruned.events)
}

#[rstest]
#[tokio::test]
async fn only_finished_sessions_without_pending_events_are_pruned(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let test = TestStore::open(backend).await;
    let delivered = test.admit(request("ann")).await;
    let event = test.complete(delivered.clone(), 1).await.first.remove(0);
    let pending = test.admit(request("bob")).await;
    test.complete(pending.clone(), 1).await;
    let unfinished = test.admit(request("eve")).await;
    let now = test.now();
    test.store
        .record_delivery(event, DeliveryOutcome::Delivered, now)
        .await
        .unwrap();
    assert_eq!(prune(&test).await, (0, 0), "all are as new as the limit");

    test.clock.advance(DAY);
    assert_eq!(prune(&test).await, (1, 1));
    let store = &test.store;
    let exists = |id| async move { store.session(id).await.unwrap().is_some() };
    assert_eq!(
        (
            exists(delivered.id).await,
            exists(pending.id).await,
            exists(unfinished.id).await
        ),
        (false, true, true)
    );
    let summary = test.store.summary().await.unwrap();
    assert_eq!(summary.sessions["open"], 2, "pruned sessions are counted");
    assert_eq!(summary.events["delivered"], 1);
    assert_eq!(summary.latency.count, 2);
}

#[rstest]
#[tokio::test]
async fn retention_deletes_nothing_without_a_period(#[values(Sqlite, Postgres)] backend: Backend) {
    let test = TestStore::open(backend).await;
    assert_eq!(test.store.advance_retention(None).await.unwrap(), None);
    let until = test.store.advance_retention(Some(DAY)).await.unwrap();
    assert!(until.is_none_or(|until| until + DAY <= test.now()));
}

#[rstest]
#[tokio::test]
async fn erased_guest_is_found_by_nothing_and_its_records_stay(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let test = TestStore::open(backend).await;
    let session = test.admit(request("ann")).await;
    let guest = session.request.guest.clone();
    let refused = test
        .store
        .erase_guest(guest.clone(), test.now())
        .await
        .unwrap();
    assert_eq!(refused, ErasureOutcome::Unfinished(vec![session.id]));
    let event = test.complete(session.clone(), 1).await.first.remove(0);
    let now = test.now();
    test.store
        .record_delivery(event, DeliveryOutcome::Delivered, now)
        .await
        .unwrap();

    test.clock.advance(LEASE_TTL + SECOND);
    let would = test
        .store
        .would_erase_guest(guest.clone(), test.now())
        .await
        .unwrap();
    assert!(matches!(&would, ErasureOutcome::Erased(report) if report.sessions == 1));
    let by_key = test
        .store
        .find_by_key(session.request.key.clone())
        .await
        .unwrap();
    assert!(by_key.is_some(), "a preview changes nothing");

    let erased = test
        .store
        .erase_guest(guest.clone(), test.now())
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
    let page = test.store.sessions(of_guest).await.unwrap();
    assert!(page.sessions.is_empty());
    assert_eq!(
        test.store.find_by_key(session.request.key).await.unwrap(),
        None
    );
    let kept = test.store.session(session.id).await.unwrap().unwrap();
    assert!(kept.is_erased());
    let again = test.store.erase_guest(guest, test.now()).await.unwrap();
    assert_eq!(again, ErasureOutcome::Unknown);
}

#[rstest]
#[tokio::test]
async fn gauges_count_what_waits(#[values(Sqlite, Postgres)] backend: Backend) {
    let test = TestStore::open(backend).await;
    let began = test.now();
    test.admit(request("ann")).await;
    test.clock.advance(SECOND);
    let session = test.admit(request("bob")).await;
    test.complete(session, 2).await;
    let gauges = test.store.gauges().await.unwrap();
    assert_eq!(
        (gauges.unfinished, gauges.oldest_unfinished),
        (1, Some(began))
    );
    assert_eq!(
        (gauges.pending_events, gauges.oldest_event),
        (2, Some(test.now()))
    );
    assert_eq!(gauges.audit, Some((1, 3)));
}
