//! Which databases a migration accepts.

use super::*;

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
        .create(request("later-guest"))
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
