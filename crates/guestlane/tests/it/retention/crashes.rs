//! Pruning in chunks survives a crash between them.

use super::*;

/// Writes a session as the product does, without the platform.
async fn write(store: &Store, platform: &TestPlatform, guest: usize) {
    let (now, rates) = (platform.clock.now(), ErrorCounts::default());
    let token = TokenIdentity::new("webchat-guest-key-v1", now);
    let wanted = fresh(&format!("guest-{guest}"));
    let new = SessionRecord::new(wanted, SurfaceBinding::Rest.into(), token, now);
    let admitted = store.begin(new, rates).await.unwrap();
    let BeginOutcome::Acquired(session) = admitted.value else {
        panic!()
    };
    let step = |before: &SessionRecord, after, audit, events| CommitRequest {
        epoch: before.epoch,
        after,
        audit,
        events,
        errors: rates,
        calls: Vec::new(),
    };
    let after = session
        .clone()
        .contact_ready(Some("contact".parse().unwrap()), 1, now)
        .unwrap();
    let session = store
        .commit_transition(step(&session, after, None, Vec::new()))
        .await
        .unwrap()
        .value
        .session;
    let after = session
        .clone()
        .completed("conversation".parse().unwrap(), 1, now, now)
        .unwrap();
    let record = AuditRecord::for_session(&after, Status::Success, rates, now);
    let event = Event::session_created(&after, 1, now);
    let advanced = store
        .commit_transition(step(&session, after, Some(record), vec![event]))
        .await
        .unwrap()
        .value;
    for event in advanced.first {
        store
            .record_delivery(event, DeliveryOutcome::Delivered, now)
            .await
            .unwrap();
    }
}

#[cfg(debug_assertions)]
#[rstest]
#[tokio::test]
async fn prune_commits_in_chunks_and_survives_a_crash_between_them(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    use guestlane_runtime::{FailPoint, FailPoints};

    const SESSIONS: usize = 3000;
    // One transaction moves the retention horizon; on PostgreSQL another one looks for batches.
    let first = if backend == Postgres { 2 } else { 1 };
    let mut platform = platform(backend).await;
    let store = platform.state().await.store;
    stream::iter(0..SESSIONS)
        .for_each_concurrent(512, |guest| write(&store, &platform, guest))
        .await;
    platform.clock.advance(25 * HOUR);
    let late = engine_that_crashes(&mut platform, FailPoint::Committed, first + 5).await;
    let left = guests(&late).await;
    assert_eq!(
        left.len(),
        SESSIONS - 5 * 100,
        "five steps are committed, and there is no sixth"
    );
    let late = engine_that_crashes(&mut platform, FailPoint::RowsWritten, first + 1).await;
    assert_eq!(
        guests(&late).await,
        left,
        "a step that is not committed has not been"
    );

    let steps = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&steps);
    platform.config.storage.fail_points = FailPoints::new(move |fail_point| {
        counted.fetch_add(
            usize::from(fail_point == FailPoint::Committed),
            Ordering::SeqCst,
        );
        false
    });
    let engine = platform.engine().await;
    steps.store(0, Ordering::SeqCst);
    let pruned = engine.prune().await.unwrap();
    assert_eq!((pruned.sessions, pruned.events), (2500, 2500));
    assert_eq!(steps.load(Ordering::SeqCst), first + 25);
    assert!(guests(&engine).await.is_empty());
    let summary = engine.store().summary().await.unwrap();
    assert_eq!(
        (
            summary.sessions["open"],
            summary.events["delivered"],
            summary.latency.count
        ),
        (3000, 3000, 3000)
    );
    assert!(
        summary
            .sessions
            .keys()
            .all(|state| *state == SessionState::Open.name())
    );
    platform.proven_logs().await;
}

/// Runs a process that prunes until it crashes at the n-th passing of a fail point. Returns the
/// engine of the next process.
#[cfg(debug_assertions)]
async fn engine_that_crashes(
    platform: &mut TestPlatform,
    at: guestlane_runtime::FailPoint,
    nth: usize,
) -> Arc<SessionEngine> {
    let (armed, passed) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let is_armed = Arc::clone(&armed);
    platform.config.storage.fail_points = guestlane_runtime::FailPoints::new(move |fail_point| {
        fail_point == at
            && is_armed.load(Ordering::SeqCst) == 1
            && passed.fetch_add(1, Ordering::SeqCst) + 1 == nth
    });
    let engine = platform.engine().await;
    armed.store(1, Ordering::SeqCst);
    engine.prune().await.unwrap_err();
    drop(engine);
    platform.config.storage.fail_points = guestlane_runtime::FailPoints::default();
    platform.engine().await
}
