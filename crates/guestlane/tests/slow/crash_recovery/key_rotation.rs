//! A crash during the rotation or revocation of a signing key.

use super::*;

/// A process crashes while it creates the next signing key or revokes one. The next process finds
/// either all of the change or nothing, one key signs, and the earlier sessions are completed.
#[rstest]
#[test]
fn crash_during_key_rotation_or_revocation_leaves_one_active_key(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let fail_points = [
        FailPoint::RowsWritten,
        FailPoint::RecordsWritten,
        FailPoint::Committed,
        FailPoint::NextKeyStored,
        FailPoint::KeyRevoked,
    ];
    for (fail_point, revokes) in fail_points
        .into_iter()
        .flat_map(|fail_point| [(fail_point, false), (fail_point, true)])
    {
        if (fail_point == FailPoint::NextKeyStored && revokes)
            || (fail_point == FailPoint::KeyRevoked && !revokes)
        {
            continue;
        }
        run(async {
            let platform = platform(backend, &Surface::Rest).await;
            platform.faults(&["conversation:answer-lost:first=4"]);
            platform
                .engine()
                .await
                .create(request("ann"))
                .await
                .unwrap_err();
            let (armed, died) = (
                Arc::new(AtomicBool::new(false)),
                Arc::new(AtomicBool::new(false)),
            );
            let (at, dies, says) = (fail_point, Arc::clone(&armed), Arc::clone(&died));
            let mut places = platform.config.storage.clone();
            places.fail_points = FailPoints::new(move |fail_point| {
                let dies = dies.load(Ordering::SeqCst) && fail_point == at;
                says.fetch_or(dies, Ordering::SeqCst);
                dies
            });
            let (clock, now) = (platform.clock(), platform.clock.now());
            let changing = tokio::spawn(async move {
                let state = Workspace::open_read_only(&places, &clock).await.unwrap();
                armed.store(true, Ordering::SeqCst);
                if revokes {
                    let _ = state.revoke_key("webchat-guest-key-v1", now).await;
                } else {
                    let _ = state.rotate_key(RotationPolicy::default(), &clock).await;
                }
            });
            while !died.load(Ordering::SeqCst) && !changing.is_finished() {
                tokio::task::yield_now().await;
            }
            changing.abort();
            assert!(died.load(Ordering::SeqCst), "{fail_point}");
            let committed = !matches!(
                fail_point,
                FailPoint::RowsWritten | FailPoint::RecordsWritten
            );
            let states: Vec<_> = platform
                .state()
                .await
                .keyring
                .list(platform.clock.now())
                .into_iter()
                .map(|key| key.state)
                .collect();
            assert_eq!(
                states,
                match (committed, revokes) {
                    (false, _) => vec![KeyState::Active],
                    (true, false) => vec![KeyState::Active, KeyState::Next],
                    (true, true) => vec![KeyState::Revoked, KeyState::Active],
                },
                "{fail_point}"
            );
            run_to_completion(&platform, "ann").await;
            run_to_completion(&platform, "bob").await;
            assert_at_rest(&platform, 2).await;
        });
    }
}
