//! `guestlane batch`: input, result files, repetition, and interruption by signals.

use serde_json::{Value, json};

use crate::harness::{Office, SUPPORT};

const GUESTS: &str = "guest_id,queue_id,idempotency_key,attr.tier\nann,,,gold\nbob,5e0c0000-0000-4000-8000-000000000002,order-2,\ncy,,,basic\n";

fn summary(office: &Office, arguments: &[&str]) -> (i32, Value) {
    let ended = office.run(&[&["batch"], arguments, &["--json"]].concat());
    let mut summary = ended.json();
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
    (ended.code, summary)
}

#[test]
fn a_file_run_twice_makes_nothing_twice() {
    let office = Office::open(&[]);
    office.write("guests.csv", GUESTS);
    let (code, first) = summary(&office, &["guests.csv"]);
    assert_eq!(code, 0);
    assert_eq!(
        first,
        json!({"rows": 3, "opened": 3, "replayed": 0, "failed": 0, "calls": 9, "throttled": 0})
    );
    office.write("guests.csv", &format!("{GUESTS}dee,,,gold\n"));
    let (code, second) = summary(&office, &["guests.csv"]);
    assert_eq!(code, 0);
    assert_eq!(
        (&second["opened"], &second["replayed"]),
        (&json!(1), &json!(3))
    );
    office.assert_each_guest_once(4);
    assert_eq!(office.state()["crm"]["events"], 4);
    let to_support = office
        .journal("conversation")
        .iter()
        .filter(|entry| entry["body"].as_str().unwrap().contains(SUPPORT))
        .count();
    assert_eq!(to_support, 1);
}

#[test]
fn the_same_out_file_again_does_only_what_is_missing() {
    let office = Office::open(&[]);
    office.write("guests.csv", GUESTS);
    office.faults(&["conversation:500"]);
    let mut command = office.command(&["batch", "guests.csv", "--output", "out.jsonl"]);
    let output = command.env("GUESTLANE_MAX_RETRIES", "0").output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines = || {
        office
            .read("out.jsonl")
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

    office.faults(&[]);
    let (code, second) = summary(&office, &["guests.csv", "--output", "out.jsonl"]);
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
    let before = office.state()["calls"].clone();
    let (code, third) = summary(&office, &["guests.csv", "--output", "out.jsonl"]);
    assert_eq!((code, &third["replayed"]), (0, &json!(3)));
    assert_eq!(lines().len(), 3);
    assert_eq!(office.state()["calls"], before);
    office.assert_each_guest_once(3);
}

#[test]
fn json_lines_from_standard_input_and_bad_rows_that_do_not_stop_the_others() {
    let office = Office::open(&[]);
    office.write(
        "rows.jsonl",
        "{\"guestId\":\"ann\",\"attributes\":{\"tier\":\"gold\"}}\n\n{\"guestId\":\"\"}\n{\"guestId\":\"bob\",\"queueId\":\"sales\"}\n\
         {\"guest\":\"x\"}\n{\"guestId\":\"cy\",\"attributes\":{\"guestToken\":\"x\"}}\n{\"guestId\":\"cy\",\"attributes\":{\"a\":\"1\",\"a\":\"2\"}}\n{\"guestId\":\"dee\"}\n",
    );
    let input = std::fs::File::open(office.directory.path().join("rows.jsonl")).unwrap();
    let output = office
        .command(&["batch", "-"])
        .stdin(input)
        .output()
        .unwrap();
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
    office.assert_each_guest_once(2);
}

#[test]
fn a_heading_with_an_unknown_column_stops_before_anything_is_sent() {
    let office = Office::open(&[]);
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
        office.write("guests.csv", text);
        let ended = office.run(&["batch", "guests.csv"]);
        assert!(
            ended.code == 2 && ended.stderr.contains(part),
            "{part}\n{}",
            ended.stderr
        );
    }
    assert_eq!(office.run(&["batch", "nowhere.csv"]).code, 2);
    assert_eq!(office.state()["calls"]["token"], 0);
}

#[test]
fn a_result_file_that_is_the_input_or_somebody_elses_is_left_alone() {
    let office = Office::open(&[]);
    let rows = "{\"guestId\":\"ann\"}\n{\"guestId\":\"bob\"}\n";
    office.write("rows.jsonl", rows);
    office.write("letter.txt", "Dear Ann,\nhow are you?\n");
    for (out, part) in [
        ("rows.jsonl", "is the input file"),
        ("letter.txt", "is not a result file"),
        ("/dev/null", "is not a regular file"),
    ] {
        let ended = office.run(&["batch", "rows.jsonl", "--output", out]);
        assert!(
            ended.code == 2 && ended.stderr.contains(part),
            "{out}: {}",
            ended.stderr
        );
    }
    assert_eq!(
        (
            office.read("rows.jsonl").as_str(),
            office.read("letter.txt").lines().count()
        ),
        (rows, 2)
    );
    assert_eq!(
        office
            .run(&["batch", "rows.jsonl", "--output", "/nowhere/out.jsonl"])
            .code,
        2
    );
    assert_eq!(office.state()["contacts"], 0);
}

#[test]
fn a_result_file_that_broke_off_is_continued() {
    let office = Office::open(&[]);
    office.write("guests.csv", GUESTS);
    office
        .run(&["batch", "guests.csv", "--output", "out.jsonl"])
        .ok();
    let whole = office.read("out.jsonl");
    // The last byte is the first half of an `é`.
    let cut = [whole.as_bytes()[..whole.len() / 2].to_vec(), vec![0xc3]].concat();
    std::fs::write(office.directory.path().join("out.jsonl"), cut).unwrap();
    office
        .run(&["batch", "guests.csv", "--output", "out.jsonl"])
        .ok();
    assert_eq!(office.read("out.jsonl").lines().count(), 3);
    office.assert_each_guest_once(3);
}

#[test]
fn a_mismatch_is_told_again_on_every_run_although_its_key_is_done() {
    let office = Office::open(&[]);
    office.write("guests.csv", "guest_id,idempotency_key\nann,k\nbob,k\n");
    for _ in 0..2 {
        let (code, summary) = summary(
            &office,
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
    office.assert_each_guest_once(1);
}

#[test]
fn a_quotation_mark_that_is_not_closed_loses_nobody_without_a_word() {
    let office = Office::open(&[]);
    office.write(
        "guests.csv",
        "guest_id,attr.note\nann,x\nbob,\"half\ncy,x\ndee,x\n",
    );
    let ended = office.run(&["batch", "guests.csv"]);
    assert_eq!(ended.code, 3, "{}", ended.stdout);
    assert!(
        ended.stderr.contains(
            "spans the lines 3 to 5: a quotation mark is not closed; these lines were skipped"
        ),
        "{}",
        ended.stderr
    );
    office.assert_each_guest_once(1);
}

#[test]
fn a_check_reads_every_row_and_sends_nothing() {
    let office = Office::open(&[]);
    office.write(
        "guests.csv",
        "guest_id,queue_id,email\nann,,\n,5e0c0000-0000-4000-8000-000000000001,\nbob,sales,\ncy,,cy@example.com\n",
    );
    let ended = office.run(&["batch", "guests.csv", "--dry-run"]);
    assert_eq!(ended.code, 3);
    assert_eq!(
        ended.stdout.trim(),
        "4 rows: 1 valid, 3 invalid; nothing was sent"
    );
    for part in [
        "row 2 (line 3): guestId is empty",
        "row 3 (line 4): queueId `sales` is not a UUID",
        "row 4 (line 5): email is not supported",
    ] {
        assert!(ended.stderr.contains(part), "{part}\n{}", ended.stderr);
    }
    let json = office.run(&["batch", "guests.csv", "--dry-run", "--json"]);
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
    let bare = crate::harness::bare()
        .current_dir(office.directory.path())
        .args(["batch", "guests.csv", "--dry-run"])
        .output()
        .unwrap();
    assert_eq!(
        bare.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&bare.stderr)
    );
    assert!(!office.directory.path().join(".guestlane").exists());
    assert_eq!(office.state()["calls"]["token"], 0);
    office.write("good.csv", "guest_id\nann\n");
    assert_eq!(office.run(&["batch", "good.csv", "--dry-run"]).code, 0);
}

/// A batch in its own process, so that the test can send signals and read its output.
struct Running(
    std::process::Child,
    std::io::BufReader<std::process::ChildStderr>,
);

impl Running {
    fn start(office: &Office, arguments: &[&str]) -> Self {
        let mut command = office.command(&[&["batch"], arguments].concat());
        let mut child = command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = std::io::BufReader::new(child.stderr.take().unwrap());
        Self(child, stderr)
    }

    fn interrupt(&self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    }

    fn wait_for(&mut self, part: &str) {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            assert_ne!(
                std::io::BufRead::read_line(&mut self.1, &mut line).unwrap(),
                0,
                "it ended without: {part}"
            );
        }
    }

    fn end(mut self) -> (i32, String, String) {
        use std::io::Read;
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.1.read_to_string(&mut stderr).unwrap();
        self.0
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut stdout)
            .unwrap();
        (self.0.wait().unwrap().code().unwrap(), stdout, stderr)
    }
}

fn rows(number: u32) -> String {
    let rows: String = (0..number).map(|n| format!("guest-{n}\n")).collect();
    format!("guest_id\n{rows}")
}

fn wait_until(mut done: impl FnMut() -> bool) {
    while !done() {
        std::thread::yield_now();
    }
}

#[test]
fn ctrl_c_finishes_what_is_under_way_and_the_same_command_goes_on() {
    let office = Office::open(&["--rate-limit", "100/s"]);
    office.write("guests.csv", &rows(300));
    let mut batch = Running::start(&office, &["guests.csv", "--output", "out.jsonl"]);
    wait_until(|| office.state()["conversations"].as_u64() > Some(5));
    batch.interrupt();
    batch.wait_for("Finishing ");
    let (code, stdout, stderr) = batch.end();
    assert_eq!(code, 3, "{stdout}{stderr}");
    assert!(
        stderr.contains(
            "Interrupted. To continue, run the same command again; no session is created twice."
        ),
        "{stderr}"
    );
    assert!(stdout.contains(" 0 failed"), "{stdout}");
    let state = office.state();
    assert_eq!(
        state["contacts"], state["conversations"],
        "nothing was left half way"
    );
    let (code, second) = summary(&office, &["guests.csv", "--output", "out.jsonl"]);
    assert_eq!(
        (
            code,
            second["opened"].as_u64().unwrap() + second["replayed"].as_u64().unwrap()
        ),
        (0, 300)
    );
    office.assert_each_guest_once(300);
    assert_eq!(office.read("out.jsonl").lines().count(), 300);
}

#[test]
fn a_second_ctrl_c_stops_at_once_and_nobody_is_made_twice() {
    let office = Office::open(&[]);
    office.write("guests.csv", &rows(50));
    office.faults(&["conversation:hang"]);
    let mut batch = Running::start(&office, &["guests.csv"]);
    wait_until(|| office.state()["hanging"].as_u64() > Some(3));
    batch.interrupt();
    batch.wait_for("Finishing ");
    batch.interrupt();
    let (code, _, stderr) = batch.end();
    assert_eq!(code, 3);
    assert!(
        stderr.contains(" in flight; their progress is recorded."),
        "{stderr}"
    );
    office.faults(&[]);
    let (code, second) = summary(&office, &["guests.csv"]);
    assert_eq!((code, &second["failed"]), (0, &json!(0)), "{second}");
    office.assert_each_guest_once(50);
}

#[test]
fn a_platform_that_is_not_there_ends_a_batch_before_its_rows_are_spent() {
    let office = Office::open(&[]);
    office.write("guests.csv", &rows(2000));
    let mut command = office.command(&["batch", "guests.csv", "--json"]);
    office.faults(&["any:500"]);
    command
        .env("GUESTLANE_RETRY_INITIAL_BACKOFF", "10ms")
        .env("GUESTLANE_RETRY_MAX_BACKOFF", "20ms");
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(
        stderr.contains("the other rows were not started"),
        "{stderr}"
    );
    let summary: Value = serde_json::from_str(
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .last()
            .unwrap(),
    )
    .unwrap();
    assert_eq!(summary["stopped"], "outage");
    assert!(stderr.contains("HTTP 500"), "why, is told: {stderr}");
    assert!(
        summary["rows"].as_u64() < Some(2000) && summary["rows"].as_u64() >= Some(10),
        "{summary}"
    );
    assert_eq!(summary["rows"], summary["failed"]);
    // Once the platform recovers, the same command completes all rows.
    office.faults(&[]);
    let (code, second) = self::summary(&office, &["guests.csv"]);
    assert_eq!((code, &second["opened"]), (0, &json!(2000)));
    office.assert_each_guest_once(2000);
}

#[test]
fn rows_that_failed_for_no_fault_of_theirs_are_tried_once_more() {
    let office = Office::open(&[]);
    office.write("guests.csv", &rows(20));
    office.faults(&["contact:500:first=8"]);
    let mut command = office.command(&["batch", "guests.csv"]);
    let output = command.env("GUESTLANE_MAX_RETRIES", "0").output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(stderr.contains("retrying once"), "{stderr}");
    assert!(
        stdout.starts_with("20 rows: 20 opened, 0 replayed, 0 failed"),
        "{stdout}"
    );
    office.assert_each_guest_once(20);
}

#[test]
fn a_pool_of_oauth_clients_is_given_as_a_list() {
    let office = Office::open(&["--clients", "3", "--rate-limit", "100/s"]);
    office.write("guests.csv", &rows(200));
    let (code, summary) = summary(&office, &["guests.csv"]);
    assert_eq!((code, &summary["opened"]), (0, &json!(200)));
    assert!(office.state()["tokensIssued"].as_u64() > Some(1));
    let mut command = office.command(&["batch", "guests.csv"]);
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
    let mut command = office.command(&["batch", "guests.csv"]);
    let refused = command.env("GENESYS_CLIENT_ID", "a b a").output().unwrap();
    assert!(
        String::from_utf8(refused.stderr)
            .unwrap()
            .contains("contains `a` twice")
    );
}
