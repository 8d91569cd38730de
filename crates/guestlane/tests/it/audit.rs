//! Verification of the audit log across processes, files, formats and erasures.

use std::{fs, path::Path, time::Duration};

use guestlane::{Error, SessionEngine};
use guestlane_core::{
    api_key::{ApiKey, ApiKeyHasher, Scope, Scopes, StoredApiKey},
    audit::ChangeAction,
    request::SessionRequest,
};
use guestlane_store::{
    DeliveryState, ErasureOutcome, ErasureReport, GuestIdMode, RecordFilter, ReplayFilter,
    SessionFilter,
};
use guestlane_testkit::{
    Backend::{self, Postgres, Sqlite},
    platform::{TestPlatform, fresh, request},
};
use guestlane_tlog::{self, Checkpoint, Tampered, VerificationError};
use rstest::rstest;
use serde_json::Value;

pub(crate) fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[rstest]
#[tokio::test]
async fn concurrent_processes_write_own_logs_and_a_free_log_is_reused(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let (one, two) = (platform.engine().await, platform.engine().await);
    for guest in ["ann", "bob"] {
        one.create(fresh(guest)).await.unwrap();
        two.create(fresh(guest)).await.unwrap();
    }
    let logs = platform.proven_logs().await;
    let origins: Vec<_> = logs
        .iter()
        .map(|log| log.checkpoint.origin.rsplit('/').next().unwrap())
        .collect();
    assert_eq!(origins, ["1", "2"]);
    assert!(logs.iter().all(|log| log.checkpoint.size == 4));
    for engine in [one, two] {
        assert!(engine.outbox().unwrap().wait_for_initial_deliveries().await);
        drop(engine);
    }
    // The background threads of dropped engines end at a later time.
    while platform.proven_logs().await[0].checkpoint.size == 4 {
        platform.engine().await.create(fresh("cy")).await.unwrap();
    }
}

#[rstest]
#[tokio::test]
async fn full_log_is_closed_and_the_next_log_reveals_its_rollback(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = TestPlatform::new(backend).await;
    platform.config.storage.audit.rotate_at = Some(4000);
    let engine = platform.engine().await;
    for _ in 0..30 {
        engine.create(fresh("ann")).await.unwrap();
    }
    let logs = platform.proven_logs().await;
    assert!(
        logs.len() > 4 && logs[..logs.len() - 1].iter().all(|log| log.closed),
        "{logs:?}"
    );
    let records: u64 = logs.iter().map(|log| log.checkpoint.size).sum();
    assert_eq!(
        records,
        60 + logs.len() as u64 - 1,
        "two for each session, one for each log that goes on"
    );
    for pair in logs.windows(2) {
        let first = &lines(&pair[1].path)[0];
        assert_eq!(first["action"], "audit.rotate");
        assert!(first["continues"].as_str().unwrap().starts_with(&format!(
            "{}\n{}\n",
            pair[0].checkpoint.origin, pair[0].checkpoint.size
        )));
    }

    // The log is rolled back to an earlier state, together with its signed checkpoint. Alone it
    // verifies; the next log reveals the rollback.
    let state = platform.state().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("log.jsonl");
    let early: Vec<String> = fs::read_to_string(&logs[0].path)
        .unwrap()
        .lines()
        .take(3)
        .map(str::to_owned)
        .collect();
    let leaves: Vec<_> = early
        .iter()
        .map(|line| guestlane_tlog::leaf_hash(line.as_bytes()))
        .collect();
    fs::write(&path, early.join("\n") + "\n").unwrap();
    let rolled_back = Checkpoint {
        size: 3,
        root: guestlane_tlog::root(&leaves),
        ..logs[0].checkpoint.clone()
    };
    fs::write(
        guestlane_tlog::checkpoint_path(&path),
        state.sign(&rolled_back),
    )
    .unwrap();
    assert!(guestlane_tlog::verify_log(&path, state.audit_key(), &[]).is_ok());
    let kept = guestlane_tlog::rotation_checkpoints(&logs[1].path, state.audit_key());
    let told = guestlane_tlog::verify_log(&path, state.audit_key(), &kept);
    assert!(
        matches!(
            told,
            Err(VerificationError::Tampered(
                _,
                Tampered::Missing { line: 4, .. }
            ))
        ),
        "{told:?}"
    );
}

#[rstest]
#[tokio::test]
async fn inclusion_proof_covers_a_session_across_logs_and_no_other_session(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = TestPlatform::new(backend).await;
    platform.config.storage.audit.rotate_at = Some(400);
    let engine = platform.engine().await;
    let (ann, bob) = (
        engine.create(request("ann")).await.unwrap(),
        engine.create(request("bob")).await.unwrap(),
    );
    let state = platform.state().await;
    let key = state.audit_key();
    let proof = state
        .prove_inclusion(ann.session.id)
        .await
        .unwrap()
        .unwrap();
    let places = proof.verify(key).unwrap();
    assert_eq!(places.len(), 2);
    assert_ne!(places[0].1.origin, places[1].1.origin, "in two logs");
    let mut other = state
        .prove_inclusion(bob.session.id)
        .await
        .unwrap()
        .unwrap();
    other.session_id = proof.session_id.clone();
    assert!(other.verify(key).is_err());
    let somebody = guestlane_tlog::NoteSigner::from_seed(&[1; 32]).unwrap();
    assert!(proof.verify(somebody.public()).is_err());
    let nobody = uuid_of("01a20456-5ef0-7960-b447-2fcf8756fb41");
    assert_eq!(state.prove_inclusion(nobody).await.unwrap(), None);
}

fn uuid_of(text: &str) -> guestlane_core::session::SessionId {
    text.parse().unwrap()
}

#[rstest]
#[tokio::test]
async fn pseudonymous_log_hides_guest_ids_but_store_finds_the_records(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = TestPlatform::new(backend).await;
    platform.config.storage.audit.guest_ids = GuestIdMode::Pseudonymous;
    let engine = platform.engine().await;
    for guest in ["ann", "bob", "ann"] {
        engine.create(fresh(guest)).await.unwrap();
    }
    platform.faults(&["queue:404"]);
    platform
        .engine()
        .await
        .create(fresh("ann"))
        .await
        .unwrap_err(); // the audit log has refusals, too
    let text = fs::read_to_string(platform.audit_path()).unwrap();
    assert!(!text.contains("ann") && !text.contains("bob"), "{text}");
    let records = |guest: &str| {
        let filter = RecordFilter {
            session: None,
            guest: Some(guest.parse().unwrap()),
            limit: 100,
        };
        engine.store().records(filter)
    };
    let names = |records: Vec<guestlane_store::StoredRecord>| {
        let name = |line: &str| {
            serde_json::from_str::<Value>(line).unwrap()["guestIdentifier"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        records
            .iter()
            .map(|record| name(&record.line))
            .collect::<Vec<_>>()
    };
    let (ann, bob) = (
        names(records("ann").await.unwrap()),
        names(records("bob").await.unwrap()),
    );
    assert_eq!((ann.len(), bob.len()), (5, 2));
    assert!(
        ann.iter().all(|name| *name == ann[0])
            && ann[0] != bob[0]
            && ann[0].starts_with("pseudonym:"),
        "{ann:?}"
    );
    assert_eq!(records("nobody").await.unwrap(), []);
}

const CANARY: &str = "canary-7f3a";

pub(crate) fn canary(key: &str) -> SessionRequest {
    SessionRequest {
        key: format!("{CANARY}-{key}").parse().unwrap(),
        attributes: guestlane_core::request::Attributes::from_pairs([(
            "note",
            format!("{CANARY}-note"),
        )])
        .unwrap(),
        ..request(CANARY)
    }
}

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

#[rstest]
#[tokio::test]
async fn unwritable_log_fails_create_before_platform_calls_and_recovers(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    engine.create(request("ann")).await.unwrap();
    let aside = platform.directory.path().join("aside");
    fs::rename(platform.audit_path().parent().unwrap(), &aside).unwrap();
    fs::write(platform.audit_path().parent().unwrap(), "in the way").unwrap();
    let refused = engine.create(request("bob")).await;
    assert!(matches!(refused, Err(Error::Audit(_))), "{refused:?}");
    platform.assert_each_guest_once(1);
    fs::remove_file(platform.audit_path().parent().unwrap()).unwrap();
    engine.create(request("bob")).await.unwrap();
    platform.proven_logs().await;
}

/// An auditor can read in the log which keys the store trusts, and since when.
#[rstest]
#[tokio::test]
async fn key_changes_replays_and_log_restores_are_audited_once(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let (state, now) = (platform.state().await, platform.clock.now());
    let hash = ApiKeyHasher::new(b"secret");
    let key = |name| {
        StoredApiKey::new(
            &ApiKey::generate().unwrap(),
            &hash,
            name,
            Scopes::new([Scope::Admin]).unwrap(),
            now,
        )
    };
    let (old, new) = (key("old"), key("new"));
    state.store.add_api_key(old.clone(), None).await.unwrap();
    state
        .store
        .add_api_key(new.clone(), Some((old.id.clone(), now)))
        .await
        .unwrap();
    for _ in 0..2 {
        state
            .store
            .revoke_api_key(old.id.clone(), now)
            .await
            .unwrap();
    }
    state.revoke_key("webchat-guest-key-v1", now).await.unwrap();
    drop(state);
    let engine = platform.engine().await;
    let opened = engine.create(request("ann")).await.unwrap();
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    let event = engine
        .store()
        .events(None, None, 1)
        .await
        .unwrap()
        .remove(0)
        .event
        .id;
    assert_eq!(
        engine
            .store()
            .replay(ReplayFilter::Event(event.clone()), now)
            .await
            .unwrap(),
        1
    );
    engine
        .store()
        .record_change(ChangeAction::AuditLogRestored, "1".to_owned(), now)
        .await
        .unwrap();
    drop((engine, opened));

    let records = platform.audit();
    let changes: Vec<_> = records
        .iter()
        .filter(|record| record.get("subject").is_some())
        .collect();
    let told: Vec<_> = changes
        .iter()
        .map(|record| {
            (
                record["action"].as_str().unwrap(),
                record["subject"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("api_key.create", old.id.as_str()),
        ("api_key.create", new.id.as_str()),
        ("api_key.revoke", old.id.as_str()),
        ("signing_key.revoke", "webchat-guest-key-v1"),
        ("outbox.replay", event.as_str()),
        ("audit.restore", "1"),
    ];
    assert_eq!(
        told, expected,
        "each once: what was revoked already is not revoked again"
    );
    assert_eq!(
        changes[1]["detail"],
        format!("admin; owner {}; replaces {}", new.id, old.id)
    );
    assert_eq!(
        changes[3]["detail"],
        "webchat-guest-key-v2 signs from now on"
    );
    assert!(!format!("{records:?}").contains("gl_"));
    platform.proven_logs().await;
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
