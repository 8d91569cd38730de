//! What only a store in a file has: older formats, and bytes that another reader holds.

use std::fs;

use guestlane::store::GuestIds;

use crate::{
    audit::{canary, erase, files_with_the_canary, lines},
    world::{World, request},
};

#[tokio::test]
async fn a_store_of_the_first_format_goes_on_where_it_was() {
    let world = World::new().await;
    drop(world.lane().await); // keys
    let database = world.config.places.database.file().unwrap();
    fs::remove_file(database).unwrap();
    for ending in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{ending}", database.display()));
    }
    fs::remove_file(&world.config.places.master_key_file).unwrap();
    let old = rusqlite::Connection::open(database).unwrap();
    old.execute_batch(include_str!("../../src/store/sqlite/format_1.sql")).unwrap();
    let line = |index: u64| format!(r#"{{"index":{index},"timestamp":"2026-11-22T15:00:00.000000Z","status":"success"}}"#);
    for index in 0..5 {
        old.execute("INSERT INTO audit_entry (idx, line) VALUES (?1, ?2)", (index, line(index))).unwrap();
    }
    let event = "INSERT INTO outbox (id, session_id, body, state, tries, created_at, due_at) VALUES ('msg_1', x'00000000000000000000000000000001', '{}', 'pending', 3, 1, 1)";
    old.execute(event, []).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    drop(old);
    fs::create_dir_all(world.audit_path().parent().unwrap()).unwrap();
    fs::write(world.audit_path(), (0..5).map(|index| line(index) + "\n").collect::<String>()).unwrap();

    let lane = world.lane().await;
    lane.create(request("ann")).await.unwrap();
    let logs = world.proven_logs().await;
    assert_eq!(logs[0].checkpoint.size, 7);
    let written = lines(world.audit_path());
    assert_eq!(written.iter().map(|line| line["index"].as_u64().unwrap()).collect::<Vec<_>>(), (0..7).collect::<Vec<_>>());
    let event = lane.store().event("msg_1".to_owned()).await.unwrap().remove(0);
    assert_eq!((event.event.tries, event.event.receiver), (3, 1));
}

#[tokio::test]
async fn bytes_that_another_reader_holds_are_gone_after_the_next_start() {
    let mut world = World::new().await;
    world.config.places.audit.guest_ids = GuestIds::Pseudonym;
    let lane = world.lane().await;
    lane.create(canary("one")).await.unwrap();
    lane.outbox().unwrap().first_tries_done().await;
    let reader = rusqlite::Connection::open(world.config.places.database.file().unwrap()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM session").unwrap();
    assert!(!erase(&lane, &world).await.bytes_gone);
    assert!(!files_with_the_canary(&world).is_empty(), "somebody still reads them");
    drop(reader);
    world.lane().await;
    assert_eq!(files_with_the_canary(&world), [""; 0]);
}
