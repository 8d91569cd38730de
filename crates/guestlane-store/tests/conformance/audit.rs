//! The audit log: what the store has and what its files have agree, and can be proven.

use guestlane_core::audit::{AuditRecord, ChangeAction};
use guestlane_genesys::ErrorCounts;
use guestlane_store::{RecordFilter, RestoreOutcome, verify_all};
use guestlane_tlog::root;
use rstest::rstest;

use crate::kit::{Backend, Postgres, Sqlite, TestStore, request, verifier};

#[rstest]
#[tokio::test]
async fn records_are_selected_by_session_and_guest_oldest_first(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let test = TestStore::open(backend).await;
    let session = test.admit(request("ann")).await;
    test.admit(request("bob")).await;
    test.complete(session.clone(), 0).await;
    let all = RecordFilter {
        limit: 10,
        ..RecordFilter::default()
    };
    let of_session = RecordFilter {
        session: Some(session.id),
        ..all.clone()
    };
    let of_guest = RecordFilter {
        guest: Some(session.request.guest.clone()),
        ..all.clone()
    };
    let last = RecordFilter {
        limit: 1,
        ..all.clone()
    };
    let statuses = |filter| async {
        let records = test.store.records(filter).await.unwrap();
        let status = |line: &str| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            record["status"].as_str().unwrap().to_owned()
        };
        records
            .iter()
            .map(|record| status(&record.line))
            .collect::<Vec<_>>()
    };
    assert_eq!(statuses(all).await, ["pending", "pending", "success"]);
    assert_eq!(statuses(of_session).await, ["pending", "success"]);
    assert_eq!(statuses(of_guest).await, ["pending", "success"]);
    assert_eq!(statuses(last).await, ["success"]);
}

#[rstest]
#[tokio::test]
async fn attempt_that_ends_before_its_session_exists_is_recorded(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let test = TestStore::open(backend).await;
    let errors = ErrorCounts {
        total: 2,
        auth: 2,
        ..ErrorCounts::default()
    };
    let wanted = request("ann");
    let entry = AuditRecord::refused(
        &wanted.guest,
        wanted.queue,
        "no such queue".to_owned(),
        errors,
        test.now(),
    );
    test.store.record_refusal(entry, errors).await.unwrap();
    let record = test.store.records(RecordFilter {
        limit: 10,
        ..RecordFilter::default()
    });
    assert!(record.await.unwrap()[0].line.contains("no such queue"));
    assert_eq!(test.store.error_counts().await.unwrap(), errors);
    assert_eq!(test.store.unfinished().await.unwrap(), 0);
}

#[rstest]
#[tokio::test]
async fn logs_verify_against_files_key_and_store(#[values(Sqlite, Postgres)] backend: Backend) {
    let test = TestStore::open(backend).await;
    for guest in ["ann", "bob"] {
        let session = test.admit(request(guest)).await;
        test.complete(session, 1).await;
    }
    let change = test.store.record_change(
        ChangeAction::MasterKeyRotated,
        "a key".to_owned(),
        test.now(),
    );
    change.await.unwrap();
    let (key, file) = (verifier(), test.log_file());
    let logs = test.store.logs(&file, &key).await.unwrap();
    assert_eq!(logs.len(), 1);
    assert_eq!((logs[0].checkpoint.size, logs[0].closed), (5, false));
    let leaves = test.store.leaves(logs[0].log).await.unwrap();
    assert_eq!(root(&leaves), logs[0].checkpoint.root);
    let clock = test.clock.clone().into();
    let verified = verify_all(&test.store, &file, &key, Vec::new(), &clock)
        .await
        .unwrap();
    assert_eq!(verified[0].1.as_ref().unwrap(), &logs[0].checkpoint);
}

#[rstest]
#[tokio::test]
async fn lost_files_are_restored_from_the_store(#[values(Sqlite, Postgres)] backend: Backend) {
    let test = TestStore::open(backend).await;
    let session = test.admit(request("ann")).await;
    test.complete(session, 0).await;
    let logs = test
        .store
        .logs(&test.log_file(), &verifier())
        .await
        .unwrap();
    let (log, path) = (logs[0].log, logs[0].path.clone());
    let before = std::fs::read(&path).unwrap();
    let other = test.opened_to_look().await;
    let unknown = other.restore_log(99).await.unwrap();
    assert!(matches!(unknown, RestoreOutcome::Unknown), "{unknown:?}");
    let refused = other.restore_log(log).await.unwrap();
    assert!(
        matches!(refused, RestoreOutcome::FileExists(_)),
        "{refused:?}"
    );

    for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("audit") && !name.ends_with(".lock") {
            std::fs::remove_file(file).unwrap();
        }
    }
    let owned = other.restore_log(log).await.unwrap();
    assert!(matches!(owned, RestoreOutcome::Busy), "{owned:?}");
    let directory = test.close(); // Its threads end, and give up the log.
    let restored = loop {
        match other.restore_log(log).await.unwrap() {
            RestoreOutcome::Busy => tokio::task::yield_now().await,
            outcome => break outcome,
        }
    };
    let two = matches!(restored, RestoreOutcome::Restored { records: 2, .. });
    assert!(two, "{restored:?}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    drop(directory);
}
