//! A store in a file moves into a database: all of it, once, wherever that is interrupted.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use guestlane::{
    Lane, Places, Seam, Seams,
    store::{
        Database, GuestIds, PostgresUrl, RecordFilter, SessionFilter,
        copy::{Copied, CopyError, copy},
    },
};

use crate::world::{World, crowd, request};

/// A world whose store is a file, with a past: sessions in several states, dead letters, full logs.
async fn world_in_a_file() -> (World, Places) {
    let mut world = World::new().await;
    let file = Places::in_directory(&world.directory.path().join("old"));
    world.config.places.database = file.database;
    world.config.places.home = file.home;
    world.config.places.master_key_file = file.master_key_file;
    world.config.places.audit.path = file.audit.path;
    world.config.places.audit.rotate_at = Some(20_000);
    world.config.places.audit.guest_ids = GuestIds::Pseudonym;
    let lane = world.lane().await;
    assert!(crowd(&lane, 60, 8).await.iter().all(Result::is_ok));
    world.faults(&["crm:500", "conversation:500:first=4"]);
    assert!(lane.create(request("unfinished")).await.is_err());
    lane.outbox().unwrap().first_tries_done().await;
    lane.finish().await.unwrap();
    world.faults(&[]);
    let places = world.config.places.clone();
    (world, places)
}

/// Once the last threads of whoever used the file have let go of it.
async fn try_copy(places: &Places, to: &str, seams: &Seams) -> Result<Result<Copied, CopyError>, tokio::task::JoinError> {
    loop {
        match try_copy_now(places, to, seams).await {
            Ok(Err(CopyError::InUse(_))) => tokio::task::yield_now().await,
            tried => return tried,
        }
    }
}

async fn try_copy_now(places: &Places, to: &str, seams: &Seams) -> Result<Result<Copied, CopyError>, tokio::task::JoinError> {
    let (places, to, seams) = (places.clone(), to.parse::<PostgresUrl>().unwrap(), seams.clone());
    let now = guestlane::Clock::system().now();
    let copying = move || copy(places.database.file().unwrap(), &to, &places.home, &places.audit.path, now, &seams, |_| ());
    tokio::task::spawn_blocking(copying).await
}

/// All sessions, records and events, as they are told.
async fn told(lane: &Lane) -> (String, String, String, String) {
    let store = lane.store();
    let sessions = store.sessions(SessionFilter { limit: 1000, ..SessionFilter::default() }).await.unwrap().sessions;
    let records = store.records(RecordFilter { session: None, guest: None, limit: 10_000 }).await.unwrap();
    let records: Vec<_> = records.into_iter().map(|record| (record.log, record.index, record.line)).collect();
    let events = store.events(None, None, 1000).await.unwrap();
    let events: Vec<_> = events.into_iter().map(|delivery| (delivery.event.id, delivery.event.body, delivery.state)).collect();
    let summary = store.summary().await.unwrap();
    (format!("{sessions:?}"), format!("{records:?}"), format!("{events:?}"), format!("{summary:?}"))
}

#[tokio::test]
async fn all_of_it_arrives_and_life_goes_on_where_it_was() {
    let (mut world, places) = world_in_a_file().await;
    let before = told(&*world.lane().await).await;
    let to = world.postgres.clone().unwrap();
    let copied = try_copy(&places, &to, &Seams::default()).await.unwrap().unwrap();
    assert_eq!((copied.rows["session"], copied.rows["outbox"]), (61, 60));
    assert!(copied.logs.len() > 1 && copied.copied_now == copied.rows.values().sum::<u64>());

    let told_why = world.try_lane().await.unwrap_err();
    assert!(told_why.to_string().contains("moved to postgres://"), "{told_why}");
    world.config.places.database = to.parse().unwrap();
    let lane = world.lane().await;
    assert_eq!(told(&lane).await, before);
    assert!(lane.create(request("guest-7")).await.unwrap().replayed);
    lane.create(request("unfinished")).await.unwrap();
    lane.create(request("new")).await.unwrap();
    world.assert_each_guest_once(62);
    let logs = world.proven_logs().await;
    assert!(logs.iter().all(|log| !log.elsewhere), "the files are where they were");
}

#[tokio::test]
async fn a_copy_that_dies_at_any_moment_goes_on_and_meanwhile_nobody_uses_half_of_it() {
    let (mut world, places) = world_in_a_file().await;
    let to = world.postgres.clone().unwrap();
    let mut deaths = 0;
    loop {
        let passed = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&passed);
        let at = deaths + 1;
        let seams = Seams::new(move |seam| {
            matches!(seam, Seam::RowsCopied | Seam::StoreMoved) && counted.fetch_add(1, Ordering::SeqCst) + 1 == at
        });
        match try_copy(&places, &to, &seams).await {
            Err(_) => deaths += 1,
            Ok(copied) => {
                copied.unwrap();
                break;
            }
        }
        world.config.places.database = to.parse().unwrap();
        let refused = world.try_lane().await.unwrap_err();
        assert!(refused.to_string().contains("copied into"), "{refused}");
    }
    assert!(deaths >= 8, "{deaths}");
    // Once more is once too often: the database may have been used since.
    let told = try_copy(&places, &to, &Seams::default()).await.unwrap();
    assert!(matches!(told, Err(CopyError::Done)), "{told:?}");
    world.config.places.database = to.parse().unwrap();
    world.lane().await.create(request("unfinished")).await.unwrap();
    world.assert_each_guest_once(61);
    world.proven_logs().await;
}

#[tokio::test]
async fn a_record_that_was_changed_on_the_way_is_found_and_the_file_goes_on_being_used() {
    let (world, places) = world_in_a_file().await;
    let to = world.postgres.clone().unwrap();
    let passed = AtomicUsize::new(0);
    let url = to.clone();
    // Past the product, while it is copied.
    let seams = Seams::new(move |_| {
        let rows = guestlane_test_postgres::column(&url, "SELECT count(*) FROM audit_entry");
        if rows[0] != "0" && passed.fetch_add(1, Ordering::SeqCst) == 0 {
            guestlane_test_postgres::execute(&url, "UPDATE audit_entry SET line = line || ' ' WHERE log = 1 AND idx = 3");
        }
        false
    });
    let told = try_copy(&places, &to, &seams).await.unwrap().unwrap_err();
    assert!(matches!(&told, CopyError::Differs { what, .. } if what == "the audit log 1"), "{told}");
    world.lane().await.create(request("ann")).await.unwrap();
}

#[tokio::test]
async fn a_file_that_somebody_uses_is_not_moved_away_under_them_nor_without_its_audit_log() {
    let (world, places) = world_in_a_file().await;
    let to = world.postgres.clone().unwrap();
    let lane = world.lane().await;
    let told = try_copy_now(&places, &to, &Seams::default()).await.unwrap();
    assert!(matches!(told, Err(CopyError::InUse(_))), "{told:?}");
    drop(lane);
    let mut elsewhere = places;
    elsewhere.audit.path = "/nowhere/log.jsonl".into();
    let told = try_copy(&elsewhere, &to, &Seams::default()).await.unwrap();
    assert!(matches!(told, Err(CopyError::NoAuditFile(_))), "{told:?}");
}

#[tokio::test]
async fn a_database_with_another_store_in_it_is_left_alone() {
    let (mut world, places) = world_in_a_file().await;
    let file = std::mem::replace(&mut world.config.places.database, world.postgres.as_ref().unwrap().parse().unwrap());
    assert!(matches!(file, Database::Sqlite(_)));
    let old = std::mem::replace(&mut world.config.places, Places::in_directory(&world.directory.path().join("new")));
    world.config.places.database = old.database;
    world.lane().await.create(request("somebody")).await.unwrap();
    let told = try_copy(&places, world.postgres.as_ref().unwrap(), &Seams::default()).await.unwrap();
    assert!(matches!(told, Err(CopyError::NotEmpty)), "{told:?}");
}
