//! `guestlane batch`: input, result files, repetition, and interruption by signals.

mod interruption;

use guestlane_testkit::cli::{SUPPORT, TestCli};
use serde_json::{Value, json};

const GUESTS: &str = "guest_id,queue_id,idempotency_key,attr.tier\nann,,,gold\nbob,5e0c0000-0000-4000-8000-000000000002,order-2,\ncy,,,basic\n";

fn summary(cli: &TestCli, arguments: &[&str]) -> (i32, Value) {
    let exited = cli.run(&[&["batch"], arguments, &["--json"]].concat());
    let mut summary = exited.json();
    for name in ["seconds", "perSecond"] {
        assert!(
            summary
                .as_object_mut()
                .unwrap()
                .remove(name)
                .unwrap()
                .is_number()
        );
    }
    (exited.code, summary)
}

fn rows(number: u32) -> String {
    let rows: String = (0..number).map(|n| format!("guest-{n}\n")).collect();
    format!("guest_id\n{rows}")
}

#[test]
fn batch_run_twice_replays_sessions_of_the_first_run() {
    let cli = TestCli::open(&[]);
    cli.write("guests.csv", GUESTS);
    let (code, first) = summary(&cli, &["guests.csv"]);
    assert_eq!(code, 0);
    assert_eq!(
        first,
        json!({"rows": 3, "opened": 3, "replayed": 0, "failed": 0, "calls": 9, "throttled": 0})
    );
    cli.write("guests.csv", &format!("{GUESTS}dee,,,gold\n"));
    let (code, second) = summary(&cli, &["guests.csv"]);
    assert_eq!(code, 0);
    assert_eq!(
        (&second["opened"], &second["replayed"]),
        (&json!(1), &json!(3))
    );
    cli.assert_each_guest_once(4);
    assert_eq!(cli.state()["crm"]["events"], 4);
    let to_support = cli
        .journal("conversation")
        .iter()
        .filter(|entry| entry["body"].as_str().unwrap().contains(SUPPORT))
        .count();
    assert_eq!(to_support, 1);
}

#[test]
fn batch_with_existing_output_file_processes_only_missing_rows() {
    let cli = TestCli::open(&[]);
    cli.write("guests.csv", GUESTS);
    cli.faults(&["conversation:500"]);
    let mut command = cli.command(&["batch", "guests.csv", "--output", "out.jsonl"]);
    let output = command.env("GUESTLANE_MAX_RETRIES", "0").output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines = || {
        cli.read("out.jsonl")
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .collect::<Vec<_>>()
    };
    assert!(
        lines()
            .iter()
            .all(|line| line["error"]["code"] == "platform_failing" && line["row"].is_number()),
        "{:?}",
        lines()
    );

    cli.faults(&[]);
    let (code, second) = summary(&cli, &["guests.csv", "--output", "out.jsonl"]);
    assert_eq!(
        (code, &second["opened"], &second["failed"]),
        (0, &json!(3), &json!(0))
    );
    assert!(
        lines().len() == 3
            && lines()
                .iter()
                .all(|line| line["state"] == "open" && line["guestToken"].is_string())
    );
    let before = cli.state()["calls"].clone();
    let (code, third) = summary(&cli, &["guests.csv", "--output", "out.jsonl"]);
    assert_eq!((code, &third["replayed"]), (0, &json!(3)));
    assert_eq!(lines().len(), 3);
    assert_eq!(cli.state()["calls"], before);
    cli.assert_each_guest_once(3);
}

#[test]
fn batch_from_stdin_reports_invalid_rows_and_opens_the_others() {
    let cli = TestCli::open(&[]);
    cli.write(
        "rows.jsonl",
        "{\"guestId\":\"ann\",\"attributes\":{\"tier\":\"gold\"}}\n\n{\"guestId\":\"\"}\n{\"guestId\":\"bob\",\"queueId\":\"sales\"}\n\
         {\"guest\":\"x\"}\n{\"guestId\":\"cy\",\"attributes\":{\"guestToken\":\"x\"}}\n{\"guestId\":\"cy\",\"attributes\":{\"a\":\"1\",\"a\":\"2\"}}\n{\"guestId\":\"dee\"}\n",
    );
    let input = std::fs::File::open(cli.directory.path().join("rows.jsonl")).unwrap();
    let output = cli.command(&["batch", "-"]).stdin(input).output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(
        stdout.starts_with("7 rows: 2 opened, 0 replayed, 5 failed"),
        "{stdout}"
    );
    for part in [
        "row 3: guestId is empty",
        "row 4: queueId `sales` is not a UUID",
        "row 5: guest cannot be read: unknown field",
        "row 6: attributes.guestToken",
        "row 7: attributes.a is given twice",
    ] {
        assert!(stderr.contains(part), "{part}\n{stderr}");
    }
    cli.assert_each_guest_once(2);
}

#[test]
fn batch_with_invalid_csv_heading_sends_nothing() {
    let cli = TestCli::open(&[]);
    for (text, part) in [
        (
            "guest_id,queue\nann,x\n",
            "heading has the unknown column `queue`",
        ),
        ("queue_id\nx\n", "heading has no column guest_id"),
        (
            "guest_id,guest_id\nx,y\n",
            "heading has the column `guest_id` twice",
        ),
    ] {
        cli.write("guests.csv", text);
        let exited = cli.run(&["batch", "guests.csv"]);
        assert!(
            exited.code == 2 && exited.stderr.contains(part),
            "{part}\n{}",
            exited.stderr
        );
    }
    assert_eq!(cli.run(&["batch", "nowhere.csv"]).code, 2);
    assert_eq!(cli.state()["calls"]["token"], 0);
}

#[test]
fn batch_refuses_to_overwrite_its_input_or_a_foreign_file() {
    let cli = TestCli::open(&[]);
    let rows = "{\"guestId\":\"ann\"}\n{\"guestId\":\"bob\"}\n";
    cli.write("rows.jsonl", rows);
    cli.write("letter.txt", "Dear Ann,\nhow are you?\n");
    for (out, part) in [
        ("rows.jsonl", "is the input file"),
        ("letter.txt", "is not a result file"),
        ("/dev/null", "is not a regular file"),
    ] {
        let exited = cli.run(&["batch", "rows.jsonl", "--output", out]);
        assert!(
            exited.code == 2 && exited.stderr.contains(part),
            "{out}: {}",
            exited.stderr
        );
    }
    assert_eq!(
        (
            cli.read("rows.jsonl").as_str(),
            cli.read("letter.txt").lines().count()
        ),
        (rows, 2)
    );
    assert_eq!(
        cli.run(&["batch", "rows.jsonl", "--output", "/nowhere/out.jsonl"])
            .code,
        2
    );
    assert_eq!(cli.state()["contacts"], 0);
}

#[test]
fn batch_continues_a_truncated_result_file() {
    let cli = TestCli::open(&[]);
    cli.write("guests.csv", GUESTS);
    cli.run(&["batch", "guests.csv", "--output", "out.jsonl"])
        .ok();
    let whole = cli.read("out.jsonl");
    // The last byte is the first half of an `é`.
    let cut = [whole.as_bytes()[..whole.len() / 2].to_vec(), vec![0xc3]].concat();
    std::fs::write(cli.directory.path().join("out.jsonl"), cut).unwrap();
    cli.run(&["batch", "guests.csv", "--output", "out.jsonl"])
        .ok();
    assert_eq!(cli.read("out.jsonl").lines().count(), 3);
    cli.assert_each_guest_once(3);
}

#[test]
fn batch_reports_idempotency_key_mismatch_on_every_run() {
    let cli = TestCli::open(&[]);
    cli.write("guests.csv", "guest_id,idempotency_key\nann,k\nbob,k\n");
    for _ in 0..2 {
        let (code, summary) = summary(
            &cli,
            &[
                "guests.csv",
                "--output",
                "out.jsonl",
                "--max-concurrency",
                "1",
            ],
        );
        assert_eq!((code, &summary["failed"]), (3, &json!(1)));
    }
    cli.assert_each_guest_once(1);
}

#[test]
fn batch_reports_lines_skipped_by_an_unclosed_quotation_mark() {
    let cli = TestCli::open(&[]);
    cli.write(
        "guests.csv",
        "guest_id,attr.note\nann,x\nbob,\"half\ncy,x\ndee,x\n",
    );
    let exited = cli.run(&["batch", "guests.csv"]);
    assert_eq!(exited.code, 3, "{}", exited.stdout);
    assert!(
        exited.stderr.contains(
            "spans the lines 3 to 5: a quotation mark is not closed; these lines were skipped"
        ),
        "{}",
        exited.stderr
    );
    cli.assert_each_guest_once(1);
}

#[test]
fn batch_dry_run_validates_every_row_and_sends_nothing() {
    let cli = TestCli::open(&[]);
    cli.write(
        "guests.csv",
        "guest_id,queue_id,email\nann,,\n,5e0c0000-0000-4000-8000-000000000001,\nbob,sales,\ncy,,cy@example.com\n",
    );
    let exited = cli.run(&["batch", "guests.csv", "--dry-run"]);
    assert_eq!(exited.code, 3);
    assert_eq!(
        exited.stdout.trim(),
        "4 rows: 1 valid, 3 invalid; nothing was sent"
    );
    for part in [
        "row 2 (line 3): guestId is empty",
        "row 3 (line 4): queueId `sales` is not a UUID",
        "row 4 (line 5): email is not supported",
    ] {
        assert!(exited.stderr.contains(part), "{part}\n{}", exited.stderr);
    }
    let json = cli.run(&["batch", "guests.csv", "--dry-run", "--json"]);
    let lines: Vec<Value> = json
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (lines.len(), &lines[3]),
        (4, &json!({"rows": 4, "good": 1, "bad": 3}))
    );
    assert_eq!(
        (
            &lines[0]["row"],
            &lines[0]["line"],
            &lines[0]["error"]["field"]
        ),
        (&json!(2), &json!(3), &json!("guestId"))
    );
    // A dry run needs neither credentials nor a store, and creates none.
    let bare = guestlane_testkit::cli::bare()
        .current_dir(cli.directory.path())
        .args(["batch", "guests.csv", "--dry-run"])
        .output()
        .unwrap();
    assert_eq!(
        bare.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&bare.stderr)
    );
    assert!(!cli.directory.path().join(".guestlane").exists());
    assert_eq!(cli.state()["calls"]["token"], 0);
    cli.write("good.csv", "guest_id\nann\n");
    assert_eq!(cli.run(&["batch", "good.csv", "--dry-run"]).code, 0);
}

#[test]
fn oauth_client_pool_is_configured_by_matching_lists() {
    let cli = TestCli::open(&["--clients", "3", "--rate-limit", "100/s"]);
    cli.write("guests.csv", &rows(200));
    let (code, summary) = summary(&cli, &["guests.csv"]);
    assert_eq!((code, &summary["opened"]), (0, &json!(200)));
    assert!(cli.state()["tokensIssued"].as_u64() > Some(1));
    let mut command = cli.command(&["batch", "guests.csv"]);
    let refused = command
        .env("GENESYS_CLIENT_SECRET", "one two")
        .output()
        .unwrap();
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert!(
        refused.status.code() == Some(2)
            && stderr.contains("has 2 secrets of OAuth clients, but GENESYS_CLIENT_ID has 3 IDs"),
        "{stderr}"
    );
    let mut command = cli.command(&["batch", "guests.csv"]);
    let refused = command.env("GENESYS_CLIENT_ID", "a b a").output().unwrap();
    assert!(
        String::from_utf8(refused.stderr)
            .unwrap()
            .contains("contains `a` twice")
    );
}
