//! Altered logs, proofs and rows are detected.

use super::*;

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
