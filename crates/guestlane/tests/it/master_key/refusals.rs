//! A rotation that cannot succeed changes nothing.

use super::*;

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

#[rstest]
#[tokio::test]
async fn mismatched_master_key_settings_are_rejected_by_name(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = web(backend).await;
    given(&mut platform, 1, None);
    drop(platform.engine().await);
    let refused = |error: Error| error.to_string();
    assert!(refused(rotate(&platform).await.unwrap_err()).contains("storage.master_key: is set"));
    let error = reseal_by_given_keys(&platform.config.storage, &platform.clock())
        .await
        .unwrap_err();
    assert!(refused(error).contains("storage.master_key_previous: is not set"));
    given(&mut platform, 2, Some(3));
    assert!(
        platform.try_engine().await.is_err(),
        "neither key is the store's"
    );
    platform.config.storage.master_key = None;
    let error = reseal_by_given_keys(&platform.config.storage, &platform.clock())
        .await
        .unwrap_err();
    assert!(refused(error).contains("storage.master_key: is not set"));
    let error = platform.try_engine().await.unwrap_err();
    assert!(
        error.to_string().contains("storage.master_key_previous"),
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
