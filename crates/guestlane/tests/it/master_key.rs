//! Rotation of the master key, and the count of values that are sealed under it.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use guestlane::{
    CreatedSession, Error, Resealed, SessionEngine, StorageConfig, reseal_by_given_keys,
    rotate_master_key,
};
use guestlane_core::{
    api_key::ApiKey,
    token::{MasterKey, MasterKeyError, RotationPolicy},
};
use guestlane_store::{Database, StoreError};
use guestlane_testkit::{
    Backend::{self, Postgres, Sqlite},
    platform::{TestPlatform, WEB_MESSAGING, request},
};
use rstest::rstest;

fn key(byte: u8) -> String {
    BASE64_STANDARD.encode([byte; 32])
}

/// Returns the sealed values of the store, each with the name under which it is sealed.
fn sealed(platform: &TestPlatform) -> Vec<(String, Vec<u8>)> {
    let values = [
        ("name", "secret", "sealed"),
        ("'the signing key ' || kid", "signing_key", "sealed"),
        ("'a guest session''s token'", "session", "guest_session"),
    ];
    let select = |(name, table, column): (&str, &str, &str)| match &platform.config.storage.database
    {
        Database::Sqlite(_) => {
            format!("SELECT {name} || ':' || hex({column}) FROM {table} WHERE {column} IS NOT NULL")
        }
        Database::Postgres(_) => {
            format!(
                "SELECT {name} || ':' || encode({column}, 'hex') FROM {table} WHERE {column} IS NOT NULL"
            )
        }
    };
    let value = |row: String| {
        let (name, hex) = row.rsplit_once(':').unwrap();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (
            name.to_owned(),
            (0..hex.len()).step_by(2).map(byte).collect(),
        )
    };
    values
        .into_iter()
        .flat_map(|value| column(platform, &select(value)))
        .map(value)
        .collect()
}

fn column(platform: &TestPlatform, sql: &str) -> Vec<String> {
    match &platform.config.storage.database {
        Database::Sqlite(path) => {
            let store = rusqlite::Connection::open(path).unwrap();
            let mut select = store.prepare(sql).unwrap();
            let rows = select.query_map([], |row| row.get(0)).unwrap();
            rows.map(Result::unwrap).collect()
        }
        Database::Postgres(_) => {
            guestlane_testkit::column(platform.postgres.as_ref().unwrap(), sql)
        }
    }
}

/// Returns the number of sealed values that a key opens, and the number of all sealed values.
fn opened_by(platform: &TestPlatform, key: &str) -> (usize, usize) {
    let key = MasterKey::parse(&key.to_owned().into(), "a test").unwrap();
    let values = sealed(platform);
    (
        values
            .iter()
            .filter(|(name, bytes)| key.open(name, bytes).is_ok())
            .count(),
        values.len(),
    )
}

fn assert_opened_by_all_of(platform: &TestPlatform, key: &str) {
    let (opened, all) = opened_by(platform, key);
    assert!(opened == all && all >= 3, "{opened} of {all}");
}

fn assert_opened_by_none_of(platform: &TestPlatform, key: &str) {
    assert_eq!(opened_by(platform, key).0, 0);
}

/// The secrets of the store, as a process reads them at its start.
#[derive(Debug, PartialEq)]
struct Secrets {
    webhook: (String, Option<String>),
    hash: [u8; 32],
    audit_key: String,
    public_keys: serde_json::Value,
}

async fn secrets(platform: &TestPlatform, api_key: &ApiKey) -> Secrets {
    let state = platform.state().await;
    Secrets {
        webhook: webhook_keys(&state).await,
        hash: state.api_key_hash().await.unwrap().hash(api_key),
        audit_key: state.audit_key().to_string(),
        public_keys: state.keyring.jwks(platform.clock.now()),
    }
}

/// Returns the keys of a webhook endpoint: its secret and the public key of its key pair.
async fn webhook_keys(state: &guestlane::Workspace) -> (String, Option<String>) {
    let endpoints = guestlane::outbox::Endpoints::new(state, None).unwrap();
    endpoints.open().await.unwrap();
    endpoints.add_ed25519(1).await.unwrap();
    let keys = endpoints.read().await.unwrap().remove(0).keys;
    (
        keys.secret().unwrap().expose().to_owned(),
        keys.public_key(),
    )
}

async fn web(backend: Backend) -> TestPlatform {
    TestPlatform::on(backend, &WEB_MESSAGING).await
}

fn beside(places: &StorageConfig, ending: &str) -> PathBuf {
    let name = places
        .master_key_file
        .file_name()
        .unwrap()
        .to_str()
        .unwrap();
    places
        .master_key_file
        .with_file_name(format!("{name}.{ending}"))
}

fn key_in_file(places: &StorageConfig) -> String {
    fs::read_to_string(&places.master_key_file)
        .unwrap()
        .trim()
        .to_owned()
}

async fn create(engine: &Arc<SessionEngine>, guests: &[&str]) -> Vec<CreatedSession> {
    let mut opened = Vec::new();
    for guest in guests {
        opened.push(engine.create(request(guest)).await.unwrap());
    }
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    engine.flush_counters().await.unwrap();
    opened
}

/// Asserts that the same sessions are replayed with the same tokens, and that nothing is created.
async fn assert_replayed(
    platform: &TestPlatform,
    engine: &Arc<SessionEngine>,
    before: &[CreatedSession],
) {
    for opened in before {
        let again = engine
            .create(request(opened.session.request.guest.as_str()))
            .await
            .unwrap();
        assert!(
            again.replayed
                && again.guest_session == opened.guest_session
                && again.guest_session.is_some()
        );
    }
    platform.assert_each_guest_once(before.len() as u64);
}

/// Rotates the master key once the tasks of dropped engines have ended.
async fn rotate(platform: &TestPlatform) -> Result<Resealed, Error> {
    for _ in 0..10_000 {
        match rotate_master_key(&platform.config.storage, &platform.clock()).await {
            Err(
                Error::MasterKey(MasterKeyError::InUse(_)) | Error::Store(StoreError::InUse(_)),
            ) => tokio::task::yield_now().await,
            rotated => return rotated,
        }
    }
    panic!("the master key stays in use")
}

#[rstest]
#[tokio::test]
async fn rotation_reseals_everything_under_the_new_key_unchanged(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = web(backend).await;
    let api_key = ApiKey::generate().unwrap();
    let opened = create(&platform.engine().await, &["ann", "bob", "eve"]).await;
    platform
        .state()
        .await
        .rotate_key(RotationPolicy::default(), &platform.clock())
        .await
        .unwrap();
    let (before, old) = (
        secrets(&platform, &api_key).await,
        key_in_file(&platform.config.storage),
    );
    assert_opened_by_all_of(&platform, &old);

    let resealed = rotate(&platform).await.unwrap();
    assert_eq!(
        resealed,
        Resealed {
            secrets: 3,
            signing_keys: 2,
            guest_sessions: 3
        }
    );
    let new = key_in_file(&platform.config.storage);
    assert_opened_by_all_of(&platform, &new);
    assert_opened_by_none_of(&platform, &old);
    assert!(
        !beside(&platform.config.storage, "previous").exists()
            && !beside(&platform.config.storage, "next").exists()
    );
    assert_eq!(secrets(&platform, &api_key).await, before);
    assert_replayed(&platform, &platform.engine().await, &opened).await;
    assert!(!platform.proven_logs().await.is_empty());

    assert_eq!(
        rotate(&platform).await.unwrap(),
        resealed,
        "it can be rotated again"
    );
    assert_replayed(&platform, &platform.engine().await, &opened).await;
}

#[rstest]
#[tokio::test]
async fn unfinished_session_completes_after_master_key_rotation(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = web(backend).await;
    platform.faults(&["configure:500:first=99"]);
    platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap_err();
    assert_eq!(rotate(&platform).await.unwrap().guest_sessions, 1);
    platform.faults(&[]);
    let engine = platform.engine().await;
    platform.clock.advance(Duration::from_secs(301));
    engine.create(request("ann")).await.unwrap();
    platform.assert_each_guest_once(1);
    assert_opened_by_all_of(&platform, &key_in_file(&platform.config.storage));
}

#[rstest]
#[tokio::test]
async fn master_key_in_use_is_not_rotated(#[values(Sqlite, Postgres)] backend: Backend) {
    let mut platform = web(backend).await;
    let engine = platform.engine().await;
    let old = key_in_file(&platform.config.storage);
    let refused = rotate_master_key(&platform.config.storage, &platform.clock()).await;
    assert!(
        matches!(refused, Err(Error::MasterKey(MasterKeyError::InUse(_)))),
        "{refused:?}"
    );
    drop(engine);
    // The engine gets the same key as a value instead of from the file. The lock of the SQLite
    // store shows that the key is in use.
    let places = platform.config.storage.clone();
    platform.config.storage.master_key = Some(old.clone().into());
    let state = platform.state().await;
    if platform.postgres.is_none() {
        let refused = rotate_master_key(&places, &platform.clock()).await;
        assert!(
            matches!(refused, Err(Error::Store(StoreError::InUse(_)))),
            "{refused:?}"
        );
    }
    drop(state);
    assert!(
        key_in_file(&places) == old
            && !beside(&places, "next").exists()
            && !beside(&places, "previous").exists()
    );
    platform.config.storage = places;
    rotate(&platform).await.unwrap();
}

#[rstest]
#[tokio::test]
async fn master_key_of_another_store_is_not_rotated(#[values(Sqlite, Postgres)] backend: Backend) {
    let platform = web(backend).await;
    drop(platform.engine().await);
    fs::write(&platform.config.storage.master_key_file, key(9)).unwrap();
    assert!(rotate(&platform).await.is_err());
    assert!(
        !beside(&platform.config.storage, "previous").exists()
            && key_in_file(&platform.config.storage) == key(9)
    );
}

fn given(platform: &mut TestPlatform, current: u8, previous: Option<u8>) {
    platform.config.storage.master_key = Some(key(current).into());
    platform.config.storage.master_key_previous = previous.map(|byte| key(byte).into());
}

#[rstest]
#[tokio::test]
async fn fleet_rotates_the_master_key_without_downtime(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = web(backend).await;
    given(&mut platform, 1, None);
    let mut opened = create(&platform.engine().await, &["ann"]).await;
    given(&mut platform, 1, Some(2));
    let first = platform.engine().await;
    given(&mut platform, 2, Some(1));
    let second = platform.engine().await;
    opened.extend(create(&first, &["bob"]).await);
    opened.extend(create(&second, &["eve"]).await);
    assert_replayed(&platform, &first, &opened).await;
    assert_replayed(&platform, &second, &opened).await;
    drop(first);

    let resealed = reseal_by_given_keys(&platform.config.storage, &platform.clock())
        .await
        .unwrap();
    assert_eq!((resealed.guest_sessions, resealed.signing_keys), (2, 1));
    assert_replayed(&platform, &second, &opened).await;
    assert_opened_by_all_of(&platform, &key(2));
    given(&mut platform, 2, None);
    assert_replayed(&platform, &platform.engine().await, &opened).await;
    given(&mut platform, 1, None);
    assert!(platform.try_engine().await.is_err());
}

#[rstest]
#[tokio::test]
async fn reseal_is_not_undone_by_a_session_in_flight(#[values(Sqlite, Postgres)] backend: Backend) {
    let mut platform = web(backend).await;
    given(&mut platform, 1, None);
    platform.faults(&["configure:500:first=99"]);
    platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap_err();
    given(&mut platform, 2, Some(1));
    platform.faults(&["configure:hang:nth=1"]);
    platform.clock.advance(Duration::from_secs(301));
    let engine = platform.engine().await;
    let driving = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.create(request("ann")).await }
    });
    platform.hanging().await;
    let resealed = reseal_by_given_keys(&platform.config.storage, &platform.clock())
        .await
        .unwrap();
    assert_eq!(resealed.guest_sessions, 1);
    while !driving.is_finished() {
        if platform.sim.state().hanging > 0 {
            platform.clock.advance(Duration::from_secs(1));
        }
        tokio::task::yield_now().await;
    }
    driving.await.unwrap().unwrap();
    assert_opened_by_all_of(&platform, &key(2));
}

#[rstest]
#[tokio::test]
async fn mismatched_master_key_settings_are_rejected_by_name(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = web(backend).await;
    given(&mut platform, 1, None);
    drop(platform.engine().await);
    let refused = |error: Error| error.to_string();
    assert!(refused(rotate(&platform).await.unwrap_err()).contains("GUESTLANE_MASTER_KEY: is set"));
    let error = reseal_by_given_keys(&platform.config.storage, &platform.clock())
        .await
        .unwrap_err();
    assert!(refused(error).contains("GUESTLANE_MASTER_KEY_PREVIOUS: is not set"));
    given(&mut platform, 2, Some(3));
    assert!(
        platform.try_engine().await.is_err(),
        "neither key is the store's"
    );
    platform.config.storage.master_key = None;
    let error = reseal_by_given_keys(&platform.config.storage, &platform.clock())
        .await
        .unwrap_err();
    assert!(refused(error).contains("GUESTLANE_MASTER_KEY: is not set"));
    let error = platform.try_engine().await.unwrap_err();
    assert!(
        error.to_string().contains("GUESTLANE_MASTER_KEY_PREVIOUS"),
        "{error}"
    );
}

#[rstest]
#[tokio::test]
async fn undecryptable_value_aborts_rotation_and_keeps_the_previous_key(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = web(backend).await;
    let opened = create(&platform.engine().await, &["ann"]).await;
    let old = key_in_file(&platform.config.storage);
    platform.sql(match platform.postgres {
        None => "UPDATE session SET guest_session = x'00112233445566778899aabbccddeeff'",
        Some(_) => "UPDATE session SET guest_session = '\\x00112233445566778899aabbccddeeff'",
    });
    let error = rotate(&platform).await.unwrap_err().to_string();
    assert!(error.contains(&opened[0].session.id.to_string()), "{error}");
    assert_eq!(
        fs::read_to_string(beside(&platform.config.storage, "previous"))
            .unwrap()
            .trim(),
        old
    );
    drop(platform.engine().await);
}

#[rstest]
#[tokio::test]
async fn seal_count_is_shared_by_processes_and_reset_by_rotation(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = web(backend).await;
    let engine = platform.engine().await;
    let at_first = engine.master_key_seals();
    create(&engine, &["ann", "bob"]).await;
    let after = engine.master_key_seals();
    assert!(
        (at_first + 2..=at_first + 3).contains(&after),
        "two sessions, and in a database one access token"
    );
    drop(engine);
    assert_eq!(platform.engine().await.master_key_seals(), after);

    let resealed = rotate(&platform).await.unwrap();
    let engine = platform.engine().await;
    assert_eq!(
        engine.master_key_seals(),
        resealed.total(),
        "under the new key"
    );
    let working = tokio::spawn(guestlane::Workers::new(std::sync::Arc::clone(&engine)).run());
    engine.create(request("eve")).await.unwrap();
    let expected = engine.master_key_seals();
    assert!(expected > resealed.total());
    platform.clock().sleep(Duration::from_secs(61)).await;
    let counted = "SELECT CAST(max(value) AS text) FROM counter WHERE name LIKE 'masterKeySeals:%'";
    while column(&platform, counted) != [expected.max(after).to_string()] {
        tokio::task::yield_now().await;
    }
    working.abort();
}

#[cfg(debug_assertions)]
mod deaths {
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
}
