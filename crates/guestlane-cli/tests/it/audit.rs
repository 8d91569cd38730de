//! The audit log on the command line: for those who have the state directory, and for those who have files and a key alone.

use std::{fs, path::Path};

use serde_json::json;

use crate::office::{Ended, Office, run_in};

const LOG: &str = "audit/session-audit.jsonl";

/// Files of the log, and the key, where nothing else is.
fn handed_over(office: &Office) -> tempfile::TempDir {
    let elsewhere = tempfile::tempdir().unwrap();
    for file in [LOG, "audit/session-audit.jsonl.checkpoint", "audit/session-audit.jsonl.hashes"] {
        fs::copy(office.directory.path().join(file), elsewhere.path().join(Path::new(file).file_name().unwrap())).unwrap();
    }
    fs::write(elsewhere.path().join("auditor.key"), office.run(&["audit", "key"]).ok().stdout).unwrap();
    elsewhere
}

fn verify(directory: &tempfile::TempDir, arguments: &[&str]) -> Ended {
    let arguments = [&["audit", "verify", "session-audit.jsonl", "--key", "auditor.key"], arguments].concat();
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
    assert!(office.run(&["audit", "verify"]).ok().stdout.contains("6 records, as they were written"));
    let elsewhere = handed_over(&office);
    let good = verify(&elsewhere, &["--json"]).ok().json();
    assert_eq!((&good["proven"], &good["records"]), (&json!(true), &json!(6)));
    assert!(!elsewhere.path().join(".guestlane").exists(), "no state directory is made");

    let path = elsewhere.path().join("session-audit.jsonl");
    let written = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<&str> = written.lines().collect();
    let edited = written.replacen("\"bob\"", "\"eve\"", 1);
    let dropped: Vec<&str> = [&lines[..1], &lines[2..]].concat();
    lines.swap(2, 4);
    let appended = format!("{written}{}\n", written.lines().next().unwrap());
    for (changed, problem, line) in [
        (edited, "line 3 was changed", 3),
        (dropped.join("\n") + "\n", "line 2 is not in its place: the record that was written as line 3 stands there", 2),
        (lines.join("\n") + "\n", "line 3 is not in its place: the record that was written as line 5 stands there", 3),
        (appended, "line 7 is not covered by the checkpoint, which was signed for 6 records", 7),
        (written[..written.len() - 5].to_owned(), "line 6 is not whole", 6),
        (written.lines().take(4).map(|line| format!("{line}\n")).collect(), "line 5 is missing: the log had 6 records", 5),
    ] {
        fs::write(&path, changed).unwrap();
        let told = verify(&elsewhere, &["--json"]);
        assert!(told.code == 1 && told.stderr.contains(problem), "{problem}: {}", told.stderr);
        assert_eq!((&told.json()["line"], &told.json()["proven"]), (&json!(line), &json!(false)));
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
    assert!(told.code == 1 && told.stderr.contains("line 3 is missing: the log had 4 records"), "{}", told.stderr);
    let kept = early.path().join("session-audit.jsonl.checkpoint");
    verify(&late, &["--checkpoint", kept.to_str().unwrap()]).ok();
}

#[test]
fn a_proof_is_checked_offline_and_a_changed_one_proves_nothing() {
    let office = office_with_sessions(&["ann", "bob"]);
    let session = office.run(&["sessions", "list", "--guest", "ann", "--json"]).ok().json();
    let proof = office.run(&["audit", "prove", session["sessionId"].as_str().unwrap()]).ok().stdout;
    let elsewhere = handed_over(&office);
    let check = |proof: &str| {
        fs::write(elsewhere.path().join("proof.json"), proof).unwrap();
        run_in(elsewhere.path(), &["audit", "verify", "--proof", "proof.json", "--key", "auditor.key"], &[])
    };
    let good = check(&proof).ok().stdout;
    assert!(good.contains("record 0 of guestlane/") && good.contains("record 1 of guestlane/"), "{good}");
    let changed = check(&proof.replace("success", "failed"));
    assert!(changed.code == 1 && changed.stderr.contains("the line is not in the log"), "{}", changed.stderr);
    assert_eq!(check("no proof").code, 2);
    let unknown = office.run(&["audit", "prove", "01a20456-5ef0-7960-b447-2fcf8756fb41"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("no record of it"), "{}", unknown.stderr);
}

#[test]
fn what_cannot_be_checked_is_told_by_its_name() {
    let office = office_with_sessions(&["ann"]);
    let elsewhere = handed_over(&office);
    let bad = |arguments: &[&str]| run_in(elsewhere.path(), &[&["audit", "verify"], arguments].concat(), &[]);
    let (log, key) = ("session-audit.jsonl", "auditor.key");
    let other = office_with_sessions(&["ann"]).run(&["audit", "key"]).ok().stdout;
    for (arguments, code, told) in [
        (vec![log, "--key", "nonsense"], 2, "--key"),
        (vec!["gone.jsonl", "--key", key], 1, "gone.jsonl"),
        (vec![log, "--key", other.trim()], 1, "not signed by this key"),
        (vec![log, "--key", key, "--checkpoint", "gone"], 2, "--checkpoint gone"),
        (vec![log, "--key", key, "--checkpoint", log], 2, "not signed by this key"),
        (vec!["--proof", "gone", "--key", key], 2, "--proof gone"),
    ] {
        let ended = bad(&arguments);
        assert!(ended.code == code && ended.stderr.contains(told), "{arguments:?}: {} {}", ended.code, ended.stderr);
    }
    fs::remove_file(elsewhere.path().join("session-audit.jsonl.checkpoint")).unwrap();
    assert!(bad(&[log, "--key", key]).stderr.contains("without a checkpoint nothing is proven"));
}

#[test]
fn files_that_were_moved_away_are_written_anew_and_an_archive_is_missed_by_name() {
    let office = office_with_sessions(&["ann"]);
    fs::write(office.directory.path().join(LOG), "ruined\n").unwrap();
    let told = office.run(&["audit", "verify"]);
    assert_eq!(told.code, 1);
    let aside = office.directory.path().join("aside");
    fs::rename(office.directory.path().join("audit"), aside).unwrap();
    office.run(&["audit", "verify"]).ok();

    let rotating =
        |arguments: &[&str]| Ended::of(office.command(arguments).env("GUESTLANE_AUDIT_ROTATE_AT", "1KiB").output().unwrap());
    office.write("rows.csv", "guest_id\nbob\ncy\ndan\neve\n");
    rotating(&["batch", "rows.csv", "--concurrency", "1"]).ok();
    assert!(office.directory.path().join("audit/session-audit.2.jsonl").exists());
    office.run(&["audit", "verify"]).ok();
    fs::remove_file(office.directory.path().join(LOG)).unwrap();
    let missed = rotating(&["audit", "verify"]).ok();
    assert!(missed.stderr.contains("session-audit.jsonl is full and is not here any more"), "{}", missed.stderr);
}

#[test]
fn a_guest_is_erased_by_name_and_what_stays_is_said() {
    let office = office_with_sessions(&["ann", "bob"]);
    let unknown = office.run(&["guests", "erase", "nobody"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("no such guest"), "{}", unknown.stderr);
    let erased = office.run(&["guests", "erase", "ann"]).ok();
    assert!(erased.stdout.contains("erased from 1 session and 1 event"), "{}", erased.stdout);
    assert!(erased.stderr.contains("2 records with the guest's id in plain"), "{}", erased.stderr);
    let json = office.run(&["guests", "erase", "bob", "--json"]).ok().json();
    assert_eq!(
        (&json["sessions"], &json["stillReadable"][0]["records"], &json["bytesGone"]),
        (&json!(1), &json!(2), &json!(true))
    );
    office.run(&["audit", "verify"]).ok();

    office.faults(&["conversation:500"]);
    let settings = [("GUESTLANE_RETRIES", "0")];
    Ended::of(office.command(&["create", "--guest", "cy"]).envs(settings).output().unwrap());
    let unfinished = office.run(&["guests", "erase", "cy"]);
    assert!(unfinished.code == 2 && unfinished.stderr.contains("sessions resume"), "{}", unfinished.stderr);
}

#[test]
fn events_of_a_time_are_counted_first_and_sent_again_when_that_is_said() {
    let office = office_with_sessions(&["ann", "bob"]);
    let replay = |arguments: &[&str]| office.run(&[&["outbox", "replay"], arguments].concat());
    let since = ["--since", "2020-01-01T00:00:00Z"];
    assert!(replay(&since).ok().stdout.contains("2 events would be sent again"));
    assert_eq!(replay(&[&since[..], &["--json"]].concat()).ok().json()["events"], 2);
    assert_eq!(office.state()["crm"]["repeated"], 0);
    assert!(replay(&[&since[..], &["--yes"]].concat()).ok().stdout.contains("2 events are pending again"));
    office.run(&["outbox", "deliver"]).ok();
    assert_eq!(office.state()["crm"]["repeated"], 2);
    assert!(
        replay(&["--since", "2020-01-01T00:00:00Z", "--until", "2020-01-02T00:00:00Z"]).ok().stderr.contains("no such events")
    );
    for (arguments, told) in [
        (vec!["--since", "yesterday"], "--since"),
        (vec!["--since", "2020-01-01T00:00:00Z", "--state", "erased"], "--state"),
        (vec![], "required"),
        (vec!["msg_1", "--since", "2020-01-01T00:00:00Z"], "cannot be used with"),
    ] {
        let refused = replay(&arguments);
        assert!(refused.code == 2 && refused.stderr.contains(told), "{arguments:?}: {}", refused.stderr);
    }
}
