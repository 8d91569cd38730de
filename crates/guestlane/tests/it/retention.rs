//! Retention: which sessions are deleted, when, and which are never deleted.

mod crashes;

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
        .erase_guest("unknown".parse().unwrap(), platform.clock.now())
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
