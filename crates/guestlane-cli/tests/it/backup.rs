//! `docs/backup.md`: a backup taken while the service runs, and its restore.

use std::{
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use guestlane_testkit::{
    cli::{Exited, TestCli},
    serve::{TestServe, pause},
};
use rusqlite::Connection;
use serde_json::Value;

/// Copies the audit log's files first and the store after them.
fn back_up(state: &Path, copy: &Path) {
    fs::create_dir_all(copy.join("audit")).unwrap();
    copy_files(&state.join("audit"), &copy.join("audit"));
    let store = Connection::open(state.join("guestlane.db")).unwrap();
    store
        .execute(
            "VACUUM INTO ?1",
            [copy.join("guestlane.db").to_str().unwrap()],
        )
        .unwrap();
    fs::copy(state.join("master.key"), copy.join("master.key")).unwrap();
}

fn copy_files(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap().flatten() {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// Creates sessions while `meanwhile` runs. Returns the key and conversation of each created
/// session.
fn create_sessions_during(
    service: &TestServe,
    meanwhile: impl FnOnce(&Mutex<Vec<(String, Value)>>),
) -> Vec<(String, Value)> {
    let (answered, done) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for caller in 0..3 {
            let (answered, done) = (&answered, &done);
            scope.spawn(move || {
                for number in 0.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("{caller}-{number}");
                    let (status, session) = service.create(&name, &name);
                    assert_eq!(status, 201, "{session}");
                    answered
                        .lock()
                        .unwrap()
                        .push((name, session["conversationId"].clone()));
                }
            });
        }
        meanwhile(&answered);
        done.store(true, Ordering::Relaxed);
    });
    answered.into_inner().unwrap()
}

fn wait_for(answered: &Mutex<Vec<(String, Value)>>, more: usize) -> usize {
    let before = answered.lock().unwrap().len();
    while answered.lock().unwrap().len() < before + more {
        pause(5);
    }
    answered.lock().unwrap().len()
}

#[test]
fn restored_backup_keeps_sessions_and_creates_no_duplicate_guests() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let settings = [("GUESTLANE_PLATFORM_RATE_LIMIT", "off")];
    let service = TestServe::start(&cli, "state", &settings);
    let (mut before, mut after) = (0, 0);
    let answered = create_sessions_during(&service, |answered| {
        before = wait_for(answered, 40);
        back_up(
            &cli.directory.path().join("state"),
            &cli.directory.path().join("restored"),
        );
        // Sessions that were in flight during the backup.
        wait_for(answered, 3);
        after = wait_for(answered, 20);
    });
    // This simulates the loss of the machine.
    drop(service);

    let restored = TestServe::start(&cli, "restored", &settings);
    for (key, conversation) in &answered[..before] {
        let (status, session) = restored.create(key, key);
        assert_eq!(
            (status, &session["conversationId"]),
            (200, conversation),
            "{key}: {session}"
        );
    }
    // The restored store does not know later sessions. The platform remembers their idempotency
    // keys for 24 hours, and creates no duplicates.
    let mut forgotten = 0;
    for (key, conversation) in &answered[before..] {
        let (status, session) = restored.create(key, key);
        if status == 409 {
            assert_eq!(session["code"], "idempotency_key_conflict", "{session}");
            forgotten += 1;
        } else {
            assert_eq!(&session["conversationId"], conversation, "{key}: {session}");
        }
    }
    assert!(
        forgotten >= answered.len() - after,
        "{forgotten} of {}",
        answered.len()
    );
    assert_eq!(restored.create("new-guest", "new-guest").0, 201);
    let state = cli.state();
    assert_eq!(
        state["duplicates"]["guests"],
        serde_json::json!([]),
        "{state}"
    );
    assert_eq!(
        state["conversations"].as_u64().unwrap(),
        answered.len() as u64 + 1,
        "{state}"
    );
    restored.end();
    cli.run(&["audit", "verify", "--state-dir", "restored"])
        .ok();
}

#[test]
fn audit_files_ahead_of_restored_store_block_creates_until_moved() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let (state, restored) = (
        cli.directory.path().join("state"),
        cli.directory.path().join("restored"),
    );
    let create = |guest: &str, directory: &str| {
        cli.run(&[
            "create",
            "--guest",
            guest,
            "--state-dir",
            directory,
            "--json",
        ])
    };
    create("ann", "state").ok();
    back_up(&state, &restored);
    create("bob", "state").ok();
    // The audit log on the old disk is newer than the backup.
    copy_files(&state.join("audit"), &restored.join("audit"));
    let ahead = fs::read(restored.join("audit/session-audit.jsonl")).unwrap();

    let refused = create("carol", "restored");
    assert!(
        refused.code == 1 && refused.stdout.contains("audit_unavailable"),
        "{}{}",
        refused.stdout,
        refused.stderr
    );
    assert!(
        refused
            .stderr
            .contains("its last record is not in the store"),
        "{}",
        refused.stderr
    );
    assert_eq!(cli.state()["conversations"], 2, "nothing was created");
    assert_eq!(
        fs::read(restored.join("audit/session-audit.jsonl")).unwrap(),
        ahead,
        "it may be evidence"
    );

    fs::rename(restored.join("audit"), restored.join("audit-before")).unwrap();
    create("dora", "restored").ok();
    let verified = cli
        .run(&["audit", "verify", "--state-dir", "restored"])
        .ok()
        .stdout;
    assert!(
        verified.contains("6 records, as they were written"),
        "ann's, carol's and dora's: {verified}"
    );
}

#[test]
fn web_messaging_key_missing_in_backup_opens_second_conversation() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let create = |directory: &str| {
        let mut create = cli.command(&[
            "create",
            "--guest",
            "bob",
            "--idempotency-key",
            "order-1",
            "--json",
        ]);
        let create = create.envs([
            ("GUESTLANE_SURFACE", "web-messaging"),
            ("GUESTLANE_STATE_DIR", directory),
        ]);
        Exited::of(create.output().unwrap()).ok().json()
    };
    let first = create("state");
    assert_eq!(
        create("state")["conversationId"],
        first["conversationId"],
        "the store knows the key"
    );
    // The restored store does not know the key.
    let lost = create("restored");
    assert_eq!(lost["contactId"], first["contactId"]);
    assert_ne!(lost["conversationId"], first["conversationId"]);
}
