//! Changes of the file between and during attempts are copied or reported.

use super::*;

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
