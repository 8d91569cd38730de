//! Retention: which sessions are deleted, when, and which are never deleted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use guestlane::{ErrorCounts, SessionEngine};
use guestlane_core::{
    audit::{AuditRecord, Status},
    event::Event,
    session::{SessionRecord, SessionState, SurfaceBinding},
    token::TokenIdentity,
};
use guestlane_store::{
    BeginOutcome, CommitRequest, DeliveryOutcome, DeliveryState, ErasureOutcome, RecordFilter,
    ReplayFilter, SessionFilter, Store,
};
use guestlane_testkit::{
    Backend::{self, Postgres, Sqlite},
    platform::{TestPlatform, fresh, request},
};
use rstest::rstest;

const HOUR: Duration = Duration::from_secs(3600);

async fn platform(backend: Backend) -> TestPlatform {
    let mut platform = TestPlatform::new(backend).await;
    platform.config.retention = Some(24 * HOUR);
    platform
}

/// Creates a guest whose session is open and whose event is delivered.
async fn done(engine: &Arc<SessionEngine>, guest: &str) -> SessionRecord {
    let opened = engine.create(request(guest)).await.unwrap();
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    opened.session
}

/// Returns the guest IDs of all sessions, sorted by name because sessions of the same moment have
/// no fixed order.
async fn guests(engine: &SessionEngine) -> Vec<String> {
    let sessions = engine
        .store()
        .sessions(SessionFilter {
            guest: None,
            state: None,
            limit: 5000,
            ..SessionFilter::default()
        })
        .await
        .unwrap()
        .sessions;
    let mut guests: Vec<_> = sessions
        .iter()
        .map(|session| session.request.guest.as_str().to_owned())
        .collect();
    guests.sort();
    guests
}

#[rstest]
#[tokio::test]
async fn prune_deletes_only_finished_delivered_and_expired_sessions(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = platform(backend).await;
    let engine = platform.engine().await;
    platform.faults(&["conversation:answer-lost"]);
    engine.create(request("needs-attention")).await.unwrap_err();
    platform.clock.advance(24 * HOUR);
    engine.recover_abandoned().await.unwrap();
    platform.faults(&["contact:400:nth=1"]);
    engine.create(request("refused")).await.unwrap_err();
    platform.faults(&["crm:500"]);
    done(&engine, "undelivered").await;
    platform.clock.advance(Duration::from_secs(60));
    let dead = engine
        .store()
        .claim_events(1, 1, platform.clock.now())
        .await
        .unwrap()
        .remove(0);
    engine
        .store()
        .record_delivery(
            dead,
            DeliveryOutcome::Dead {
                error: "HTTP 500".to_owned(),
            },
            platform.clock.now(),
        )
        .await
        .unwrap();
    done(&engine, "pending-event").await;
    platform.faults(&[]);
    done(&engine, "done").await;
    platform.clock.advance(23 * HOUR);
    platform.faults(&["conversation:500:first=4"]);
    engine.create(request("unfinished")).await.unwrap_err();
    done(&engine, "young").await;

    let all = [
        "done",
        "needs-attention",
        "pending-event",
        "refused",
        "undelivered",
        "unfinished",
        "young",
    ];
    assert_eq!(engine.prune().await.unwrap().sessions, 0);
    assert_eq!(guests(&engine).await, all);
    platform.clock.advance(HOUR);
    let pruned = engine.prune().await.unwrap();
    assert_eq!((pruned.sessions, pruned.events, pruned.next), (2, 1, None));
    assert_eq!(
        guests(&engine).await,
        [
            "needs-attention",
            "pending-event",
            "undelivered",
            "unfinished",
            "young"
        ]
    );

    // Sessions are deleted once their events are delivered. Unfinished sessions are never deleted,
    // however old.
    engine.outbox().unwrap().deliver_due().await.unwrap();
    let dead = engine
        .store()
        .events(Some(DeliveryState::Dead), None, 2)
        .await
        .unwrap()
        .remove(0);
    engine
        .store()
        .replay(ReplayFilter::Event(dead.event.id), platform.clock.now())
        .await
        .unwrap();
    assert_eq!(
        engine.prune().await.unwrap().sessions,
        1,
        "the other one is to be sent again"
    );
    engine.outbox().unwrap().deliver_due().await.unwrap();
    platform.clock.advance(48 * HOUR);
    assert_eq!(engine.prune().await.unwrap().sessions, 2);
    assert_eq!(guests(&engine).await, ["needs-attention", "unfinished"]);
    assert_eq!(engine.store().pending_events().await.unwrap(), 0);
    platform.proven_logs().await;
}

#[rstest]
#[tokio::test]
async fn without_retention_nothing_is_pruned(#[values(Sqlite, Postgres)] backend: Backend) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    done(&engine, "ann").await;
    platform.clock.advance(10_000 * HOUR);
    assert_eq!(engine.prune().await.unwrap().sessions, 0);
    assert!(engine.create(request("ann")).await.unwrap().replayed);
}

#[rstest]
#[tokio::test]
async fn idempotency_key_expires_after_the_retention_and_not_before(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = platform(backend).await;
    let engine = platform.engine().await;
    let first = done(&engine, "ann").await;
    platform.clock.advance(24 * HOUR - Duration::from_secs(60));
    assert_eq!(engine.prune().await.unwrap().sessions, 0);
    assert!(engine.create(request("ann")).await.unwrap().replayed);
    platform.clock.advance(Duration::from_secs(120));
    assert_eq!(engine.prune().await.unwrap().sessions, 1);
    let second = engine.create(request("ann")).await.unwrap();
    assert!(!second.replayed && second.session.id != first.id);
}

#[rstest]
#[tokio::test]
async fn pruned_sessions_stay_in_metrics_audit_log_and_erasure(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = platform(backend).await;
    let engine = platform.engine().await;
    let ann = done(&engine, "ann").await;
    done(&engine, "bob").await;
    let before = engine.store().summary().await.unwrap();
    platform.clock.advance(25 * HOUR);
    assert_eq!(engine.prune().await.unwrap().sessions, 2);
    assert_eq!(
        engine.store().summary().await.unwrap(),
        before,
        "nothing is counted less than before"
    );
    done(&engine, "carl").await;
    let after = engine.store().summary().await.unwrap();
    assert_eq!(
        (
            after.sessions["open"],
            after.events["delivered"],
            after.latency.count
        ),
        (3, 3, 3)
    );

    let of_ann = |session, guest: Option<&str>| RecordFilter {
        session,
        guest: guest.map(|guest| guest.parse().unwrap()),
        limit: 9,
    };
    let records = engine
        .store()
        .records(of_ann(Some(ann.id), None))
        .await
        .unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!(
        engine
            .store()
            .records(of_ann(None, Some("ann")))
            .await
            .unwrap(),
        records
    );
    assert_eq!(
        engine
            .store()
            .records(of_ann(Some(ann.id), Some("ann")))
            .await
            .unwrap(),
        records
    );
    assert_eq!(
        engine
            .store()
            .records(of_ann(Some(ann.id), Some("bob")))
            .await
            .unwrap(),
        []
    );
    assert!(
        platform
            .state()
            .await
            .prove_inclusion(ann.id)
            .await
            .unwrap()
            .is_some()
    );
    let ErasureOutcome::Erased(done) = engine
        .store()
        .erase_guest("ann".parse().unwrap(), platform.clock.now())
        .await
        .unwrap()
    else {
        panic!()
    };
    assert_eq!((done.sessions, done.plain_records), (0, vec![(1, 2)]));
    let unknown = engine
        .store()
        .erase_guest("nobody".parse().unwrap(), platform.clock.now())
        .await
        .unwrap();
    assert_eq!(unknown, ErasureOutcome::Unknown);
    platform.proven_logs().await;
}

#[rstest]
#[tokio::test]
async fn worker_prunes_expired_sessions(#[values(Sqlite, Postgres)] backend: Backend) {
    let platform = platform(backend).await;
    let engine = platform.engine().await;
    done(&engine, "ann").await;
    let working = tokio::spawn(guestlane::Workers::new(std::sync::Arc::clone(&engine)).run());
    platform.clock().sleep(Duration::from_secs(5)).await;
    assert_eq!(guests(&engine).await, ["ann"]);
    platform.clock.advance(24 * HOUR);
    let since = platform.clock.now();
    while !guests(&engine).await.is_empty() {
        platform.clock().sleep(Duration::from_secs(10)).await;
    }
    working.abort();
    assert!(platform.clock.now().since(since) < HOUR);
}

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
        before: before.clone(),
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
