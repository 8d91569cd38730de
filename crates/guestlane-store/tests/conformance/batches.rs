//! Batches: a file has none; in a database one process at a time has a row, and no row is lost.

use guestlane_core::session::LEASE_TTL;
use guestlane_store::{
    StoreError,
    batch::{BatchId, RowFailure, RowLease, RowOutcome},
};
use guestlane_testkit::batch::{self, rows};
use uuid::Uuid;

use crate::kit::{Postgres, SECOND, Sqlite, TestStore};

async fn enqueue(test: &TestStore, count: u64) -> BatchId {
    batch::enqueue(&test.store, rows(count), test.now()).await
}

async fn claim(test: &TestStore, limit: u32) -> Vec<RowLease> {
    let batches = test.store.batches().unwrap();
    let claimed = batches.claim_rows(limit, test.now()).await.unwrap();
    claimed.into_iter().map(|row| row.place).collect()
}

#[tokio::test]
async fn file_has_no_batches() {
    let test = TestStore::open(Sqlite).await;
    assert!(matches!(test.store.batches(), Err(StoreError::NotShared)));
    assert_eq!(test.store.prune_batches(test.now()).await.unwrap(), 0);
}

#[tokio::test]
async fn rows_are_claimed_only_from_a_complete_uncancelled_batch() {
    let test = TestStore::open(Postgres).await;
    let batches = test.store.batches().unwrap();
    let (id, now) = (BatchId(Uuid::now_v7()), test.now());
    batches
        .begin_batch(id, "a file".to_owned(), now)
        .await
        .unwrap();
    batches.add_rows(id, rows(5), now).await.unwrap();
    assert_eq!(
        claim(&test, 10).await,
        [],
        "the process that enqueues may have died"
    );
    // A batch that is started again loses the rows that it had before.
    let again = enqueue(&test, 4).await;
    assert_eq!(batches.list_batches(Some(id), 1).await.unwrap(), []);
    assert_eq!(claim(&test, 1).await[0].number, 1);
    assert!(batches.cancel_batch(again, now).await.unwrap());
    assert!(
        !batches.cancel_batch(id, now).await.unwrap(),
        "there is no such batch"
    );
    assert_eq!(claim(&test, 10).await, []);
    let found = batches
        .list_batches(Some(again), 1)
        .await
        .unwrap()
        .remove(0);
    assert_eq!((found.running, found.cancelled), (1, 3));
    assert!(found.cancelled_at.is_some());
}

#[tokio::test]
async fn expired_row_lease_cannot_complete_renew_or_release() {
    let test = TestStore::open(Postgres).await;
    let id = enqueue(&test, 2).await;
    let batches = test.store.batches().unwrap();
    let first = claim(&test, 2).await;
    assert_eq!(claim(&test, 2).await, [], "each row is claimed once");
    test.clock.advance(LEASE_TTL + SECOND);
    let second = claim(&test, 2).await;
    assert_eq!(second.len(), 2);
    assert!(second.iter().all(|row| row.epoch == first[0].epoch + 1));

    let failure = RowFailure {
        code: "late".to_owned(),
        message: String::new(),
        cause: String::new(),
        fix: String::new(),
    };
    let late = first
        .iter()
        .map(|row| (*row, RowOutcome::Failed(failure.clone())))
        .collect();
    batches.complete_rows(late, test.now()).await.unwrap();
    batches
        .release_rows(first.clone(), test.now())
        .await
        .unwrap();
    test.clock.advance(LEASE_TTL - SECOND);
    batches.renew_rows(first, test.now()).await.unwrap();
    let status = batches.list_batches(Some(id), 1).await.unwrap().remove(0);
    assert_eq!((status.running, status.failed, status.waiting), (2, 0, 0));
    test.clock.advance(SECOND * 2);
    assert_eq!(
        claim(&test, 9).await.len(),
        2,
        "the old epoch renewed nothing"
    );
}

#[tokio::test]
async fn renewed_row_is_not_claimed_and_a_released_row_is() {
    let test = TestStore::open(Postgres).await;
    enqueue(&test, 2).await;
    let batches = test.store.batches().unwrap();
    let held = claim(&test, 2).await;
    test.clock.advance(LEASE_TTL - SECOND);
    batches.renew_rows(held.clone(), test.now()).await.unwrap();
    test.clock.advance(LEASE_TTL - SECOND);
    assert_eq!(claim(&test, 2).await, []);
    batches
        .release_rows(vec![held[1]], test.now())
        .await
        .unwrap();
    let claimed = claim(&test, 2).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].number, held[1].number);
}
