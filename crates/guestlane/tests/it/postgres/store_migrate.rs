//! Migration of a SQLite store to PostgreSQL: it is complete and happens once, wherever it is
//! interrupted.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use guestlane::{SessionEngine, StorageConfig};
use guestlane_core::api_key::{ApiKey, ApiKeyHasher, Scope, Scopes, StoredApiKey};
use guestlane_runtime::{FailPoint, FailPoints};
use guestlane_store::{
    Database, ErasureOutcome, GuestIdMode, PostgresUrl, RecordFilter, SessionFilter, StoreError,
    migrate::{MigrationError, MigrationProgress, MigrationReport, migrate_store},
};
use guestlane_testkit::{
    Backend::Postgres,
    platform::{TestPlatform, crowd, request},
};

/// Returns a harness with a SQLite store that has data: sessions in several states, dead letters,
/// full logs.
async fn sqlite_platform() -> (TestPlatform, StorageConfig) {
    let mut platform = TestPlatform::new(Postgres).await;
    let file = StorageConfig::in_directory(&platform.directory.path().join("old"));
    platform.config.storage.database = file.database;
    platform.config.storage.home = file.home;
    platform.config.storage.master_key_file = file.master_key_file;
    platform.config.storage.audit.path = file.audit.path;
    platform.config.storage.audit.rotate_at = Some(20_000);
    platform.config.storage.audit.guest_ids = GuestIdMode::Pseudonymous;
    let engine = platform.engine().await;
    assert!(crowd(&engine, 60, 8).await.iter().all(Result::is_ok));
    platform.faults(&["crm:500", "conversation:500:first=4"]);
    assert!(engine.create(request("unfinished")).await.is_err());
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    engine.flush_counters().await.unwrap();
    platform.faults(&[]);
    let places = platform.config.storage.clone();
    (platform, places)
}

/// Migrates the store once the threads of earlier users have closed the file.
async fn try_copy(
    places: &StorageConfig,
    to: &str,
    fail_points: &FailPoints,
) -> Result<Result<MigrationReport, MigrationError>, tokio::task::JoinError> {
    loop {
        match try_copy_now(places, to, fail_points).await {
            Ok(Err(MigrationError::InUse(_))) => tokio::task::yield_now().await,
            tried => return tried,
        }
    }
}

async fn try_copy_now(
    places: &StorageConfig,
    to: &str,
    fail_points: &FailPoints,
) -> Result<Result<MigrationReport, MigrationError>, tokio::task::JoinError> {
    let (places, to, fail_points) = (
        places.clone(),
        to.parse::<PostgresUrl>().unwrap(),
        fail_points.clone(),
    );
    let now = guestlane_runtime::Clock::system().now();
    let copying = move || {
        migrate_store(
            places.database.file().unwrap(),
            &to,
            &places.home,
            &places.audit.path,
            now,
            &fail_points,
            |_| (),
        )
    };
    tokio::task::spawn_blocking(copying).await
}

/// Migrates the store with a progress callback, once no thread of an earlier user has the file
/// open.
async fn copy_with_progress(
    places: &StorageConfig,
    to: &str,
    fail_points: &FailPoints,
    progress: impl FnMut(MigrationProgress) + Clone + Send + 'static,
) -> Result<Result<MigrationReport, MigrationError>, tokio::task::JoinError> {
    loop {
        let (places, to, fail_points) = (
            places.clone(),
            to.parse::<PostgresUrl>().unwrap(),
            fail_points.clone(),
        );
        let (now, progress) = (guestlane_runtime::Clock::system().now(), progress.clone());
        let copying = move || {
            migrate_store(
                places.database.file().unwrap(),
                &to,
                &places.home,
                &places.audit.path,
                now,
                &fail_points,
                progress,
            )
        };
        match tokio::task::spawn_blocking(copying).await {
            Ok(Err(MigrationError::InUse(_))) => tokio::task::yield_now().await,
            tried => return tried,
        }
    }
}

async fn abandon(places: &StorageConfig) -> Result<String, MigrationError> {
    loop {
        match guestlane_store::migrate::abandon(places.database.file().unwrap()) {
            Err(MigrationError::InUse(_)) => tokio::task::yield_now().await,
            tried => return tried,
        }
    }
}

/// Returns the name of the database in the file's migration mark.
fn to_shown(to: &str) -> String {
    let schema = to.rsplit_once("search_path%3D").unwrap().1;
    format!("{}, schema {schema}", to.parse::<PostgresUrl>().unwrap())
}

/// Returns all sessions, records and events in their printed form.
async fn identity_of(engine: &SessionEngine) -> (String, String, String, String) {
    let store = engine.store();
    let sessions = store
        .sessions(SessionFilter {
            limit: 1000,
            ..SessionFilter::default()
        })
        .await
        .unwrap()
        .sessions;
    let records = store
        .records(RecordFilter {
            session: None,
            guest: None,
            limit: 10_000,
        })
        .await
        .unwrap();
    // The migration's own record is written only when it finishes.
    let records = records
        .into_iter()
        .filter(|record| !record.line.contains("store.move"));
    let records: Vec<_> = records
        .map(|record| (record.log, record.index, record.line))
        .collect();
    let events = store.events(None, None, 1000).await.unwrap();
    let events: Vec<_> = events
        .into_iter()
        .map(|delivery| (delivery.event.id, delivery.event.body, delivery.state))
        .collect();
    let summary = store.summary().await.unwrap();
    (
        format!("{sessions:?}"),
        format!("{records:?}"),
        format!("{events:?}"),
        format!("{summary:?}"),
    )
}

#[tokio::test]
async fn migration_copies_all_rows_and_sessions_continue() {
    let (mut platform, places) = sqlite_platform().await;
    let before = identity_of(&*platform.engine().await).await;
    let to = platform.postgres.clone().unwrap();
    let copied = try_copy(&places, &to, &FailPoints::default())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((copied.rows["session"], copied.rows["outbox"]), (61, 60));
    assert!(copied.logs.len() > 1 && copied.copied_now == copied.rows.values().sum::<u64>());

    let told_why = platform.try_engine().await.unwrap_err();
    assert!(
        told_why.to_string().contains("moved to postgres://"),
        "{told_why}"
    );
    platform.config.storage.database = to.parse().unwrap();
    let engine = platform.engine().await;
    assert_eq!(identity_of(&engine).await, before);
    assert!(engine.create(request("guest-7")).await.unwrap().replayed);
    engine.create(request("unfinished")).await.unwrap();
    engine.create(request("new")).await.unwrap();
    platform.assert_each_guest_once(62);
    let logs = platform.proven_logs().await;
    assert!(
        logs.iter().all(|log| !log.other_node),
        "the files are where they were"
    );
    let moves = "SELECT line FROM audit_record WHERE line LIKE '%store.move%'";
    assert_eq!(
        guestlane_testkit::column(&to, moves).len(),
        1,
        "the move is in the log"
    );
}

#[tokio::test]
async fn crashed_migration_resumes_and_neither_store_opens_meanwhile() {
    let (mut platform, places) = sqlite_platform().await;
    let to = platform.postgres.clone().unwrap();
    let mut deaths = 0;
    let given_up = Arc::new(AtomicBool::new(false));
    loop {
        // Each run crashes at the first chunk that it copies, and one run crashes when it retires
        // the file.
        let once = Arc::clone(&given_up);
        let fail_points = FailPoints::new(move |fail_point| match fail_point {
            FailPoint::RowsCopied => true,
            FailPoint::StoreMoved => !once.swap(true, Ordering::SeqCst),
            _ => false,
        });
        match try_copy(&places, &to, &fail_points).await {
            Err(_) => deaths += 1,
            Ok(copied) => {
                copied.unwrap();
                break;
            }
        }
        platform.config.storage.database = places.database.clone();
        let refused = platform.try_engine().await.unwrap_err().to_string();
        assert!(
            refused.contains("was interrupted") || refused.contains("was moved to"),
            "{refused}"
        );
        platform.config.storage.database = to.parse().unwrap();
        let refused = platform.try_engine().await.unwrap_err();
        assert!(refused.to_string().contains("copied into"), "{refused}");
    }
    assert!(deaths >= 8, "{deaths}");
    // The database may have been used in the meantime, and a second migration would overwrite it.
    let again = try_copy(&places, &to, &FailPoints::default())
        .await
        .unwrap();
    assert!(
        matches!(again, Err(MigrationError::AlreadyMigrated)),
        "{again:?}"
    );
    assert!(matches!(
        abandon(&places).await,
        Err(MigrationError::Store(StoreError::Migrated { .. }))
    ));
    platform
        .engine()
        .await
        .create(request("unfinished"))
        .await
        .unwrap();
    platform.assert_each_guest_once(61);
    platform.proven_logs().await;
}

/// All tables, in the order of the migration.
const TABLES: [&str; 12] = [
    "platform",
    "property",
    "secret",
    "signing_key",
    "api_key",
    "pseudonym_key",
    "counter",
    "pruned_latency",
    "session",
    "outbox",
    "audit_log",
    "audit_record",
];

/// Crashes at the first row of `table`.
async fn crash_at_table(places: &StorageConfig, to: &str, table: &'static str) {
    let reached = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&reached);
    let fail_points = FailPoints::new(move |fail_point| {
        fail_point == FailPoint::RowsCopied && reached.load(Ordering::SeqCst)
    });
    let progress = move |progress: MigrationProgress| {
        let copies = progress.table == table && progress.done > 0;
        seen.store(copies, Ordering::SeqCst);
    };
    assert!(
        copy_with_progress(places, to, &fail_points, progress)
            .await
            .is_err(),
        "{table}: no death"
    );
}

fn api_key(platform: &TestPlatform, hash: &ApiKeyHasher) -> StoredApiKey {
    let scopes = Scopes::new([Scope::Admin]).unwrap();
    StoredApiKey::new(
        &ApiKey::generate().unwrap(),
        hash,
        "shop",
        scopes,
        platform.clock.now(),
    )
}

async fn signing_keys(engine: &SessionEngine) -> Vec<String> {
    let keys = engine.store().signing_keys().await.unwrap();
    keys.iter()
        .map(|key| format!("{} {:?} {:?}", key.kid, key.life, key.sealed))
        .collect()
}

/// Regression test for migrations that were interrupted and finished after the file had changed:
/// revoked keys were valid again, erased guests were back, and sessions were opened a second time.
#[tokio::test]
async fn migration_after_abandoned_attempts_copies_all_later_changes() {
    let (mut platform, places) = sqlite_platform().await;
    let to = platform.postgres.clone().unwrap();
    let hash = ApiKeyHasher::new(b"secret");
    let engine = platform.engine().await;
    for _ in TABLES {
        engine
            .store()
            .add_api_key(api_key(&platform, &hash), None)
            .await
            .unwrap();
    }
    let ids: Vec<String> = engine
        .store()
        .api_keys()
        .await
        .unwrap()
        .into_iter()
        .map(|key| key.id)
        .collect();
    drop(engine);
    platform.sql("INSERT INTO pruned_latency VALUES (1000, 1)");
    for (round, table) in TABLES.into_iter().enumerate() {
        crash_at_table(&places, &to, table).await;
        assert_eq!(abandon(&places).await.unwrap(), to_shown(&to), "{table}");
        let engine = platform.engine().await;
        let (store, now) = (engine.store(), platform.clock.now());
        store.revoke_api_key(ids[round].clone(), now).await.unwrap();
        engine
            .create(request(&format!("between-{round}")))
            .await
            .unwrap();
        let erased = store
            .erase_guest(format!("guest-{round}").parse().unwrap(), now)
            .await
            .unwrap();
        assert!(matches!(erased, ErasureOutcome::Erased(_)), "{erased:?}");
        match round {
            3 => drop(engine.recover_abandoned().await.unwrap()),
            5 => drop(engine.create(request("unfinished")).await.unwrap()),
            7 => drop(
                platform
                    .state()
                    .await
                    .revoke_key("webchat-guest-key-v1", now)
                    .await
                    .unwrap(),
            ),
            _ => {}
        }
        engine.outbox().unwrap().deliver_due().await.unwrap();
        engine.flush_counters().await.unwrap();
    }
    let engine = platform.engine().await;
    let before = identity_of(&engine).await;
    let keys = format!("{:?}", engine.store().api_keys().await.unwrap());
    let signing = signing_keys(&engine).await;
    drop(engine);

    let copied = try_copy(&places, &to, &FailPoints::default())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(copied.rows["api_key"], TABLES.len() as u64);
    platform.config.storage.database = to.parse().unwrap();
    let engine = platform.engine().await;
    assert_eq!(identity_of(&engine).await, before);
    assert_eq!(
        format!("{:?}", engine.store().api_keys().await.unwrap()),
        keys
    );
    assert_eq!(signing_keys(&engine).await, signing);
    assert!(
        engine
            .store()
            .api_keys()
            .await
            .unwrap()
            .iter()
            .all(|key| key.revoked_at.is_some())
    );
    for round in 0..TABLES.len() {
        assert!(
            engine
                .create(request(&format!("between-{round}")))
                .await
                .unwrap()
                .replayed
        );
    }
    assert!(engine.create(request("unfinished")).await.unwrap().replayed);
    engine.create(request("new")).await.unwrap();
    let guests = 61 + TABLES.len() as u64 + 1;
    platform.assert_each_guest_once(guests);
    assert!(
        platform
            .proven_logs()
            .await
            .iter()
            .all(|log| !log.other_node)
    );
    let abandoned = "SELECT line FROM audit_record WHERE line LIKE '%store.abandon_move%'";
    assert_eq!(
        guestlane_testkit::column(&to, abandoned).len(),
        TABLES.len(),
        "each in the log"
    );
}

/// A file that was restored from a backup has no migration mark. Only a comparison of the rows
/// finds the difference.
#[tokio::test]
async fn migration_finds_and_replaces_unmarked_row_changes() {
    let (mut platform, places) = sqlite_platform().await;
    let to = platform.postgres.clone().unwrap();
    crash_at_table(&places, &to, "audit_record").await;
    abandon(&places).await.unwrap();
    platform.sql(
        "UPDATE session SET attempts = attempts + 1 WHERE id = (SELECT max(id) FROM session); \
         DELETE FROM session WHERE id = (SELECT min(id) FROM session); \
         UPDATE outbox SET attempts = 9 WHERE seq = 30; \
         UPDATE counter SET value = value + 1; \
         UPDATE platform SET client_id = 'another'",
    );
    let engine = platform.engine().await;
    let before = identity_of(&engine).await;
    drop(engine);
    let copied = try_copy(&places, &to, &FailPoints::default())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(copied.rows["session"], 60);
    platform.config.storage.database = to.parse().unwrap();
    assert_eq!(identity_of(&*platform.engine().await).await, before);
    assert_eq!(
        guestlane_testkit::column(&to, "SELECT client_id FROM platform"),
        ["another"]
    );
}

#[tokio::test]
async fn migration_is_bound_to_its_first_target_database() {
    let (platform, places) = sqlite_platform().await;
    let (to, other) = (
        platform.postgres.clone().unwrap(),
        guestlane_testkit::new_schema(),
    );
    crash_at_table(&places, &to, "session").await;
    let refused = try_copy(&places, &other, &FailPoints::default())
        .await
        .unwrap();
    assert!(
        matches!(&refused, Err(MigrationError::WrongTarget { to: marked, .. }) if *marked == to_shown(&to)),
        "{refused:?}"
    );
    try_copy(&places, &to, &FailPoints::default())
        .await
        .unwrap()
        .unwrap();
    let refused = try_copy(&places, &other, &FailPoints::default())
        .await
        .unwrap();
    assert!(
        matches!(
            &refused,
            Err(MigrationError::Store(StoreError::Migrated { .. }))
        ),
        "{refused:?}"
    );
    assert!(matches!(
        abandon(&places).await,
        Err(MigrationError::Store(StoreError::Migrated { .. }))
    ));
}

/// The half-copied database of an abandoned migration must not become a second store with the same
/// sessions.
#[tokio::test]
async fn abandoned_migration_target_is_refused_after_a_new_target() {
    let (platform, places) = sqlite_platform().await;
    let (first, second) = (
        platform.postgres.clone().unwrap(),
        guestlane_testkit::new_schema(),
    );
    crash_at_table(&places, &first, "session").await;
    abandon(&places).await.unwrap();
    crash_at_table(&places, &second, "session").await;
    let refused = try_copy(&places, &first, &FailPoints::default())
        .await
        .unwrap();
    assert!(
        matches!(refused, Err(MigrationError::WrongTarget { .. })),
        "{refused:?}"
    );
    try_copy(&places, &second, &FailPoints::default())
        .await
        .unwrap()
        .unwrap();
    let refused = try_copy(&places, &first, &FailPoints::default())
        .await
        .unwrap();
    assert!(
        matches!(
            refused,
            Err(MigrationError::Store(StoreError::Migrated { .. }))
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn abandon_without_a_migration_is_refused() {
    let (_platform, places) = sqlite_platform().await;
    assert!(matches!(
        abandon(&places).await,
        Err(MigrationError::NotStarted(_))
    ));
}

#[tokio::test]
async fn migration_detects_a_row_changed_during_copy_and_can_be_rerun() {
    let (platform, places) = sqlite_platform().await;
    let to = platform.postgres.clone().unwrap();
    let passed = AtomicUsize::new(0);
    let url = to.clone();
    // Changes the file directly, without the product, during the copy.
    let fail_points = FailPoints::new(move |_| {
        let rows = guestlane_testkit::column(&url, "SELECT count(*) FROM audit_record");
        if rows[0] != "0" && passed.fetch_add(1, Ordering::SeqCst) == 0 {
            guestlane_testkit::execute(
                &url,
                "UPDATE audit_record SET line = line || ' ' WHERE log = 1 AND idx = 3",
            );
        }
        false
    });
    let found = try_copy(&places, &to, &fail_points)
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(&found, MigrationError::Differs { what, .. } if what == "audit_record"),
        "{found}"
    );
    let refused = platform.try_engine().await.unwrap_err().to_string();
    assert!(refused.contains("was interrupted"), "{refused}");
    try_copy(&places, &to, &FailPoints::default())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn migration_refuses_a_store_in_use_or_without_its_audit_log() {
    let (platform, places) = sqlite_platform().await;
    let to = platform.postgres.clone().unwrap();
    let engine = platform.engine().await;
    let told = try_copy_now(&places, &to, &FailPoints::default())
        .await
        .unwrap();
    assert!(matches!(told, Err(MigrationError::InUse(_))), "{told:?}");
    drop(engine);
    let mut elsewhere = places;
    elsewhere.audit.path = "/nowhere/log.jsonl".into();
    let told = try_copy(&elsewhere, &to, &FailPoints::default())
        .await
        .unwrap();
    assert!(
        matches!(told, Err(MigrationError::NoAuditFile(_))),
        "{told:?}"
    );
}

#[tokio::test]
async fn migration_refuses_a_database_with_another_store() {
    let (mut platform, places) = sqlite_platform().await;
    let file = std::mem::replace(
        &mut platform.config.storage.database,
        platform.postgres.as_ref().unwrap().parse().unwrap(),
    );
    assert!(matches!(file, Database::Sqlite(_)));
    let old = std::mem::replace(
        &mut platform.config.storage,
        StorageConfig::in_directory(&platform.directory.path().join("new")),
    );
    platform.config.storage.database = old.database;
    platform
        .engine()
        .await
        .create(request("somebody"))
        .await
        .unwrap();
    let told = try_copy(
        &places,
        platform.postgres.as_ref().unwrap(),
        &FailPoints::default(),
    )
    .await
    .unwrap();
    assert!(matches!(told, Err(MigrationError::NotEmpty)), "{told:?}");
}

/// Regression test: a node found the database empty, and a migration began before the node wrote
/// its first row. Both then used the database.
#[tokio::test]
async fn starting_node_cannot_write_to_a_migration_target() {
    let (platform, places) = sqlite_platform().await;
    let to = platform.postgres.clone().unwrap();
    let key = platform
        .engine()
        .await
        .store()
        .signing_keys()
        .await
        .unwrap()
        .remove(0);
    let database = Database::Postgres(Box::new(to.parse().unwrap()));
    let node = platform.directory.path().join("node");
    let node =
        guestlane_store::Store::open(&database, &node, &platform.clock(), &FailPoints::default())
            .await
            .unwrap();
    let dies = FailPoints::new(|fail_point| fail_point == FailPoint::MoveMarked);
    assert!(
        try_copy(&places, &to, &dies).await.is_err(),
        "the move dies once it has the database"
    );
    assert!(matches!(
        node.add_signing_key(key).await,
        Err(StoreError::MigrationIncomplete(_))
    ));
    drop(node);
    try_copy(&places, &to, &FailPoints::default())
        .await
        .unwrap()
        .unwrap();
}
