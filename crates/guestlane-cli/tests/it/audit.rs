//! `guestlane audit`, with the state directory, and with log files and a verifier key alone.

mod tampering;

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
    let unknown = cli.run(&["guests", "erase", "unknown"]);
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
