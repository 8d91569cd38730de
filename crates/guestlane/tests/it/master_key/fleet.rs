//! A fleet changes the master key while its processes run.

use super::*;

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
