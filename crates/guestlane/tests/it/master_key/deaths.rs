//! A process that dies during a rotation loses no key.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use guestlane_runtime::{FailPoint, FailPoints};

use super::*;

/// Runs a rotation that crashes at the n-th passing of a fail point. Returns whether it reached
/// that point.
async fn rotate_and_crash(platform: &TestPlatform, at: FailPoint, nth: usize) -> bool {
    let (passed, died) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
    let mut places = platform.config.storage.clone();
    let dies = Arc::clone(&died);
    places.fail_points = FailPoints::new(move |fail_point| {
        let here = fail_point == at && passed.fetch_add(1, Ordering::SeqCst) + 1 == nth;
        dies.fetch_or(here, Ordering::SeqCst);
        here
    });
    let clock = platform.clock();
    let rotating = tokio::spawn(async move {
        while let Err(
            Error::MasterKey(MasterKeyError::InUse(_)) | Error::Store(StoreError::InUse(_)),
        ) = rotate_master_key(&places, &clock).await
        {
            tokio::task::yield_now().await;
        }
    });
    while !died.load(Ordering::SeqCst) && !rotating.is_finished() {
        tokio::task::yield_now().await;
    }
    rotating.abort();
    let _ = rotating.await;
    died.load(Ordering::SeqCst)
}

#[rstest]
#[tokio::test]
async fn crashed_rotation_loses_nothing_and_is_finished_by_a_rerun(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let deaths = [
        (FailPoint::MasterKeyDrafted, 1),
        (FailPoint::MasterKeyMade, 1),
        (FailPoint::PreviousMasterKeyKept, 1),
        (FailPoint::MasterKeyReplaced, 1),
        (FailPoint::RowsWritten, 1),
        (FailPoint::Committed, 1),
        (FailPoint::ChunkResealed, 1),
        (FailPoint::ChunkResealed, 2),
    ];
    for (fail_point, nth) in deaths {
        let platform = web(backend).await;
        let api_key = ApiKey::generate().unwrap();
        let opened = create(&platform.engine().await, &["ann", "bob"]).await;
        let (before, old) = (
            secrets(&platform, &api_key).await,
            key_in_file(&platform.config.storage),
        );
        assert!(
            rotate_and_crash(&platform, fail_point, nth).await,
            "{fail_point} {nth}"
        );
        // A process that starts between the two rotations has both keys.
        assert_replayed(&platform, &platform.engine().await, &opened).await;
        assert_eq!(
            secrets(&platform, &api_key).await,
            before,
            "{fail_point} {nth}"
        );
        // The repeated command crashes at the same fail point again, unless it no longer passes
        // it.
        rotate_and_crash(&platform, fail_point, nth).await;
        rotate(&platform).await.unwrap();
        assert_opened_by_all_of(&platform, &key_in_file(&platform.config.storage));
        assert_opened_by_none_of(&platform, &old);
        assert!(
            !beside(&platform.config.storage, "previous").exists(),
            "{fail_point} {nth}"
        );
        assert_eq!(
            secrets(&platform, &api_key).await,
            before,
            "{fail_point} {nth}"
        );
        assert_replayed(&platform, &platform.engine().await, &opened).await;
    }
}

#[rstest]
#[tokio::test]
async fn rotation_crashed_between_chunks_reseals_the_rest(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = web(backend).await;
    let opened = create(&platform.engine().await, &["ann"]).await;
    let (id, text) = match platform.postgres {
        None => ("randomblob(16)", "hex(randomblob(16))"),
        Some(_) => ("gen_random_uuid()", "gen_random_uuid()::text"),
    };
    let another = format!(
        "UPDATE another SET id = {id}, idempotency_key = {text}; INSERT INTO session SELECT * FROM another;"
    );
    platform.sql(&format!(
        "CREATE TEMP TABLE another AS SELECT * FROM session; {}",
        another.repeat(1009)
    ));
    let old = key_in_file(&platform.config.storage);
    assert!(rotate_and_crash(&platform, FailPoint::ChunkResealed, 2).await);
    let new = key_in_file(&platform.config.storage);
    assert_eq!(
        (opened_by(&platform, &old).0, opened_by(&platform, &new).0),
        (510, opened_by(&platform, &new).1 - 510)
    );
    assert_eq!(
        rotate(&platform).await.unwrap(),
        Resealed {
            guest_sessions: 510,
            ..Resealed::default()
        }
    );
    assert_opened_by_all_of(&platform, &new);
    assert_replayed(&platform, &platform.engine().await, &opened).await;
}

#[rstest]
#[tokio::test]
async fn rotation_detects_writes_with_the_previous_key(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = web(backend).await;
    given(&mut platform, 1, None);
    drop(platform.engine().await);
    let (name, bytes) = sealed(&platform).remove(0);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let literal = if platform.postgres.is_none() {
        format!("x'{hex}'")
    } else {
        format!("'\\x{hex}'")
    };
    let write_back = format!(
        "UPDATE secret SET sealed = {literal} WHERE name = '{}'",
        name.replace('\'', "''")
    );
    given(&mut platform, 2, Some(1));
    let (database, postgres) = (
        platform.config.storage.database.clone(),
        platform.postgres.clone(),
    );
    platform.config.storage.fail_points = FailPoints::new(move |fail_point| {
        if fail_point == FailPoint::ChunkResealed {
            match &database {
                Database::Sqlite(path) => rusqlite::Connection::open(path)
                    .unwrap()
                    .execute_batch(&write_back)
                    .unwrap(),
                Database::Postgres(_) => {
                    guestlane_testkit::execute(postgres.as_ref().unwrap(), &write_back)
                }
            }
        }
        false
    });
    let refused = reseal_by_given_keys(&platform.config.storage, &platform.clock()).await;
    assert!(
        matches!(
            refused,
            Err(Error::MasterKey(MasterKeyError::PreviousInUse))
        ),
        "{refused:?}"
    );
}
