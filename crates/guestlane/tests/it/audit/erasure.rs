//! Erasure of a guest clears the audit log, and its proofs still verify.

use super::*;

/// Returns the files of the state directory that contain the canary, and the database if it does.
pub(crate) fn files_with_the_canary(platform: &TestPlatform) -> Vec<String> {
    let mut found = files_in(platform.directory.path());
    if platform.postgres.is_some()
        && platform
            .stored_bytes()
            .windows(CANARY.len())
            .any(|window| window == CANARY.as_bytes())
    {
        found.push("the database".to_owned());
    }
    found
}

fn files_in(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_in(&path));
        } else if fs::read(&path)
            .unwrap()
            .windows(CANARY.len())
            .any(|window| window == CANARY.as_bytes())
        {
            found.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    found
}

/// Creates a guest with data of every kind: sessions that are open, failed and set aside, and
/// events that are delivered, pending and dead.
async fn guest_with_history(platform: &TestPlatform) -> std::sync::Arc<SessionEngine> {
    let engine = platform.engine().await;
    engine.create(request("bob")).await.unwrap();
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    platform.faults(&["crm:500"]);
    engine.create(canary("dead")).await.unwrap();
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    for _ in 0..9 {
        platform.clock.advance(Duration::from_secs(27 * 3600));
        engine.outbox().unwrap().deliver_due().await.unwrap();
    }
    assert_eq!(
        engine
            .store()
            .events(Some(DeliveryState::Dead), None, 10)
            .await
            .unwrap()
            .len(),
        1
    );
    platform.faults(&[]);
    engine.create(canary("delivered")).await.unwrap();
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    platform.faults(&["conversation:403:first=1", "crm:500"]);
    engine
        .create(canary("platform_rejected"))
        .await
        .unwrap_err();
    engine.create(canary("waiting")).await.unwrap();
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    platform.faults(&["conversation:answer-lost", "crm:500"]);
    engine
        .create(canary("needs-attention-stored"))
        .await
        .unwrap_err();
    platform.clock.advance(Duration::from_secs(24 * 3600));
    platform.faults(&["crm:500"]);
    let _ = engine.recover_abandoned().await.unwrap();
    engine
}

pub(crate) async fn erase(engine: &SessionEngine, platform: &TestPlatform) -> ErasureReport {
    match engine
        .store()
        .erase_guest(CANARY.parse().unwrap(), platform.clock.now())
        .await
        .unwrap()
    {
        ErasureOutcome::Erased(done) => done,
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[tokio::test]
async fn guest_erasure_clears_all_files_and_proofs_still_verify(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = TestPlatform::new(backend).await;
    platform.config.storage.audit.guest_ids = GuestIdMode::Pseudonymous;
    let engine = guest_with_history(&platform).await;
    let sessions = engine
        .store()
        .sessions(SessionFilter {
            guest: Some(CANARY.to_owned()),
            state: None,
            limit: 10,
            ..SessionFilter::default()
        })
        .await
        .unwrap();
    let state = platform.state().await;
    let proof = state
        .prove_inclusion(sessions.sessions[0].id)
        .await
        .unwrap()
        .unwrap();
    assert!(!files_with_the_canary(&platform).is_empty());

    let done = erase(&engine, &platform).await;
    assert_eq!((done.sessions, done.events, done.undelivered), (5, 3, 2));
    assert!(
        done.bytes_removed && done.plain_records.is_empty() && done.pseudonym.is_some(),
        "{done:?}"
    );
    assert_eq!(files_with_the_canary(&platform), [""; 0]);

    assert!(
        proof.verify(state.audit_key()).is_ok(),
        "a proof that was handed out stays valid"
    );
    assert!(
        state
            .prove_inclusion(sessions.sessions[0].id)
            .await
            .unwrap()
            .unwrap()
            .verify(state.audit_key())
            .is_ok(),
        "and can be made"
    );
    platform.proven_logs().await;
    let record = lines(platform.audit_path()).pop().unwrap();
    assert_eq!(
        (&record["action"], record["guestIdentifier"].as_str()),
        (&"guest.erase".into(), done.pseudonym.as_deref())
    );

    // The erased event is never sent, the guest cannot be found, and other guests are unchanged.
    let event = engine
        .store()
        .events(Some(DeliveryState::Erased), None, 1)
        .await
        .unwrap()
        .remove(0);
    assert_eq!(
        engine
            .store()
            .replay(ReplayFilter::Event(event.event.id), platform.clock.now())
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        engine
            .store()
            .erase_guest(CANARY.parse().unwrap(), platform.clock.now())
            .await
            .unwrap(),
        ErasureOutcome::Unknown
    );
    assert!(engine.create(request("bob")).await.unwrap().replayed);
    let listed = engine
        .store()
        .sessions(SessionFilter {
            guest: None,
            state: None,
            limit: 10,
            ..SessionFilter::default()
        })
        .await
        .unwrap()
        .sessions;
    assert_eq!(listed.len(), 6, "the sessions are counted as before");
}

#[rstest]
#[tokio::test]
async fn erasure_reports_plain_records_that_cannot_be_erased(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = guest_with_history(&platform).await;
    let records = fs::read_to_string(platform.audit_path())
        .unwrap()
        .matches(CANARY)
        .count();
    let done = erase(&engine, &platform).await;
    assert_eq!(done.plain_records, [(1, records as u64)]);
    let database = if platform.postgres.is_some() {
        "the database"
    } else {
        "guestlane.db"
    };
    let found = files_with_the_canary(&platform);
    // The store keeps the lines of the log as they were signed.
    assert!(
        found
            .iter()
            .all(|file| file == "session-audit.jsonl" || file == database),
        "{found:?}"
    );
    let listed = engine
        .store()
        .sessions(SessionFilter {
            guest: Some(CANARY.to_owned()),
            state: None,
            limit: 10,
            ..SessionFilter::default()
        })
        .await
        .unwrap();
    assert!(listed.sessions.is_empty());
    platform.proven_logs().await;
    assert_eq!(
        lines(platform.audit_path()).pop().unwrap()["guestIdentifier"],
        Value::Null,
        "the record of the erasure does not name them"
    );
}

#[rstest]
#[tokio::test]
async fn guest_with_an_unfinished_session_is_not_erased(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    platform.faults(&["conversation:500:first=4"]);
    let error = engine.create(request("ann")).await.unwrap_err();
    let erased = engine
        .store()
        .erase_guest("ann".parse().unwrap(), platform.clock.now())
        .await
        .unwrap();
    assert_eq!(
        erased,
        ErasureOutcome::Unfinished(vec![error.session().unwrap()])
    );
    engine.create(request("ann")).await.unwrap();
}

#[tokio::test]
async fn bytes_held_by_a_reader_are_erased_after_the_next_start() {
    let mut platform = TestPlatform::new(Sqlite).await;
    platform.config.storage.audit.guest_ids = GuestIdMode::Pseudonymous;
    let engine = platform.engine().await;
    engine.create(canary("one")).await.unwrap();
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    let reader =
        rusqlite::Connection::open(platform.config.storage.database.file().unwrap()).unwrap();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM session")
        .unwrap();
    assert!(!erase(&engine, &platform).await.bytes_removed);
    assert!(
        !files_with_the_canary(&platform).is_empty(),
        "another process still reads them"
    );
    drop(reader);
    platform.engine().await;
    assert_eq!(files_with_the_canary(&platform), [""; 0]);
}
