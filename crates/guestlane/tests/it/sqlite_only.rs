//! Behaviour of the SQLite store only: bytes that another reader holds.

use guestlane_store::GuestIdMode;

use crate::{
    audit::{canary, erase, files_with_the_canary},
    harness::TestPlatform,
};

#[tokio::test]
async fn bytes_held_by_a_reader_are_erased_after_the_next_start() {
    let mut world = TestPlatform::new().await;
    world.config.storage.audit.guest_ids = GuestIdMode::Pseudonymous;
    let engine = world.engine().await;
    engine.create(canary("one")).await.unwrap();
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    let reader = rusqlite::Connection::open(world.config.storage.database.file().unwrap()).unwrap();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM session")
        .unwrap();
    assert!(!erase(&engine, &world).await.bytes_removed);
    assert!(
        !files_with_the_canary(&world).is_empty(),
        "another process still reads them"
    );
    drop(reader);
    world.engine().await;
    assert_eq!(files_with_the_canary(&world), [""; 0]);
}
