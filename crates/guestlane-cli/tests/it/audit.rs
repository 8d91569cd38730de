//! `guestlane audit`, with the state directory, and with log files and a verifier key alone.

use std::{fs, path::Path};

use serde_json::json;

use crate::harness::{Ended, Office, run_in};

const LOG: &str = "audit/session-audit.jsonl";

/// Copies the log files and the verifier key to an otherwise empty directory.
fn handed_over(office: &Office) -> tempfile::TempDir {
    let elsewhere = tempfile::tempdir().unwrap();
    for file in [
        LOG,
        "audit/session-audit.jsonl.checkpoint",
        "audit/session-audit.jsonl.hashes",
    ] {
        fs::copy(
            office.directory.path().join(file),
            elsewhere.path().join(Path::new(file).file_name().unwrap()),
        )
        .unwrap();
    }
    fs::write(
        elsewhere.path().join("auditor.key"),
        office.run(&["audit", "key"]).ok().stdout,
    )
    .unwrap();
    elsewhere
}

fn verify(directory: &tempfile::TempDir, arguments: &[&str]) -> Ended {
    let arguments = [
        &[
            "audit",
            "verify",
            "session-audit.jsonl",
            "--key",
            "auditor.key",
        ],
        arguments,
    ]
    .concat();
    run_in(directory.path(), &arguments, &[])
}

fn office_with_sessions(guests: &[&str]) -> Office {
    let office = Office::open(&[]);
    for guest in guests {
        office.run(&["create", "--guest", guest]).ok();
    }
    office
}

#[test]
fn a_stranger_with_files_and_a_key_finds_what_was_changed() {
    let office = office_with_sessions(&["ann", "bob", "cy"]);
    assert!(
        office
            .run(&["audit", "verify"])
            .ok()
            .stdout
            .contains("6 records, as they were written")
    );
    let elsewhere = handed_over(&office);
    let good = verify(&elsewhere, &["--json"]).ok().json();
    assert_eq!(
        (&good["proven"], &good["records"]),
        (&json!(true), &json!(6))
    );
    assert!(
        !elsewhere.path().join(".guestlane").exists(),
        "no state directory is made"
    );

    let path = elsewhere.path().join("session-audit.jsonl");
    let written = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<&str> = written.lines().collect();
    let edited = written.replacen("\"bob\"", "\"eve\"", 1);
    let dropped: Vec<&str> = [&lines[..1], &lines[2..]].concat();
    lines.swap(2, 4);
    let appended = format!("{written}{}\n", written.lines().next().unwrap());
    for (changed, problem, line) in [
        (edited, "line 3 was changed", 3),
        (
            dropped.join("\n") + "\n",
            "line 2 is out of place: it has the record that was written as line 3",
            2,
        ),
        (
            lines.join("\n") + "\n",
            "line 3 is out of place: it has the record that was written as line 5",
            3,
        ),
        (
            appended,
            "line 7 is not covered by the checkpoint, which was signed for 6 records",
            7,
        ),
        (
            written[..written.len() - 5].to_owned(),
            "line 6 is incomplete",
            6,
        ),
        (
            written
                .lines()
                .take(4)
                .map(|line| format!("{line}\n"))
                .collect(),
            "line 5 is missing: the log had 6 records",
            5,
        ),
    ] {
        fs::write(&path, changed).unwrap();
        let told = verify(&elsewhere, &["--json"]);
        assert!(
            told.code == 1 && told.stderr.contains(problem),
            "{problem}: {}",
            told.stderr
        );
        assert_eq!(
            (&told.json()["line"], &told.json()["proven"]),
            (&json!(line), &json!(false))
        );
    }
    fs::write(&path, &written).unwrap();
    verify(&elsewhere, &[]).ok();
}

#[test]
fn a_checkpoint_that_somebody_kept_tells_of_a_log_that_was_rolled_back_with_its_own() {
    let office = office_with_sessions(&["ann"]);
    let early = handed_over(&office);
    office.run(&["create", "--guest", "bob"]).ok();
    let late = handed_over(&office);
    let kept = late.path().join("session-audit.jsonl.checkpoint");
    verify(&early, &[]).ok();
    let told = verify(&early, &["--checkpoint", kept.to_str().unwrap()]);
    assert!(
        told.code == 1
            && told
                .stderr
                .contains("line 3 is missing: the log had 4 records"),
        "{}",
        told.stderr
    );
    let kept = early.path().join("session-audit.jsonl.checkpoint");
    verify(&late, &["--checkpoint", kept.to_str().unwrap()]).ok();
}

#[test]
fn a_proof_is_checked_offline_and_a_changed_one_proves_nothing() {
    let office = office_with_sessions(&["ann", "bob"]);
    let session = office
        .run(&["sessions", "list", "--guest", "ann", "--json"])
        .ok()
        .json();
    let proof = office
        .run(&["audit", "prove", session["sessionId"].as_str().unwrap()])
        .ok()
        .stdout;
    let elsewhere = handed_over(&office);
    let check = |proof: &str| {
        fs::write(elsewhere.path().join("proof.json"), proof).unwrap();
        run_in(
            elsewhere.path(),
            &[
                "audit",
                "verify",
                "--proof",
                "proof.json",
                "--key",
                "auditor.key",
            ],
            &[],
        )
    };
    let good = check(&proof).ok().stdout;
    assert!(
        good.contains("record 0 of guestlane/") && good.contains("record 1 of guestlane/"),
        "{good}"
    );
    let changed = check(&proof.replace("success", "failed"));
    assert!(
        changed.code == 1 && changed.stderr.contains("the line is not in the log"),
        "{}",
        changed.stderr
    );
    assert_eq!(check("no proof").code, 2);
    let unknown = office.run(&["audit", "prove", "01a20456-5ef0-7960-b447-2fcf8756fb41"]);
    assert!(
        unknown.code == 2 && unknown.stderr.contains("has no record in the audit log"),
        "{}",
        unknown.stderr
    );
}

#[test]
fn what_cannot_be_checked_is_told_by_its_name() {
    let office = office_with_sessions(&["ann"]);
    let elsewhere = handed_over(&office);
    let bad = |arguments: &[&str]| {
        run_in(
            elsewhere.path(),
            &[&["audit", "verify"], arguments].concat(),
            &[],
        )
    };
    let (log, key) = ("session-audit.jsonl", "auditor.key");
    let other = office_with_sessions(&["ann"])
        .run(&["audit", "key"])
        .ok()
        .stdout;
    for (arguments, code, told) in [
        (vec![log, "--key", "nonsense"], 2, "--key"),
        (
            vec!["gone.jsonl", "--key", key],
            2,
            "gone.jsonl is not a file",
        ),
        (
            vec![log, "--key", "gone.key"],
            2,
            "neither a verifier key nor an existing file",
        ),
        (vec![log], 2, "has no store"),
        (
            vec![log, "--key", other.trim()],
            1,
            "not signed by this key",
        ),
        (
            vec![log, "--key", key, "--checkpoint", "gone"],
            2,
            "--checkpoint gone",
        ),
        (
            vec![log, "--key", key, "--checkpoint", log],
            2,
            "not signed by this key",
        ),
        (vec!["--proof", "gone", "--key", key], 2, "--proof gone"),
    ] {
        let ended = bad(&arguments);
        assert!(
            ended.code == code && ended.stderr.contains(told),
            "{arguments:?}: {} {}",
            ended.code,
            ended.stderr
        );
    }
    fs::remove_file(elsewhere.path().join("session-audit.jsonl.checkpoint")).unwrap();
    assert!(
        bad(&[log, "--key", key])
            .stderr
            .contains("the log cannot be verified without a checkpoint")
    );
}

#[test]
fn on_the_machine_that_wrote_it_verify_mends_nothing_and_finds_what_files_alone_cannot_know() {
    let office = office_with_sessions(&["ann"]);
    let early = handed_over(&office);
    office.run(&["create", "--guest", "bob"]).ok();
    let here = |name: &str| office.directory.path().join("audit").join(name);
    // A log that was rolled back together with its checkpoint is consistent in itself.
    for name in [
        "session-audit.jsonl",
        "session-audit.jsonl.checkpoint",
        "session-audit.jsonl.hashes",
    ] {
        fs::copy(early.path().join(name), here(name)).unwrap();
    }
    for look in [
        vec!["audit", "verify", "--json"],
        vec!["audit", "key"],
        vec!["audit", "show"],
        vec!["sessions", "list"],
        vec!["audit", "verify", "--json"],
    ] {
        let looked = office.run(&look);
        assert_eq!(
            looked.code,
            i32::from(look[1] == "verify"),
            "{look:?} {}",
            looked.stderr
        );
        assert_eq!(
            office.read(LOG).lines().count(),
            2,
            "{look:?} changed the file"
        );
        if look[1] == "verify" {
            assert!(
                looked
                    .stderr
                    .contains("ends with record 2, the store has 4"),
                "{}",
                looked.stderr
            );
            assert_eq!(looked.json()["line"], 3);
        }
    }
    // The next command that writes repairs the log, and reports it.
    let mended = office.run(&["create", "--guest", "cy"]).ok();
    assert!(
        mended.stderr.contains("were behind the store"),
        "{}",
        mended.stderr
    );
    office.run(&["audit", "verify"]).ok();

    // Replace the log by another log of the same key.
    office.write("rows.csv", "guest_id\ndan\neve\nfay\n");
    Ended::of(
        office
            .command(&["batch", "rows.csv", "--max-concurrency", "1"])
            .env("GUESTLANE_AUDIT_MAX_FILE_SIZE", "1KiB")
            .output()
            .unwrap(),
    )
    .ok();
    for ending in ["", ".checkpoint", ".hashes"] {
        fs::copy(
            here(&format!("session-audit.2.jsonl{ending}")),
            here(&format!("session-audit.jsonl{ending}")),
        )
        .unwrap();
    }
    let told = office.run(&["audit", "verify"]);
    assert!(
        told.code == 1 && told.stderr.contains("/2, not guestlane/"),
        "{}",
        told.stderr
    );
}

#[test]
fn a_record_that_was_changed_in_the_store_is_proven_to_nobody() {
    let office = office_with_sessions(&["ann"]);
    let session = office.run(&["sessions", "list", "--json"]).ok().json();
    let store = rusqlite::Connection::open(office.directory.path().join(".guestlane/guestlane.db"))
        .unwrap();
    store
        .execute(
            "UPDATE audit_record SET line = replace(line, 'ann', 'eve')",
            [],
        )
        .unwrap();
    for command in [
        vec!["audit", "prove", session["sessionId"].as_str().unwrap()],
        vec!["audit", "verify"],
    ] {
        let refused = office.run(&command);
        assert!(
            refused.code == 1 && refused.stderr.contains("they were changed"),
            "{command:?}: {}",
            refused.stderr
        );
    }
}

#[test]
fn files_that_were_moved_away_are_restored_from_the_store() {
    let office = office_with_sessions(&["ann"]);
    let rotating = |arguments: &[&str]| {
        Ended::of(
            office
                .command(arguments)
                .env("GUESTLANE_AUDIT_MAX_FILE_SIZE", "1KiB")
                .output()
                .unwrap(),
        )
    };
    office.write("rows.csv", "guest_id\nbob\ncy\ndan\neve\n");
    rotating(&["batch", "rows.csv", "--max-concurrency", "1"]).ok();
    let written = office.read(LOG);
    office.run(&["audit", "verify"]).ok();

    // A closed log file, which is not opened again at a start.
    fs::write(
        office.directory.path().join(LOG),
        written.replace("ann", "eve"),
    )
    .unwrap();
    rotating(&["create", "--guest", "fay"]).ok();
    let told = office.run(&["audit", "verify"]);
    assert!(
        told.code == 1 && told.stderr.contains("line 1 was changed"),
        "{}",
        told.stderr
    );
    let in_the_way = office.run(&["audit", "rebuild", "1"]);
    assert!(
        in_the_way.code == 2 && in_the_way.stderr.contains("exists"),
        "{}",
        in_the_way.stderr
    );
    for ending in ["", ".checkpoint", ".hashes"] {
        let file = office.directory.path().join(format!("{LOG}{ending}"));
        fs::rename(&file, file.with_extension("evidence")).unwrap();
    }
    let missed = office.run(&["audit", "verify", "--json"]);
    assert!(
        missed.code == 1 && missed.stderr.contains("audit rebuild 1"),
        "{}",
        missed.stderr
    );
    assert!(
        missed.stdout.contains(r#""proven":false"#),
        "{}",
        missed.stdout
    );
    office.run(&["audit", "rebuild", "1"]).ok();
    assert_eq!(office.read(LOG), written);
    office.run(&["audit", "verify"]).ok();
    assert_eq!(office.run(&["audit", "rebuild", "99"]).code, 2);
}

#[test]
fn who_looks_where_there_is_no_store_makes_none() {
    let directory = tempfile::tempdir().unwrap();
    for command in [
        vec!["audit", "verify"],
        vec!["audit", "key"],
        vec!["sessions", "list"],
        vec!["outbox", "list"],
        vec!["stats"],
        vec!["guests", "erase", "ann", "--yes"],
    ] {
        let refused = run_in(directory.path(), &command, &[]);
        assert!(
            refused.code == 2 && refused.stderr.contains("has no store"),
            "{command:?}: {}",
            refused.stderr
        );
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_guest_is_erased_by_name_and_what_stays_is_said() {
    let office = office_with_sessions(&["ann", "bob"]);
    let unknown = office.run(&["guests", "erase", "nobody"]);
    assert!(
        unknown.code == 2 && unknown.stderr.contains("is not a guest of this store"),
        "{}",
        unknown.stderr
    );
    let erased = office.run(&["guests", "erase", "ann", "--yes"]).ok();
    assert!(
        erased.stdout.contains("erased from 1 session and 1 event"),
        "{}",
        erased.stdout
    );
    assert!(
        erased
            .stderr
            .contains("2 records with the guest's ID in plain text"),
        "{}",
        erased.stderr
    );
    let json = office
        .run(&["guests", "erase", "bob", "--json", "--yes"])
        .ok()
        .json();
    assert_eq!(
        (
            &json["sessions"],
            &json["stillReadable"][0]["records"],
            &json["bytesGone"]
        ),
        (&json!(1), &json!(2), &json!(true))
    );
    office.run(&["audit", "verify"]).ok();

    // The refused session of an erased guest cannot be resumed.
    office.faults(&["conversation:403"]);
    office.run(&["create", "--guest", "dan"]);
    let session = office
        .run(&["sessions", "list", "--guest", "dan", "--json"])
        .ok()
        .json();
    office.run(&["guests", "erase", "dan", "--yes"]).ok();
    office.faults(&[]);
    let before = office.state()["contacts"].clone();
    let refused = office.run(&["sessions", "resume", session["sessionId"].as_str().unwrap()]);
    assert!(
        refused.code == 2 && refused.stderr.contains("erased guest"),
        "{}",
        refused.stderr
    );
    assert_eq!(office.state()["contacts"], before);

    office.faults(&["conversation:500"]);
    let settings = [("GUESTLANE_MAX_RETRIES", "0")];
    Ended::of(
        office
            .command(&["create", "--guest", "cy"])
            .envs(settings)
            .output()
            .unwrap(),
    );
    let unfinished = office.run(&["guests", "erase", "cy"]);
    assert!(
        unfinished.code == 2 && unfinished.stderr.contains("sessions resume"),
        "{}",
        unfinished.stderr
    );
}

#[test]
fn events_of_a_time_are_counted_first_and_sent_again_when_that_is_said() {
    let office = office_with_sessions(&["ann", "bob"]);
    let replay = |arguments: &[&str]| office.run(&[&["outbox", "replay"], arguments].concat());
    let since = ["--since", "2020-01-01T00:00:00Z"];
    assert!(
        replay(&since)
            .stdout
            .contains("2 events would be sent again")
    );
    assert_eq!(
        replay(&[&since[..], &["--json"]].concat()).json(),
        json!({"events": 2, "done": false})
    );
    assert_eq!(office.state()["crm"]["repeated"], 0);
    assert!(
        replay(&[&since[..], &["--yes"]].concat())
            .ok()
            .stdout
            .contains("2 events are pending again")
    );
    office.run(&["outbox", "deliver"]).ok();
    assert_eq!(office.state()["crm"]["repeated"], 2);
    assert!(
        replay(&[
            "--since",
            "2020-01-01T00:00:00Z",
            "--until",
            "2020-01-02T00:00:00Z"
        ])
        .ok()
        .stderr
        .contains("No matching events")
    );
    for (arguments, told) in [
        (vec!["--since", "yesterday"], "--since"),
        (
            vec!["--since", "2020-01-01T00:00:00Z", "--state", "erased"],
            "--state",
        ),
        (vec![], "required"),
        (
            vec!["msg_1", "--since", "2020-01-01T00:00:00Z"],
            "cannot be used with",
        ),
    ] {
        let refused = replay(&arguments);
        assert!(
            refused.code == 2 && refused.stderr.contains(told),
            "{arguments:?}: {}",
            refused.stderr
        );
    }
}
