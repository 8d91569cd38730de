//! Verification of the audit log across processes, files, formats and erasures.

mod erasure;

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
    let other_signer = guestlane_tlog::NoteSigner::from_seed(&[1; 32]).unwrap();
    assert!(proof.verify(other_signer.public()).is_err());
    let unknown = uuid_of("01a20456-5ef0-7960-b447-2fcf8756fb41");
    assert_eq!(state.prove_inclusion(unknown).await.unwrap(), None);
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
    assert_eq!(records("unknown").await.unwrap(), []);
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
