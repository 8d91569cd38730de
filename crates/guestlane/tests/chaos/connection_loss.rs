//! The connection to the database breaks, or the database goes down. Commits in doubt are resolved,
//! not guessed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use guestlane::SessionEngine;
use guestlane_runtime::Clock;
use guestlane_testkit::{
    Backend::Postgres,
    platform::{TestPlatform, request},
};
use guestlane_testkit::{Proxy, Server, schema_in};

/// Opens an engine on the system clock, because the wait for a database is in real time.
async fn engine(platform: &TestPlatform, database: &str) -> Arc<SessionEngine> {
    let mut config = platform.config.clone();
    config.storage.database = database.parse().unwrap();
    SessionEngine::open(config, Clock::system()).await.unwrap()
}

/// Returns a harness with its own database server, and the URL of a schema there.
async fn apart() -> (TestPlatform, Server, String) {
    let server = Server::start();
    let schema = schema_in(&server.url());
    (
        TestPlatform::with(Postgres, |options| options.clock = Clock::system()).await,
        server,
        schema,
    )
}

/// Connections break repeatedly, at any point of a transaction. Callers repeat the request under
/// the same idempotency key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_connections_lose_no_session_and_create_no_duplicate() {
    let (platform, server, schema) = apart().await;
    let proxy = Proxy::to(server.port()).await;
    let engine = engine(&platform, &proxy.url(&schema, server.port())).await;
    let done = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&done);
    let breaking = tokio::spawn(async move {
        let mut breaks = 0_u32;
        while !until.load(Ordering::SeqCst) {
            Clock::system()
                .sleep(Duration::from_millis(3 + u64::from(breaks % 40)))
                .await;
            proxy.break_all();
            breaks += 1;
        }
        (proxy, breaks)
    });
    const GUESTS: usize = 200;
    let asked = (0..GUESTS).map(|guest| {
        let engine = Arc::clone(&engine);
        async move {
            let mut errors = 0;
            while let Err(error) = engine.create(request(&format!("guest-{guest}"))).await {
                errors += 1;
                assert!(errors < 50, "{error}");
                Clock::system().sleep(Duration::from_millis(50)).await;
            }
        }
    });
    let asked = futures_util::stream::iter(asked);
    futures_util::StreamExt::for_each_concurrent(asked, 16, |asked| asked).await;
    done.store(true, Ordering::SeqCst);
    let (_proxy, breaks) = breaking.await.unwrap();
    assert!(breaks > 20, "{breaks}");
    platform.assert_each_guest_once(GUESTS as u64);
    let store = engine.store();
    assert_eq!(store.unfinished().await.unwrap(), 0);
    let logs = store
        .logs(engine.audit_log(), engine.audit_key())
        .await
        .unwrap();
    for log in logs {
        let leaves = store.leaves(log.log).await.unwrap();
        assert_eq!(leaves.len() as u64, log.checkpoint.size);
        if log.checkpoint.size > 0 {
            guestlane_tlog::verify_log(&log.path, engine.audit_key(), &[]).unwrap();
        }
    }
    // Each open session was written once, and so was its event.
    let counts =
        guestlane_testkit::column(&schema, "SELECT count(*) FROM session WHERE state = 'open'");
    let events = guestlane_testkit::column(&schema, "SELECT count(*) FROM outbox");
    let records = guestlane_testkit::column(
        &schema,
        r#"SELECT count(*) FROM audit_record WHERE line LIKE '%"status":"success"%'"#,
    );
    assert_eq!(
        (&counts[0], &events[0], &records[0]),
        (&"200".to_owned(), &"200".to_owned(), &"200".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_outage_returns_store_failed_and_key_stays_usable() {
    let (platform, server, schema) = apart().await;
    let engine = engine(&platform, &schema).await;
    engine.create(request("ann")).await.unwrap();
    server.stop();
    let error = engine.create(request("bob")).await.unwrap_err();
    assert_eq!(error.code().name(), "store_failed", "{error}");
    platform.assert_each_guest_once(1);
    server.restart();
    engine.create(request("bob")).await.unwrap();
    platform.assert_each_guest_once(2);
    assert!(engine.create(request("ann")).await.unwrap().replayed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn create_waits_for_a_restarting_database() {
    let (platform, server, schema) = apart().await;
    let engine = engine(&platform, &schema).await;
    engine.create(request("ann")).await.unwrap();
    server.stop();
    let bob = tokio::spawn(async move { engine.create(request("bob")).await });
    Clock::system().sleep(Duration::from_millis(500)).await;
    assert!(!bob.is_finished());
    server.restart();
    bob.await.unwrap().unwrap();
    platform.assert_each_guest_once(2);
}

/// The primary database server fails during a burst, and its standby takes over. All acknowledged
/// sessions exist there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_to_the_standby_keeps_all_sessions_without_duplicates() {
    let (platform, first, _) = apart().await;
    let second = first.standby();
    let schema = schema_in(&first.url());
    let (_, search_path) = schema.split_once('?').unwrap();
    let both = format!(
        "postgres://guestlane@127.0.0.1:{},127.0.0.1:{}/postgres?{search_path}",
        first.port(),
        second.port()
    );
    let engine = engine(&platform, &both).await;
    const GUESTS: u64 = 300;
    let begun = Arc::new(AtomicU64::new(0));
    let asked = (0..GUESTS).map(|guest| {
        let (engine, begun) = (Arc::clone(&engine), Arc::clone(&begun));
        async move {
            begun.fetch_add(1, Ordering::SeqCst);
            while let Err(error) = engine.create(request(&format!("guest-{guest}"))).await {
                assert_eq!(error.code().name(), "store_failed", "{error}");
                Clock::system().sleep(Duration::from_millis(50)).await;
            }
        }
    });
    let asked = futures_util::stream::iter(asked.collect::<Vec<_>>());
    let burst = tokio::spawn(futures_util::StreamExt::for_each_concurrent(
        asked,
        16,
        |asked| asked,
    ));
    while begun.load(Ordering::SeqCst) < GUESTS / 3 {
        Clock::system().sleep(Duration::from_millis(5)).await;
    }
    first.kill();
    guestlane_testkit::execute(&second.url(), "SELECT pg_promote()");
    burst.await.unwrap();
    platform.assert_each_guest_once(GUESTS);
    let url = format!("{}?{search_path}", second.url());
    for (what, sql) in [
        (
            "open sessions",
            "SELECT count(*) FROM session WHERE state = 'open'",
        ),
        ("events", "SELECT count(*) FROM outbox"),
        (
            "records",
            r#"SELECT count(*) FROM audit_record WHERE line LIKE '%"status":"success"%'"#,
        ),
    ] {
        assert_eq!(
            guestlane_testkit::column(&url, sql),
            [GUESTS.to_string()],
            "{what}"
        );
    }
    for log in engine
        .store()
        .logs(engine.audit_log(), engine.audit_key())
        .await
        .unwrap()
    {
        guestlane_tlog::verify_log(&log.path, engine.audit_key(), &[]).unwrap();
    }
}

/// The standby may not have a commit that waits for it when the connection is given up. The commit
/// may be lost with the primary, so the saga must not continue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreplicated_commit_stops_the_saga_before_platform_calls() {
    let (platform, first, schema) = apart().await;
    let second = first.standby();
    let engine = engine(&platform, &schema).await;
    engine.create(request("ann")).await.unwrap();
    second.stop();
    let error = engine.create(request("bob")).await.unwrap_err();
    assert_eq!(error.code().name(), "store_failed", "{error}");
    platform.assert_each_guest_once(1);
    second.restart();
    engine.create(request("bob")).await.unwrap();
    platform.assert_each_guest_once(2);
}

/// A caller requests a session whose owner is slow, at the moment when the owner commits `open`.
/// The commit must not be overwritten.
#[tokio::test]
async fn claim_does_not_overwrite_a_concurrent_commit_of_open() {
    let platform = TestPlatform::new(Postgres).await;
    let engine = platform.engine().await;
    platform.faults(&["conversation:hang"]);
    let driving = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.create(request("ann")).await }
    });
    platform.hanging().await;
    driving.abort();
    platform.clock.advance(Duration::from_secs(5)); // the owner's lease has expired
    let url = platform.postgres.clone().unwrap();
    // The owner's transaction lasts for half a second of real time.
    let open = "BEGIN; UPDATE session SET state = 'open', conversation_id = 'c', ended_at = admitted_at, lease_expires_at = NULL; SELECT pg_sleep(0.5); COMMIT";
    let writing = tokio::task::spawn_blocking(move || guestlane_testkit::execute(&url, open));
    let locked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    while guestlane_testkit::column(platform.postgres.as_ref().unwrap(), locked)[0] == "0" {
        tokio::task::yield_now().await;
    }
    let asked = engine.create(request("ann")).await.unwrap();
    assert!(
        asked.replayed && asked.session.conversation_id.as_deref() == Some("c"),
        "{asked:?}"
    );
    writing.await.unwrap();
}
