//! What a CSV file may contain.

use super::*;

#[test]
fn unclosed_quotation_mark_is_refused_with_any_line_break() {
    for line_break in ["\n", "\r", "\r\n"] {
        let cli = TestCli::open(&[]);
        cli.write(
            "guests.csv",
            &["guest_id,attr.note", "ann,\"unclosed", "bob,x", "cy,y", ""].join(line_break),
        );
        let check = cli.run(&["batch", "guests.csv", "--dry-run"]);
        assert_eq!(
            (check.code, check.stdout.trim()),
            (3, "1 row: 0 valid, 1 invalid; nothing was sent"),
            "{line_break:?}"
        );
        let exited = cli.run(&["batch", "guests.csv"]);
        assert_eq!(exited.code, 3);
        let part = "row 1 (line 2): row spans the lines 2 to 4: a quotation mark is not closed; these lines were skipped";
        assert!(
            exited.stderr.contains(part),
            "{line_break:?}: {}",
            exited.stderr
        );
        cli.assert_each_guest_once(0);
    }
}

#[test]
fn csv_that_violates_rfc_4180_is_refused() {
    // The rows between a valid first and a valid last one, the expected message, and whether the
    // last row is used.
    let cases = [
        (
            "\"bob\", \"bob@example.org\"",
            "row 2 (line 3): row has white space before a quotation mark in column 2",
            true,
        ),
        (
            " \"bob\",x",
            "row 2 (line 3): row has white space before a quotation mark in column 1",
            true,
        ),
        (
            "\"bob\"by,x",
            "row 2 (line 3): row has text after a closing quotation mark in column 1",
            true,
        ),
        (
            "bob,6\" heel\"",
            "row 2 (line 3): row has a quotation mark inside a cell without quotation marks in column 2",
            true,
        ),
        (
            "bob,\"6\\\" heel\"",
            "has a quotation mark after a backslash in column 2; the end of the row is ambiguous, so the lines 3 to 4 were skipped",
            false,
        ),
        (
            "bob,\"two\nlines\"",
            "row spans the lines 3 to 4: a quoted cell contains a line break",
            true,
        ),
        (
            "bob",
            "row 2 (line 3): row has 1 columns, but the heading has 2",
            true,
        ),
        (
            "bob,x,y",
            "row 2 (line 3): row has 3 columns, but the heading has 2",
            true,
        ),
    ];
    for (row, part, last_is_used) in cases {
        let cli = TestCli::open(&[]);
        cli.write(
            "guests.csv",
            &format!("guest_id,attr.a\nann,x\n{row}\ncy,y"),
        );
        let exited = cli.run(&["batch", "guests.csv"]);
        assert!(
            exited.code == 3 && exited.stderr.contains(part),
            "{row}: {}",
            exited.stderr
        );
        cli.assert_each_guest_once(1 + u64::from(last_is_used));
        assert!(
            !cli.journal("contact")
                .iter()
                .any(|entry| entry["body"].as_str().unwrap().contains("bob")),
            "{row}"
        );
    }
    let cli = TestCli::open(&[]);
    cli.write("cut.csv", "guest_id,first_name,attr.a\nann,,x\nbob,");
    let exited = cli.run(&["batch", "cut.csv"]);
    assert!(
        exited.code == 3 && exited.stderr.contains("row 2 (line 3): row has 2 columns"),
        "a file that was cut: {}",
        exited.stderr
    );
    cli.write("heading.csv", "guest_id, \"email\"\nann,x\n");
    let exited = cli.run(&["batch", "heading.csv"]);
    assert!(
        exited.code == 2
            && exited
                .stderr
                .contains("heading has white space before a quotation mark"),
        "{}",
        exited.stderr
    );
}

#[test]
fn spreadsheet_artifacts_are_skipped_warned_about_or_refused() {
    let cli = TestCli::open(&[]);
    cli.write(
        "guests.csv",
        "guest_id,attr.a,\n,,\nann,1,\n,,\n\"\",,\nbob,,\n, ,\n",
    );
    assert_eq!(batch(&cli, "guests.csv"), (0, json!([2, 0, 0])));
    cli.write("extra.csv", "guest_id,attr.a,\nann,1,surplus\n");
    let exited = cli.run(&["batch", "extra.csv"]);
    assert!(
        exited
            .stderr
            .contains("row has a value in column 3, but the heading does not name that column"),
        "{}",
        exited.stderr
    );
    cli.write(
        "ids.csv",
        "guest_id\n1.23457E+17\n\"8,96529E+19\"\n1E+5x\n12345\n",
    );
    let exited = cli.run(&["batch", "ids.csv", "--dry-run"]);
    assert_eq!(exited.code, 0, "a warning is no failure");
    assert_eq!(
        exited
            .stderr
            .matches("looks like a number that a spreadsheet rounded")
            .count(),
        2,
        "{}",
        exited.stderr
    );
    assert!(
        exited.stderr.contains("row 1 (line 2): warning: guestId"),
        "{}",
        exited.stderr
    );
    let json = cli.run(&["batch", "ids.csv", "--dry-run", "--json"]).json();
    assert_eq!(json, json!({"rows": 4, "good": 4, "bad": 0, "warned": 2}));
    for text in [
        "[{\"guestId\":\"x\"}]",
        "\u{feff}\n [\n{\"guestId\":\"x\"}\n]\n",
    ] {
        cli.write("array.json", text);
        let exited = cli.run(&["batch", "array.json"]);
        assert!(
            exited.code == 2 && exited.stderr.contains("is a JSON array"),
            "{}",
            exited.stderr
        );
    }
    cli.assert_each_guest_once(2);
}

#[test]
fn batch_reads_a_pipe_with_fragmented_first_bytes() {
    let cli = TestCli::open(&[]);
    let mut command = cli.command(&["batch", "-", "--json", "--quiet"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for piece in [
        &b"\xef"[..],
        b"\xbb",
        b"\xbf",
        b"\r",
        b"\n",
        b"{\"guestId\":\"ann\"}\r",
        b"\n{\"guestId\":\"bob\"}\r{\"guestId\":\"cy\"}",
    ] {
        stdin.write_all(piece).unwrap();
        stdin.flush().unwrap();
        guestlane_testkit::serve::pause(20);
    }
    drop(stdin);
    let exited = Exited::of(child.wait_with_output().unwrap()).ok();
    assert_eq!(
        (&exited.json()["opened"], &exited.json()["failed"]),
        (&json!(3), &json!(0))
    );
    cli.assert_each_guest_once(3);
}

#[test]
fn overlong_row_is_refused_and_next_row_is_processed() {
    let cli = TestCli::open(&[]);
    let long = "x".repeat(64 * 1024);
    cli.write(
        "guests.csv",
        &format!("guest_id,attr.a\nann,{long}\nbob,\n"),
    );
    cli.write(
        "rows.jsonl",
        &format!(
            "{{\"guestId\":\"ann\",\"attributes\":{{\"a\":\"{long}\"}}}}\r{{\"guestId\":\"cy\"}}\r"
        ),
    );
    for file in ["guests.csv", "rows.jsonl"] {
        let exited = cli.run(&["batch", file]);
        assert!(
            exited.code == 3 && exited.stderr.contains("row has more than 65536 bytes"),
            "{file}: {}",
            exited.stderr
        );
        assert!(
            exited
                .stdout
                .starts_with("2 rows: 1 opened, 0 replayed, 1 failed"),
            "{file}: {}",
            exited.stdout
        );
    }
}
