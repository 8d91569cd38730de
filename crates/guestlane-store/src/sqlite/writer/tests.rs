//! Tests of `writer`.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use super::*;
use crate::ReadLimits;

const LIMITS: ReadLimits = ReadLimits {
    waiting: 1,
    timeout: Duration::from_millis(20),
    rejects_when_full: true,
};

fn reader(limits: ReadLimits) -> Reader {
    Reader::start(
        Connection::open_in_memory().unwrap(),
        limits,
        Clock::system(),
    )
    .unwrap()
}

/// Keeps the thread busy until the sender is dropped.
async fn busy(reader: &Reader) -> std::sync::mpsc::Sender<()> {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (started, starts) = oneshot::channel();
    let reader = reader.clone();
    tokio::spawn(async move {
        let wait = move |_: &Connection| {
            let _ = started.send(());
            let _ = released.recv();
            Ok(())
        };
        reader.read(wait).await
    });
    starts.await.unwrap();
    release
}

/// Regression test: a blocking send froze the whole process, because the runtime has one thread
/// here.
#[tokio::test]
async fn full_queue_rejects_reads_without_blocking_the_runtime() {
    let reader = reader(LIMITS);
    let release = busy(&reader).await;
    let waits = reader.read(|_| Ok(()));
    let mut waits = Box::pin(waits);
    assert!(futures_util::poll!(&mut waits).is_pending());
    assert!(matches!(
        reader.read(|_| Ok(())).await,
        Err(StoreError::Busy)
    ));
    drop(release);
    waits.await.unwrap();
}

#[tokio::test]
async fn cancelled_read_is_not_run() {
    let reader = reader(ReadLimits {
        waiting: 8,
        rejects_when_full: false,
        ..LIMITS
    });
    let release = busy(&reader).await;
    let run = Arc::new(AtomicI64::new(0));
    for _ in 0..3 {
        let run = Arc::clone(&run);
        let mut gone = Box::pin(reader.read(move |_| Ok(run.fetch_add(1, Ordering::Relaxed))));
        assert!(futures_util::poll!(&mut gone).is_pending());
    }
    drop(release);
    reader.read(|_| Ok(())).await.unwrap();
    assert_eq!(run.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn read_beyond_the_timeout_is_interrupted() {
    let endless =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let asked = reader(LIMITS)
        .read(move |connection| Ok(connection.query_row(endless, [], |row| row.get::<_, i64>(0))?))
        .await;
    assert!(
        matches!(asked, Err(StoreError::ReadTimeout(limit)) if limit == LIMITS.timeout),
        "{asked:?}"
    );
}
