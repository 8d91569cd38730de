//! Rotation of the master key, and the count of values that are sealed under it.

#[cfg(debug_assertions)]
mod deaths;
mod fleet;
mod refusals;

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

fn given(platform: &mut TestPlatform, current: u8, previous: Option<u8>) {
    platform.config.storage.master_key = Some(key(current).into());
    platform.config.storage.master_key_previous = previous.map(|byte| key(byte).into());
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
