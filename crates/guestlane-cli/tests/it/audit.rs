//! `guestlane audit`, with the state directory, and with log files and a verifier key alone.

use std::{fs, path::Path};

use guestlane_testkit::cli::{Exited, TestCli, run_in};
use serde_json::json;

const LOG: &str = "audit/session-audit.jsonl";

/// Copies the log files and the verifier key to an otherwise empty directory.
fn copy_audit_files(cli: &TestCli) -> tempfile::TempDir {
    let another = tempfile::tempdir().unwrap();
    for file in [
        LOG,
        "audit/session-audit.jsonl.checkpoint",
        "audit/session-audit.jsonl.hashes",
    ] {
        fs::copy(
            cli.directory.path().join(file),
            another.path().join(Path::new(file).file_name().unwrap()),
        )
        .unwrap();
    }
    fs::write(
        another.path().join("auditor.key"),
        cli.run(&["audit", "key"]).ok().stdout,
    )
    .unwrap();
    another
}

fn verify(directory: &tempfile::TempDir, arguments: &[&str]) -> Exited {
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

fn cli_with_sessions(guests: &[&str]) -> TestCli {
    let cli = TestCli::open(&[]);
    for guest in guests {
        cli.run(&["create", "--guest", guest]).ok();
    }
    cli
}

#[test]
fn audit_verify_of_copied_files_reports_the_changed_line() {
    let cli = cli_with_sessions(&["ann", "bob", "cy"]);
    assert!(
        cli.run(&["audit", "verify"])
            .ok()
            .stdout
            .contains("6 records, as they were written")
    );
    let another = copy_audit_files(&cli);
    let good = verify(&another, &["--json"]).ok().json();
    assert_eq!(
        (&good["proven"], &good["records"]),
        (&json!(true), &json!(6))
    );
    assert!(
        !another.path().join(".guestlane").exists(),
        "no state directory is made"
    );

    let path = another.path().join("session-audit.jsonl");
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
        let reported = verify(&another, &["--json"]);
        assert!(
            reported.code == 1 && reported.stderr.contains(problem),
            "{problem}: {}",
            reported.stderr
        );
        assert_eq!(
            (&reported.json()["line"], &reported.json()["proven"]),
            (&json!(line), &json!(false))
        );
    }
    fs::write(&path, &written).unwrap();
    verify(&another, &[]).ok();
}

#[test]
fn later_checkpoint_detects_log_rolled_back_with_its_checkpoint() {
    let cli = cli_with_sessions(&["ann"]);
    let early = copy_audit_files(&cli);
    cli.run(&["create", "--guest", "bob"]).ok();
    let late = copy_audit_files(&cli);
    let kept = late.path().join("session-audit.jsonl.checkpoint");
    verify(&early, &[]).ok();
    let reported = verify(&early, &["--checkpoint", kept.to_str().unwrap()]);
    assert!(
        reported.code == 1
            && reported
                .stderr
                .contains("line 3 is missing: the log had 4 records"),
        "{}",
        reported.stderr
    );
    let kept = early.path().join("session-audit.jsonl.checkpoint");
    verify(&late, &["--checkpoint", kept.to_str().unwrap()]).ok();
}

#[test]
fn inclusion_proof_verifies_offline_and_altered_proof_fails() {
    let cli = cli_with_sessions(&["ann", "bob"]);
    let session = cli
        .run(&["sessions", "list", "--guest", "ann", "--json"])
        .ok()
        .json();
    let proof = cli
        .run(&["audit", "prove", session["sessionId"].as_str().unwrap()])
        .ok()
        .stdout;
    let another = copy_audit_files(&cli);
    let check = |proof: &str| {
        fs::write(another.path().join("proof.json"), proof).unwrap();
        run_in(
            another.path(),
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
    let unknown = cli.run(&["audit", "prove", "01a20456-5ef0-7960-b447-2fcf8756fb41"]);
    assert!(
        unknown.code == 2 && unknown.stderr.contains("has no record in the audit log"),
        "{}",
        unknown.stderr
    );
}

#[test]
fn audit_verify_names_each_unusable_input() {
    let cli = cli_with_sessions(&["ann"]);
    let another = copy_audit_files(&cli);
    let bad = |arguments: &[&str]| {
        run_in(
            another.path(),
            &[&["audit", "verify"], arguments].concat(),
            &[],
        )
    };
    let (log, key) = ("session-audit.jsonl", "auditor.key");
    let other = cli_with_sessions(&["ann"])
        .run(&["audit", "key"])
        .ok()
        .stdout;
    for (arguments, code, reported) in [
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
        let exited = bad(&arguments);
        assert!(
            exited.code == code && exited.stderr.contains(reported),
            "{arguments:?}: {} {}",
            exited.code,
            exited.stderr
        );
    }
    fs::remove_file(another.path().join("session-audit.jsonl.checkpoint")).unwrap();
    assert!(
        bad(&[log, "--key", key])
            .stderr
            .contains("the log cannot be verified without a checkpoint")
    );
}

#[test]
fn audit_verify_detects_rollback_and_swap_without_repairing_the_log() {
    let cli = cli_with_sessions(&["ann"]);
    let early = copy_audit_files(&cli);
    cli.run(&["create", "--guest", "bob"]).ok();
    let here = |name: &str| cli.directory.path().join("audit").join(name);
    // A log that was rolled back together with its checkpoint is consistent in itself.
    for name in [
        "session-audit.jsonl",
        "session-audit.jsonl.checkpoint",
        "session-audit.jsonl.hashes",
    ] {
        fs::copy(early.path().join(name), here(name)).unwrap();
    }
    for arguments in [
        vec!["audit", "verify", "--json"],
        vec!["audit", "key"],
        vec!["audit", "show"],
        vec!["sessions", "list"],
        vec!["audit", "verify", "--json"],
    ] {
        let result = cli.run(&arguments);
        assert_eq!(
            result.code,
            i32::from(arguments[1] == "verify"),
            "{arguments:?} {}",
            result.stderr
        );
        assert_eq!(
            cli.read(LOG).lines().count(),
            2,
            "{arguments:?} changed the file"
        );
        if arguments[1] == "verify" {
            assert!(
                result
                    .stderr
                    .contains("ends with record 2, the store has 4"),
                "{}",
                result.stderr
            );
            assert_eq!(result.json()["line"], 3);
        }
    }
    // The next command that writes repairs the log, and reports it.
    let repaired = cli.run(&["create", "--guest", "cy"]).ok();
    assert!(
        repaired.stderr.contains("were behind the store"),
        "{}",
        repaired.stderr
    );
    cli.run(&["audit", "verify"]).ok();

    // Replace the log by another log of the same key.
    cli.write("rows.csv", "guest_id\ndan\neve\nfay\n");
    Exited::of(
        cli.command(&["batch", "rows.csv", "--max-concurrency", "1"])
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
    let reported = cli.run(&["audit", "verify"]);
    assert!(
        reported.code == 1 && reported.stderr.contains("/2, not guestlane/"),
        "{}",
        reported.stderr
    );
}

#[test]
fn audit_prove_and_verify_reject_records_altered_in_the_store() {
    let cli = cli_with_sessions(&["ann"]);
    let session = cli.run(&["sessions", "list", "--json"]).ok().json();
    let store =
        rusqlite::Connection::open(cli.directory.path().join(".guestlane/guestlane.db")).unwrap();
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
        let refused = cli.run(&command);
        assert!(
            refused.code == 1 && refused.stderr.contains("they were changed"),
            "{command:?}: {}",
            refused.stderr
        );
    }
}

#[test]
fn audit_rebuild_restores_missing_log_files_from_the_store() {
    let cli = cli_with_sessions(&["ann"]);
    let rotating = |arguments: &[&str]| {
        Exited::of(
            cli.command(arguments)
                .env("GUESTLANE_AUDIT_MAX_FILE_SIZE", "1KiB")
                .output()
                .unwrap(),
        )
    };
    cli.write("rows.csv", "guest_id\nbob\ncy\ndan\neve\n");
    rotating(&["batch", "rows.csv", "--max-concurrency", "1"]).ok();
    let written = cli.read(LOG);
    cli.run(&["audit", "verify"]).ok();

    // A closed log file, which is not opened again at a start.
    fs::write(
        cli.directory.path().join(LOG),
        written.replace("ann", "eve"),
    )
    .unwrap();
    rotating(&["create", "--guest", "fay"]).ok();
    let reported = cli.run(&["audit", "verify"]);
    assert!(
        reported.code == 1 && reported.stderr.contains("line 1 was changed"),
        "{}",
        reported.stderr
    );
    let in_the_way = cli.run(&["audit", "rebuild", "1"]);
    assert!(
        in_the_way.code == 2 && in_the_way.stderr.contains("exists"),
        "{}",
        in_the_way.stderr
    );
    for ending in ["", ".checkpoint", ".hashes"] {
        let file = cli.directory.path().join(format!("{LOG}{ending}"));
        fs::rename(&file, file.with_extension("evidence")).unwrap();
    }
    let missed = cli.run(&["audit", "verify", "--json"]);
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
    cli.run(&["audit", "rebuild", "1"]).ok();
    assert_eq!(cli.read(LOG), written);
    cli.run(&["audit", "verify"]).ok();
    assert_eq!(cli.run(&["audit", "rebuild", "99"]).code, 2);
}

#[test]
fn commands_without_a_store_exit_with_code_2_and_create_nothing() {
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
fn guests_erase_reports_remaining_records_and_blocks_resume() {
    let cli = cli_with_sessions(&["ann", "bob"]);
    let unknown = cli.run(&["guests", "erase", "nobody"]);
    assert!(
        unknown.code == 2 && unknown.stderr.contains("is not a guest of this store"),
        "{}",
        unknown.stderr
    );
    let erased = cli.run(&["guests", "erase", "ann", "--yes"]).ok();
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
    let json = cli
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
    cli.run(&["audit", "verify"]).ok();

    // The refused session of an erased guest cannot be resumed.
    cli.faults(&["conversation:403"]);
    cli.run(&["create", "--guest", "dan"]);
    let session = cli
        .run(&["sessions", "list", "--guest", "dan", "--json"])
        .ok()
        .json();
    cli.run(&["guests", "erase", "dan", "--yes"]).ok();
    cli.faults(&[]);
    let before = cli.state()["contacts"].clone();
    let refused = cli.run(&["sessions", "resume", session["sessionId"].as_str().unwrap()]);
    assert!(
        refused.code == 2 && refused.stderr.contains("erased guest"),
        "{}",
        refused.stderr
    );
    assert_eq!(cli.state()["contacts"], before);

    cli.faults(&["conversation:500"]);
    let settings = [("GUESTLANE_MAX_RETRIES", "0")];
    Exited::of(
        cli.command(&["create", "--guest", "cy"])
            .envs(settings)
            .output()
            .unwrap(),
    );
    let unfinished = cli.run(&["guests", "erase", "cy"]);
    assert!(
        unfinished.code == 2 && unfinished.stderr.contains("sessions resume"),
        "{}",
        unfinished.stderr
    );
}

#[test]
fn outbox_replay_by_time_counts_first_and_resends_with_yes() {
    let cli = cli_with_sessions(&["ann", "bob"]);
    let replay = |arguments: &[&str]| cli.run(&[&["outbox", "replay"], arguments].concat());
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
    assert_eq!(cli.state()["crm"]["repeated"], 0);
    assert!(
        replay(&[&since[..], &["--yes"]].concat())
            .ok()
            .stdout
            .contains("2 events are pending again")
    );
    cli.run(&["outbox", "deliver"]).ok();
    assert_eq!(cli.state()["crm"]["repeated"], 2);
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
    for (arguments, reported) in [
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
            refused.code == 2 && refused.stderr.contains(reported),
            "{arguments:?}: {}",
            refused.stderr
        );
    }
}
