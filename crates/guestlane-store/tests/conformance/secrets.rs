//! Sealed values: each is replaced only if it is still what its reader saw.

use guestlane_core::session::SurfaceBinding;
use guestlane_store::{BeginOutcome, Replacement, SealedPlace, SecretChange};
use rstest::rstest;
use uuid::Uuid;

use crate::kit::{Backend, Postgres, Sqlite, TestStore, request};

#[rstest]
#[tokio::test]
async fn first_of_two_secrets_with_one_name_is_kept(#[values(Sqlite, Postgres)] backend: Backend) {
    let test = TestStore::open(backend).await;
    let get = |new: Option<&[u8]>| {
        let new = new.map(<[u8]>::to_vec);
        test.store.get_or_insert_secret("name", new)
    };
    assert_eq!(get(None).await.unwrap(), None);
    assert_eq!(get(Some(b"one")).await.unwrap().unwrap(), b"one");
    assert_eq!(get(Some(b"two")).await.unwrap().unwrap(), b"one");
    assert_eq!(get(None).await.unwrap().unwrap(), b"one");
}

#[rstest]
#[tokio::test]
async fn secret_is_replaced_only_if_unchanged(#[values(Sqlite, Postgres)] backend: Backend) {
    let test = TestStore::open(backend).await;
    let first = Some(b"one".to_vec());
    test.store
        .get_or_insert_secret("name", first)
        .await
        .unwrap();
    let change = |before: &[u8], after: &[u8]| SecretChange {
        name: "name".to_owned(),
        before: before.to_vec(),
        after: after.to_vec(),
        record: None,
    };
    assert!(
        test.store
            .replace_secret(change(b"one", b"two"))
            .await
            .unwrap()
    );
    assert!(
        !test
            .store
            .replace_secret(change(b"one", b"three"))
            .await
            .unwrap()
    );
    let kept = test.store.get_or_insert_secret("name", None).await.unwrap();
    assert_eq!(kept.unwrap(), b"two");
}

#[rstest]
#[tokio::test]
async fn sealed_values_are_listed_and_replaced_only_if_unchanged(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let test = TestStore::open(backend).await;
    let first = Some(b"one".to_vec());
    test.store
        .get_or_insert_secret("name", first)
        .await
        .unwrap();
    let surface = SurfaceBinding::WebMessaging {
        deployment: Uuid::from_u128(7),
        token: b"sealed token".to_vec(),
    };
    let BeginOutcome::Acquired(session) = test.begin_on(request("ann"), surface.into()).await
    else {
        panic!("the session is new");
    };
    let keys = test.store.sealed_keys().await.unwrap();
    assert_eq!(keys[0].place, SealedPlace::Secret("name".to_owned()));
    let sessions = test.store.sealed_sessions(None, 10).await.unwrap();
    assert_eq!(sessions[0].place, SealedPlace::GuestSession(session.id));
    assert_eq!(sessions[0].bytes, b"sealed token");
    let after = test
        .store
        .sealed_sessions(Some(session.id), 10)
        .await
        .unwrap();
    assert!(after.is_empty());

    let replace = |place: &SealedPlace, before: &[u8]| Replacement {
        place: place.clone(),
        before: before.to_vec(),
        after: b"anew".to_vec(),
    };
    let values = vec![
        replace(&keys[0].place, b"one"),
        replace(&sessions[0].place, b"not its bytes"),
    ];
    assert_eq!(test.store.replace_sealed(values).await.unwrap(), 1);
    let kept = test.store.sealed_sessions(None, 10).await.unwrap();
    assert_eq!(kept[0].bytes, b"sealed token");
}

#[rstest]
#[tokio::test]
async fn seals_of_a_master_key_add_up(#[values(Sqlite, Postgres)] backend: Backend) {
    let test = TestStore::open(backend).await;
    assert_eq!(test.store.seals("one").await.unwrap(), 0);
    assert_eq!(test.store.add_seals("one", 3).await.unwrap(), 3);
    assert_eq!(
        test.opened_again().await.add_seals("one", 4).await.unwrap(),
        7
    );
    assert_eq!(test.store.seals("one").await.unwrap(), 7);
    assert_eq!(test.store.seals("two").await.unwrap(), 0);
}
