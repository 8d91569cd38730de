//! Migration of a SQLite store to PostgreSQL: it is complete and happens once, wherever it is
//! interrupted.

mod changes;
mod targets;

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
    platform::{TestPlatform, create_many, request},
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
    assert!(create_many(&engine, 60, 8).await.iter().all(Result::is_ok));
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

async fn abandon(places: &StorageConfig) -> Result<String, MigrationError> {
    loop {
        match guestlane_store::migrate::abandon(places.database.file().unwrap()) {
            Err(MigrationError::InUse(_)) => tokio::task::yield_now().await,
            tried => return tried,
        }
    }
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
