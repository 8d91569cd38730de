//! Batches in PostgreSQL: one process at a time claims a row, and no row is lost.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use guestlane::{admission_control::AdmissionController, batch_worker::BatchWorker};
use guestlane_core::request::{ContactDetails, SessionRequest};
use guestlane_store::batch::{BatchId, BatchStatus, NewRow, RowFailure, RowResult};
use guestlane_testkit::{
    Backend::Postgres,
    batch::{self, rows},
    platform::{TestPlatform, request},
};
use tokio::sync::watch;

use super::fleet::machines;

async fn enqueue(platform: &TestPlatform, rows: Vec<NewRow>) -> BatchId {
    let store = platform.state().await.store;
    batch::enqueue(&store, rows, platform.clock.now()).await
}

async fn status(platform: &TestPlatform, id: BatchId) -> BatchStatus {
    platform
        .state()
        .await
        .store
        .batches()
        .unwrap()
        .list_batches(Some(id), 1)
        .await
        .unwrap()
        .remove(0)
}

async fn results(platform: &TestPlatform, id: BatchId, after: u64, limit: u32) -> Vec<RowResult> {
    let store = platform.state().await.store;
    let batches = store.batches().unwrap();
    batches.row_results(id, after, limit).await.unwrap()
}

/// Runs `processes` processes until the batch is done.
async fn work(platform: &TestPlatform, id: BatchId, processes: usize) -> BatchStatus {
    let engines = machines(platform, processes).await;
    let (stop, stopped) = watch::channel(false);
    let working = engines.iter().map(|engine| {
        let (intake, mut stopped) = (
            Arc::new(AdmissionController::new(Arc::clone(engine), 32)),
            stopped.clone(),
        );
        let stopped = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
        tokio::spawn(BatchWorker::run(Arc::clone(engine), intake, stopped))
    });
    let working: Vec<_> = working.collect();
    let found = loop {
        let found = status(platform, id).await;
        if found.waiting + found.running == 0 {
            break found;
        }
        platform.clock().sleep(Duration::from_millis(200)).await;
    };
    stop.send_replace(true);
    assert!(
        join_all(working)
            .await
            .into_iter()
            .all(|ended| matches!(ended, Ok(Ok(()))))
    );
    found
}

#[tokio::test]
async fn workers_share_batch_rows_and_each_row_creates_one_session() {
    let platform = TestPlatform::new(Postgres).await;
    let id = enqueue(&platform, rows(300)).await;
    let done = work(&platform, id, 3).await;
    assert_eq!(
        (done.rows, done.open, done.replayed, done.failed),
        (300, 300, 0, 0)
    );
    platform.assert_each_guest_once(300);
    let results = results(&platform, id, 0, 1000).await;
    assert_eq!(
        results.iter().map(|row| row.number).collect::<Vec<_>>(),
        (1..=300).collect::<Vec<_>>()
    );
    assert!(results.iter().all(|row| {
        row.session
            .as_ref()
            .is_some_and(|session| session.conversation_id.is_some())
    }));
}

#[tokio::test]
async fn batch_completes_despite_lost_responses_and_platform_errors() {
    let platform = TestPlatform::with(Postgres, |options| options.seed = 3).await;
    let id = enqueue(&platform, rows(200)).await;
    platform.faults(&["any:answer-lost:p=0.05", "conversation:500:p=0.3"]);
    let done = work(&platform, id, 2).await;
    assert_eq!((done.open, done.failed), (200, 0));
    platform.assert_each_guest_once(200);
}

#[tokio::test]
async fn rejected_batch_row_stores_its_error_and_other_rows_complete() {
    let platform = TestPlatform::new(Postgres).await;
    let mut new = rows(3);
    let unknown_queue = "00000000-0000-4000-8000-00000000dead".parse().unwrap();
    new[1].request = Ok(SessionRequest {
        queue: unknown_queue,
        contact_details: ContactDetails::default(),
        ..request("lost")
    });
    let failure = RowFailure {
        code: "invalid_input".into(),
        message: "m".into(),
        cause: "c".into(),
        fix: "f".into(),
    };
    new.push(NewRow {
        number: 4,
        line: 5,
        request: Err(failure.clone()),
    });
    let id = enqueue(&platform, new).await;
    let done = work(&platform, id, 1).await;
    assert_eq!((done.rows, done.open, done.failed), (4, 2, 2));
    let results = results(&platform, id, 1, 10).await;
    assert_eq!(results[0].failure.as_ref().unwrap().code, "unknown_queue");
    assert_eq!(
        (results[2].line, results[2].failure.as_ref()),
        (5, Some(&failure))
    );
}

/// The reader of a batch's results need not be the caller that submitted the row.
#[tokio::test]
async fn row_result_omits_the_platform_error_message() {
    let platform = TestPlatform::new(Postgres).await;
    let id = enqueue(&platform, rows(1)).await;
    platform.faults(&["contact:400-echo"]);
    assert_eq!(work(&platform, id, 1).await.failed, 1);
    let failure = results(&platform, id, 0, 1)
        .await
        .remove(0)
        .failure
        .unwrap();
    assert!(
        failure.message.contains("HTTP 400 bad.request")
            && failure.cause.contains("HTTP 400 bad.request"),
        "{failure:?}"
    );
    assert!(!format!("{failure:?}").contains("premium"), "{failure:?}");
}

/// A row is unreadable after a newer version wrote it, or after a manual change.
#[tokio::test]
async fn unreadable_batch_row_fails_alone_and_names_the_column() {
    let platform = TestPlatform::new(Postgres).await;
    let id = enqueue(&platform, rows(3)).await;
    platform.sql("UPDATE batch_row SET attributes = '[' WHERE number = 2");
    let done = work(&platform, id, 2).await;
    assert_eq!((done.rows, done.open, done.failed), (3, 2, 1));
    let results = results(&platform, id, 1, 1).await;
    let failure = results[0].failure.as_ref().unwrap();
    assert!(
        failure.message.contains("batch_row.attributes"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn guest_erasure_removes_the_guest_from_batch_rows() {
    let platform = TestPlatform::new(Postgres).await;
    let id = enqueue(&platform, rows(2)).await;
    work(&platform, id, 1).await;
    let engine = platform.engine().await;
    engine.outbox().unwrap().deliver_due().await.unwrap();
    platform.clock.advance(Duration::from_secs(60));
    let erased = engine
        .store()
        .erase_guest("guest-1".parse().unwrap(), platform.clock.now())
        .await
        .unwrap();
    assert!(
        matches!(erased, guestlane_store::ErasureOutcome::Erased(_)),
        "{erased:?}"
    );
    let rows = guestlane_testkit::column(
        platform.postgres.as_ref().unwrap(),
        "SELECT r::text FROM batch_row AS r",
    );
    assert_eq!(
        rows.iter().filter(|row| row.contains("guest-1")).count(),
        0,
        "{rows:?}"
    );
    assert_eq!(rows.len(), 2);
}

/// Processes crash after they claim rows, or before they record the results. Other processes claim
/// the rows again, and no guest gets a second session.
#[cfg(debug_assertions)]
#[tokio::test]
async fn batch_rows_of_a_crashed_process_complete_once() {
    use guestlane::SessionEngine;
    use guestlane_runtime::{FailPoint, FailPoints};
    for fail_point in [FailPoint::RowsClaimed, FailPoint::RowsEnded] {
        for nth in 1..4 {
            let platform = TestPlatform::new(Postgres).await;
            drop(platform.engine().await);
            let id = enqueue(&platform, rows(40)).await;
            let mut config = platform.config.clone();
            let (died, passed) = (
                watch::channel(false).0,
                std::sync::atomic::AtomicUsize::new(0),
            );
            let dies = died.clone();
            config.storage.fail_points = FailPoints::new(move |passing| {
                let now = passing == fail_point
                    && passed.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1 == nth;
                if now {
                    dies.send_replace(true);
                }
                now
            });
            let (mut told, clock) = (died.subscribe(), platform.clock());
            // A crashed process has its own runtime, whose remaining tasks end with it.
            let life = tokio::task::spawn_blocking(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    let engine = SessionEngine::open(config, clock).await.unwrap();
                    let intake = Arc::new(AdmissionController::new(Arc::clone(&engine), 4));
                    tokio::select! {
                        ended = tokio::spawn(BatchWorker::run(engine, intake, std::future::pending())) => drop(ended),
                        died = told.wait_for(|died| *died) => drop(died),
                    }
                });
                runtime.shutdown_background();
            });
            life.await.unwrap();
            assert!(*died.borrow(), "{fail_point} {nth}");
            platform.clock.advance(Duration::from_secs(30));
            let done = work(&platform, id, 1).await;
            assert_eq!((done.open, done.failed), (40, 0), "{fail_point} {nth}");
            platform.assert_each_guest_once(40);
        }
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// Prunes once an hour, for `hours` hours. Returns the number of deleted sessions.
async fn prune_for(platform: &TestPlatform, engine: &guestlane::SessionEngine, hours: u32) -> u64 {
    let mut deleted = 0;
    for _ in 0..hours {
        platform.clock.advance(HOUR);
        deleted += engine.prune().await.unwrap().sessions;
    }
    deleted
}

/// Regression test: workers that were stopped for longer than the retention opened the sessions of
/// their rows a second time.
#[tokio::test]
async fn retention_keeps_sessions_of_unfinished_batch_rows() {
    let mut platform = TestPlatform::new(Postgres).await;
    platform.config.retention = Some(24 * HOUR);
    let id = enqueue(&platform, rows(3)).await;
    let engine = platform.engine().await;
    // A worker opens the sessions of the rows and is killed before it records the results.
    for row in engine
        .store()
        .batches()
        .unwrap()
        .claim_rows(3, platform.clock.now())
        .await
        .unwrap()
    {
        engine.create(row.request.unwrap()).await.unwrap();
    }
    engine.create(request("another")).await.unwrap();
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    assert_eq!(
        prune_for(&platform, &engine, 72).await,
        1,
        "only the one that no row asks for"
    );
    let done = work(&platform, id, 1).await;
    assert_eq!((done.open, done.failed), (3, 0));
    platform.assert_each_guest_once(4);
    assert_eq!(
        prune_for(&platform, &engine, 72).await,
        3,
        "and no longer than needed"
    );
}

#[tokio::test]
async fn completed_rows_keep_no_personal_data_and_ended_batch_is_pruned() {
    let mut platform = TestPlatform::new(Postgres).await;
    platform.config.retention = Some(24 * HOUR);
    let url = platform.postgres.clone().unwrap();
    let ann = ContactDetails::new(
        Some("Ann".into()),
        None,
        Some("ann@example.org".into()),
        Some("+31 20 555 0100".into()),
    )
    .unwrap();
    let mut new = rows(2);
    new[0].request = Ok(SessionRequest {
        contact_details: ann,
        ..request("ann")
    });
    let ended = enqueue(&platform, new).await;
    work(&platform, ended, 1).await;
    let personal =
        "SELECT count(*) FROM batch_row WHERE contact_details <> '{}' OR attributes <> '{}'";
    assert_eq!(guestlane_testkit::column(&url, personal), ["0"]);
    let waiting = enqueue(
        &platform,
        vec![NewRow {
            number: 1,
            line: 2,
            request: Ok(request("waits")),
        }],
    )
    .await;

    let engine = platform.engine().await;
    platform.clock.advance(Duration::from_secs(60));
    engine.outbox().unwrap().deliver_due().await.unwrap();
    // The surface of this test accepts no contact name, so ann's row fails. A failed row is
    // completed, too.
    assert_eq!(prune_for(&platform, &engine, 72).await, 1);
    let left = engine
        .store()
        .batches()
        .unwrap()
        .list_batches(None, 10)
        .await
        .unwrap();
    assert_eq!(
        left.iter().map(|batch| batch.batch_id).collect::<Vec<_>>(),
        [waiting]
    );
    assert_eq!(
        guestlane_testkit::column(&url, "SELECT count(*) FROM batch_row"),
        ["1"]
    );
}
