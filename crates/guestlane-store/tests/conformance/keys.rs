//! Signing keys, API keys, and the platform that a store belongs to.

use guestlane_core::{
    api_key::{ApiKey, ApiKeyHasher, Scope, Scopes, StoredApiKey},
    token::{KeyLifecycle, RevocationPlan, SealedSigningKey},
};
use guestlane_runtime::Timestamp;
use guestlane_store::Store;
use rstest::rstest;

use crate::kit::{Backend, Postgres, SECOND, Sqlite, TestStore};

fn key(kid: &str, active_from: Timestamp) -> SealedSigningKey {
    SealedSigningKey {
        kid: kid.to_owned(),
        sealed: kid.as_bytes().to_vec(),
        life: KeyLifecycle::stored(active_from, active_from, None),
    }
}

async fn kids(store: &Store) -> Vec<String> {
    let keys = store.signing_keys().await.unwrap();
    keys.into_iter().map(|key| key.kid).collect()
}

#[rstest]
#[tokio::test]
async fn first_of_two_signing_keys_with_one_id_is_kept(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let test = TestStore::open(backend).await;
    let other = SealedSigningKey {
        sealed: b"other".to_vec(),
        ..key("one", test.now())
    };
    test.store
        .add_signing_key(key("one", test.now()))
        .await
        .unwrap();
    test.opened_again()
        .await
        .add_signing_key(other)
        .await
        .unwrap();
    let keys = test.store.signing_keys().await.unwrap();
    assert_eq!((keys.len(), &keys[0].sealed[..]), (1, &b"one"[..]));
}

#[rstest]
#[tokio::test]
async fn two_processes_that_add_the_next_key_get_the_same(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let test = TestStore::open(backend).await;
    let (now, later) = (test.now(), test.now() + SECOND * 600);
    test.store
        .add_signing_key(key("active", now))
        .await
        .unwrap();
    let life = move || KeyLifecycle::stored(now, later, None);
    let other = test.opened_again().await;
    let one = test
        .store
        .add_next_key(key("one", later), Box::new(life), now)
        .await
        .unwrap();
    let two = other
        .add_next_key(key("two", later), Box::new(life), now)
        .await
        .unwrap();
    assert_eq!((one.kid.as_str(), two.kid.as_str()), ("one", "one"));
    assert_eq!(kids(&other).await, ["active", "one"]);
}

#[rstest]
#[tokio::test]
async fn revoking_the_active_key_activates_another_at_once(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let test = TestStore::open(backend).await;
    let now = test.now();
    test.store
        .add_signing_key(key("active", now))
        .await
        .unwrap();
    let revoke = |kid: &str, spare| test.store.revoke_signing_key(kid.to_owned(), spare, now);
    assert!(
        revoke("active", None).await.unwrap().is_none(),
        "none could sign"
    );
    assert!(
        !test.store.signing_keys().await.unwrap()[0]
            .life
            .is_revoked()
    );

    test.store
        .add_signing_key(key("next", now + SECOND * 60))
        .await
        .unwrap();
    let done = revoke("active", None).await.unwrap();
    assert!(matches!(done, Some(RevocationPlan::PromoteNext(kid, _)) if kid == "next"));
    let keys = test.opened_again().await.signing_keys().await.unwrap();
    let next = keys.iter().find(|key| key.kid == "next").unwrap();
    assert_eq!(next.life.active_from(), now);
    let again = revoke("active", None).await.unwrap();
    assert!(matches!(again, Some(RevocationPlan::AlreadyRevoked(_))));
    let unknown = revoke("unknown", None).await.unwrap();
    assert!(matches!(unknown, Some(RevocationPlan::Unknown)));
}

fn api_key(name: &str, now: Timestamp) -> StoredApiKey {
    let key = ApiKey::generate().unwrap();
    let scopes = Scopes::new([Scope::SessionsWrite, Scope::SessionsRead]).unwrap();
    StoredApiKey::new(&key, &ApiKeyHasher::new(b"secret"), name, scopes, now)
}

#[rstest]
#[tokio::test]
async fn replaced_api_key_expires_and_revoked_one_stays_listed(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let test = TestStore::open(backend).await;
    let (now, until) = (test.now(), test.now() + SECOND * 3600);
    let (old, new) = (api_key("old", now), api_key("new", now + SECOND));
    test.store.add_api_key(old.clone(), None).await.unwrap();
    let replaces = Some((old.id.clone(), until));
    test.store.add_api_key(new.clone(), replaces).await.unwrap();
    let expected = StoredApiKey {
        expires_at: Some(until),
        ..old.clone()
    };
    let reader = test.opened_again().await;
    assert_eq!(reader.api_keys().await.unwrap(), [expected, new.clone()]);

    let used = vec![(new.id.clone(), now + SECOND * 60)];
    test.store.touch_api_keys(used).await.unwrap();
    let revoked = test
        .store
        .revoke_api_key(new.id.clone(), until)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(revoked.last_used_at, Some(now + SECOND * 60));
    assert_eq!(revoked.revoked_at, Some(until));
    assert_eq!(reader.api_keys().await.unwrap().len(), 2);
    assert_eq!(
        test.store
            .revoke_api_key("none".to_owned(), until)
            .await
            .unwrap(),
        None
    );
}

#[rstest]
#[tokio::test]
async fn store_belongs_to_the_first_platform(#[values(Sqlite, Postgres)] backend: Backend) {
    let test = TestStore::open(backend).await;
    assert_eq!(test.store.platform().await.unwrap(), None);
    let bind = |platform: &str| test.store.get_or_insert_platform(platform.to_owned());
    assert_eq!(bind("https://one").await.unwrap(), "https://one");
    assert_eq!(bind("https://two").await.unwrap(), "https://one");

    assert_eq!(test.store.organization().await.unwrap(), None);
    for client in ["client-1", "client-2"] {
        let set = test
            .store
            .set_organization(client.to_owned(), "org".to_owned());
        set.await.unwrap();
        let found = test.opened_again().await.organization().await.unwrap();
        assert_eq!(found, Some((client.to_owned(), "org".to_owned())));
    }
}
