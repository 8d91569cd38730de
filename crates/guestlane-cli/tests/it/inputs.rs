//! Input from files, standard input and HTTP. The same bytes have the same meaning everywhere, and
//! invalid input is rejected with the name of the field, never repaired.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::symlink,
    path::Path,
    process::Stdio,
};

use guestlane_testkit::{
    cli::{Exited, TestCli},
    service_process::ServiceProcess,
};
use serde_json::{Value, json};

fn batch(cli: &TestCli, file: &str) -> (i32, Value) {
    let exited = cli.run(&["batch", file, "--json", "--quiet"]);
    let summary = exited.json();
    (
        exited.code,
        json!([summary["opened"], summary["replayed"], summary["failed"]]),
    )
}

/// Replaces a symbolic link atomically, as kubelet does.
fn replace_symlink(link: &Path, target: &str) {
    let draft = link.with_file_name("draft");
    symlink(target, &draft).unwrap();
    fs::rename(&draft, link).unwrap();
}

#[test]
fn batch_key_is_stable_when_a_symlink_target_changes() {
    for (file, in_directory) in [
        ("vol/guests.csv", "."),
        ("vol/..data/guests.csv", "."),
        ("guests.csv", "vol/..data"),
        ("./../vol/guests.csv", "vol"),
    ] {
        let cli = TestCli::open(&[]);
        let home = cli.directory.path();
        let release = |name: &str, rows: &str| {
            fs::create_dir_all(home.join("vol").join(name)).unwrap();
            fs::write(home.join("vol").join(name).join("guests.csv"), rows).unwrap();
            replace_symlink(&home.join("vol/..data"), name);
        };
        let run = || {
            let here = home.join(in_directory);
            let state = home.join("st").display().to_string();
            let mut command =
                cli.command(&["batch", file, "--json", "--quiet", "--state-dir", &state]);
            let summary = Exited::of(
                command
                    .current_dir(&here)
                    .env("PWD", &here)
                    .output()
                    .unwrap(),
            )
            .ok()
            .json();
            (summary["opened"].as_u64(), summary["replayed"].as_u64())
        };
        release("..1", "guest_id,first_name,attr.a\nk-ann,,1\nk-bob,,1\n");
        symlink("..data/guests.csv", home.join("vol/guests.csv")).unwrap();
        assert_eq!(run(), (Some(2), Some(0)), "{file} in {in_directory}");
        release(
            "..2",
            "guest_id,first_name,attr.a\nk-ann,,1\nk-bob,,1\nk-cy,,1\n",
        );
        fs::remove_dir_all(home.join("vol/..1")).unwrap();
        assert_eq!(run(), (Some(1), Some(2)), "{file} in {in_directory}");
        cli.assert_each_guest_once(3);
    }
}

#[test]
fn batch_key_is_the_same_for_every_spelling_of_a_path() {
    let cli = TestCli::open(&[]);
    fs::create_dir(cli.directory.path().join("sub")).unwrap();
    cli.write("guests.csv", "guest_id\nann\n");
    let full = cli
        .directory
        .path()
        .canonicalize()
        .unwrap()
        .join("guests.csv")
        .display()
        .to_string();
    for (n, file) in ["guests.csv", "./guests.csv", "sub/../guests.csv", &full]
        .into_iter()
        .enumerate()
    {
        assert_eq!(
            batch(&cli, file).1,
            json!([u8::from(n == 0), u8::from(n > 0), 0]),
            "{file}"
        );
    }
    cli.assert_each_guest_once(1);
}

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
fn invisible_characters_are_refused_in_identifiers() {
    let cli = TestCli::open(&[]);
    cli.write("zw.csv", "guest_id,attr.a\nzw-bob,1\nzw-bob\u{200b},1\n\u{feff}cy,1\n\u{202a}dee,1\nzw-eve,va\u{200d}lue\n");
    let exited = cli.run(&["batch", "zw.csv"]);
    assert_eq!(exited.code, 3);
    for part in [
        "row 2 (line 3): guestId has an invisible character (U+200B) at position 7",
        "row 3 (line 4): guestId has an invisible character (U+FEFF) at position 1",
        "row 4 (line 5): guestId has an invisible character (U+202A) at position 1",
    ] {
        assert!(exited.stderr.contains(part), "{part}\n{}", exited.stderr);
    }
    cli.assert_each_guest_once(2);
    let cases: &[(&[&str], &str)] = &[
        (
            &[
                "create",
                "--guest",
                "ann",
                "--email",
                "zw@example.org\u{200b}",
            ],
            "email has an invisible character (U+200B) at position 15",
        ),
        (
            &[
                "create",
                "--guest",
                "ann",
                "--phone",
                "+31 20 555\u{202a} 0100",
            ],
            "phone has an invisible character (U+202A) at position 11",
        ),
        (
            &["create", "--guest", "ann", "--first-name", "A\u{ad}nn"],
            "firstName has an invisible character (U+00AD) at position 2",
        ),
        (
            &["create", "--guest", "ann", "--attr", "ti\u{2060}er=x"],
            "the name has an invisible character (U+2060) at position 3",
        ),
        (
            &["create", "--guest", "ann", "--idempotency-key", "k\u{200b}"],
            "idempotencyKey has an invisible character (U+200B) at position 2",
        ),
        (
            &[
                "create",
                "--guest",
                "ann",
                "--queue",
                "\u{feff}5e0c0000-0000-4000-8000-000000000001",
            ],
            "queueId has an invisible character (U+FEFF) at position 1",
        ),
        (
            &[
                "api-keys",
                "create",
                "--name",
                "web\u{2028}",
                "--scope",
                "admin",
            ],
            "--name has an invisible character (U+2028) at position 4",
        ),
        (
            &["batch", "zw.csv", "--batch-key", "night\u{200b}"],
            "--batch-key has an invisible character (U+200B) at position 6",
        ),
    ];
    for (arguments, part) in cases {
        let exited = cli.run(arguments);
        assert!(
            exited.code == 2 && exited.stderr.contains(part),
            "{part}\n{}",
            exited.stderr
        );
    }
    cli.write("heading.csv", "guest_id\u{200b}\nann\n");
    let exited = cli.run(&["batch", "heading.csv"]);
    assert!(
        exited
            .stderr
            .contains("heading has an invisible character (U+200B) at position 9"),
        "{}",
        exited.stderr
    );
}

/// Returns the phone numbers of all requested contacts, as written and as the identifier.
fn phones(cli: &TestCli) -> Vec<(String, String)> {
    let of = |entry: Value| {
        let body: Value = serde_json::from_str(entry["body"].as_str().unwrap()).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (
            text(&body["contact"]["cellPhone"]["display"]),
            text(&body["matchingIdentifiers"][0]["value"]),
        )
    };
    let mut phones: Vec<_> = cli.journal("contact").into_iter().map(of).collect();
    phones.sort();
    phones
}

#[test]
fn phone_numbers_are_accepted_in_documented_formats() {
    let forms = [
        ("(+44)121.555.5251", "+441215555251"),
        ("+1 2325554316", "+12325554316"),
        ("+1 321 555 5554", "+13215555554"),
        ("+1 321 555 9872 x 123", "+13215559872"),
        ("+1 415-555-2629", "+14155552629"),
        ("+2923455532432", "+2923455532432"),
        ("+441213315000", "+441213315000"),
        ("+591 7433925553", "+5917433925553"),
        ("0013215550000", "+13215550000"),
        ("0044 121 555 0000", "+441215550000"),
    ];
    let cli = TestCli::open(&[]);
    let rows: String = forms
        .iter()
        .enumerate()
        .map(|(n, (phone, _))| format!("guest-{n},{phone}\n"))
        .collect();
    cli.write(
        "guests.csv",
        &format!("guest_id,phone\n{rows}home,+31 (0)20 555 0100\n"),
    );
    let mut command = cli.command(&["batch", "guests.csv"]);
    command
        .env("GUESTLANE_SURFACE", "open-messaging")
        .env("GENESYS_EXTERNAL_SOURCE_ID", "");
    let exited = Exited::of(command.output().unwrap());
    assert!(
        exited
            .stdout
            .starts_with("11 rows: 10 opened, 0 replayed, 1 failed"),
        "{}{}",
        exited.stdout,
        exited.stderr
    );
    assert!(
        exited
            .stderr
            .contains("row 11 (line 12): phone has an invalid format"),
        "{}",
        exited.stderr
    );
    assert_eq!(
        phones(&cli),
        forms.map(|(phone, number)| (phone.to_owned(), number.to_owned()))
    );
    // The same number in another form matches the same contact.
    cli.write("again.csv", "guest_id,phone\nother,+441215555251\n");
    let mut command = cli.command(&["batch", "again.csv"]);
    command
        .env("GUESTLANE_SURFACE", "open-messaging")
        .env("GENESYS_EXTERNAL_SOURCE_ID", "");
    Exited::of(command.output().unwrap()).ok();
    assert_eq!(cli.state()["contacts"], 10);
}

#[test]
fn guest_id_stored_by_an_earlier_version_can_be_listed_and_erased() {
    let cli = TestCli::open(&[]);
    cli.run(&["create", "--guest", "zw-bob", "--attr", "tier=gold"])
        .ok();
    let store =
        rusqlite::Connection::open(cli.directory.path().join(".guestlane/guestlane.db")).unwrap();
    let change = "UPDATE session SET guest_id = 'zw-bob\u{200b}', attributes = '{\"ti\u{200b}er\":\"gold\"}'";
    assert_eq!(store.execute(change, []).unwrap(), 1);
    drop(store);
    let listed = cli.run(&["sessions", "list", "--json"]).ok();
    assert!(
        listed.stdout.contains("zw-bob\u{200b}"),
        "{}",
        listed.stdout
    );
    cli.run(&["create", "--guest", "ann"]).ok();
    cli.run(&["guests", "erase", "zw-bob\u{200b}", "--yes"])
        .ok();
    assert!(
        !cli.run(&["sessions", "list", "--json"])
            .ok()
            .stdout
            .contains("zw-bob")
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

#[test]
fn api_key_is_not_created_when_it_cannot_be_printed() {
    let cli = TestCli::open(&[]);
    let create = ["api-keys", "create", "--name", "web", "--scope", "admin"];
    let first = cli.run(&create).ok().stdout;
    for more in [&[][..], &["--json"], &["--replaces", &first[3..15]]] {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let exited = cli
            .command(&[&create, more].concat())
            .stdout(full)
            .output()
            .unwrap();
        let stderr = String::from_utf8(exited.stderr).unwrap();
        assert!(
            exited.status.code() == Some(1) && stderr.contains("so no key was created"),
            "{stderr}"
        );
        assert!(!stderr.contains("shows it again"), "{stderr}");
    }
    let keys = cli.run(&["api-keys", "list", "--json"]).ok().stdout;
    assert_eq!(keys.lines().count(), 1, "{keys}");
    let key: Value = serde_json::from_str(keys.trim()).unwrap();
    assert_eq!(
        (&key["state"], &key["expiresAt"]),
        (&json!("good"), &Value::Null),
        "what was to be replaced stays as it was"
    );
}

#[test]
fn byte_order_mark_is_ignored_in_settings_and_ca_files() {
    let cli = TestCli::open(&["--tls"]);
    cli.write(
        "guestlane.toml",
        "\u{feff}[genesys]\nfirst_message = \"Hi\"\n",
    );
    let shown = cli.run(&["config", "show"]).ok().stdout;
    assert!(shown.contains("guestlane.toml"), "{shown}");
    let ca = fs::read_to_string(cli.startup["caFile"].as_str().unwrap()).unwrap();
    let run = |name: &str, pem: &str| {
        cli.write(name, pem);
        let mut command = cli.command(&["create", "--guest", "ann", "--idempotency-key", "k"]);
        Exited::of(
            command
                .env("GENESYS_CA_FILE", name)
                .env("CRM_CA_FILE", name)
                .output()
                .unwrap(),
        )
    };
    run("bom.pem", &format!("\u{feff}{ca}")).ok();
    let glued = run("glued.pem", &format!("{}{ca}", ca.trim_end()));
    let line = ca.trim_end().lines().count();
    assert!(
        glued.code == 2
            && glued.stderr.contains(&format!(
                "has other text beside -----BEGIN …----- in line {line}"
            )),
        "{}",
        glued.stderr
    );
    let trusted = run(
        "trusted.pem",
        &format!("{ca}{}", ca.replace("CERTIFICATE", "TRUSTED CERTIFICATE")),
    );
    assert!(
        trusted.code == 2
            && trusted
                .stderr
                .contains("has an unsupported section `TRUSTED CERTIFICATE` in line"),
        "{}",
        trusted.stderr
    );
}

#[test]
fn byte_order_mark_is_ignored_in_key_proof_and_checkpoint_files() {
    let cli = TestCli::open(&[]);
    let session = cli.run(&["create", "--guest", "ann", "--json"]).ok().json()["sessionId"]
        .as_str()
        .unwrap()
        .to_owned();
    cli.write(
        "key.txt",
        &format!("\u{feff}{}", cli.run(&["audit", "key"]).ok().stdout),
    );
    cli.write(
        "proof.json",
        &format!(
            "\u{feff}{}",
            cli.run(&["audit", "prove", &session]).ok().stdout
        ),
    );
    cli.run(&[
        "audit",
        "verify",
        "--key",
        "key.txt",
        "--proof",
        "proof.json",
    ])
    .ok();
    let checkpoint = cli.read("audit/session-audit.jsonl.checkpoint");
    cli.write("kept.txt", &format!("\u{feff}{checkpoint}"));
    cli.run(&["audit", "verify", "--checkpoint", "kept.txt"])
        .ok();
    let master = cli.directory.path().join(".guestlane/master.key");
    let key = fs::read_to_string(&master).unwrap();
    fs::write(&master, format!("\u{feff}{key}\r\n")).unwrap();
    cli.run(&["create", "--guest", "bob"]).ok();
}

/// Inputs of one row each, with the field that is rejected. Rows that begin with `{` are rejected
/// with the same field by every input.
const ROWS: &[(&[u8], Option<&str>)] = &[
    (br#"{"guestId":"ann"}"#, None),
    (b"\xef\xbb\xbf{\"guestId\":\"ann\"}", None),
    (
        b"\xef\xbb\xbf\xef\xbb\xbf{\"guestId\":\"ann\"}",
        Some("row"),
    ),
    (b" \t{\"guestId\":\"ann\"} \r\n", None),
    (b"{\"guestId\":\"ann\"}\r", None),
    (
        br#"{"guestId":"ann","attributes":null,"queueId":null,"idempotencyKey":null,"email":null}"#,
        None,
    ),
    (br#"{"guestId":"ann","attributes":[]}"#, None),
    (br#"{"guestId":"ann","email":"","firstName":" "}"#, None),
    (
        br#"{"guestId":"ann","attributes":["x"]}"#,
        Some("attributes"),
    ),
    (br#"{"guestId":"ann","attributes":"x"}"#, Some("attributes")),
    (
        br#"{"guestId":"ann","attributes":{"a":1}}"#,
        Some("attributes.a"),
    ),
    (
        br#"{"guestId":"ann","attributes":{"a":"1","a":"1"}}"#,
        Some("attributes.a"),
    ),
    (
        br#"{"guestId":"ann","attributes":{"exp":"1"}}"#,
        Some("attributes.exp"),
    ),
    ("{\"guestId\":\"ann\u{200b}\"}".as_bytes(), Some("guestId")),
    (br#"{"guestId":"ann\u200b"}"#, Some("guestId")),
    (br#"{"guestId":" ann"}"#, Some("guestId")),
    (br#"{"guestId":""}"#, Some("guestId")),
    (br#"{"guestId":7}"#, Some("guestId")),
    (br#"{"guestId":null}"#, Some("guestId")),
    (br#"{"guestId":"ann","queueId":""}"#, Some("queueId")),
    (br#"{"guestId":"ann","queueId":"sales"}"#, Some("queueId")),
    (
        br#"{"guestId":"ann","idempotencyKey":""}"#,
        Some("idempotencyKey"),
    ),
    (
        br#"{"guestId":"ann","email":"ann@example.org"}"#,
        Some("email"),
    ),
    (br#"{"guestId":"ann","email":"ann"}"#, Some("email")),
    (br#"{"guestId":"ann","guestId":"bob"}"#, Some("row")),
    (br#"{"guestid":"ann"}"#, Some("guestid")),
    (br"{}", Some("guestId")),
    (br#"{"guestId":"ann"} {}"#, Some("row")),
    (br#"{"guestId":"ann""#, Some("row")),
    (br#"{"guestId":"ann\ud800"}"#, Some("guestId")),
    (b"{\"guestId\":\"ann\xff\"}", Some("guestId")),
    (b"{\"guestId\":\"ann\tx\"}", Some("guestId")),
    (br#"["ann"]"#, Some("row")),
    (br#"[{"guestId":"ann"}]"#, Some("row")),
    (b"null", Some("row")),
    (b"\"ann\"", Some("row")),
    (b"\xff\xfe{\0", Some("row")),
];

/// The outcome of a row. `Err` has the rejected field.
type Outcome = Result<(), String>;

fn outcome(error: &Value) -> Outcome {
    if error.is_null() {
        Ok(())
    } else {
        Err(error["field"].as_str().unwrap_or("row").to_owned())
    }
}

fn outcome_of_file(cli: &TestCli, text: &[u8], number: usize) -> Outcome {
    let (file, out, key) = (
        format!("{number}.jsonl"),
        format!("{number}.out"),
        format!("file-{number}"),
    );
    fs::write(cli.directory.path().join(&file), text).unwrap();
    let exited = cli.run(&[
        "batch",
        &file,
        "--output",
        &out,
        "--quiet",
        "--batch-key",
        &key,
    ]);
    if exited.code == 2 {
        // The file is rejected as a whole.
        return Err("row".to_owned());
    }
    let lines = cli.read(&out);
    assert_eq!(lines.lines().count(), 1, "{}", exited.stderr);
    outcome(&serde_json::from_str::<Value>(lines.trim()).unwrap()["error"])
}

fn outcome_of_stdin(cli: &TestCli, text: &[u8], number: usize) -> Outcome {
    let key = format!("stdin-{number}");
    let mut command = cli.command(&["batch", "-", "--json", "--quiet", "--batch-key", &key]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(text);
    let exited = Exited::of(child.wait_with_output().unwrap());
    if exited.code == 2 {
        return Err("row".to_owned());
    }
    outcome(&serde_json::from_str::<Value>(exited.stdout.lines().next().unwrap()).unwrap()["error"])
}

fn outcome_of_enqueue(cli: &TestCli, database: &str, text: &[u8], number: usize) -> Outcome {
    let (file, key) = (format!("{number}.jsonl"), format!("queue-{number}"));
    fs::write(cli.directory.path().join(&file), text).unwrap();
    let mut command = cli.command(&["batch", "enqueue", &file, "--json", "--batch-key", &key]);
    let exited = Exited::of(
        command
            .env("GUESTLANE_DATABASE_URL", database)
            .output()
            .unwrap(),
    );
    match exited.code {
        0 => Ok(()),
        3 => {
            let reported = exited
                .stderr
                .lines()
                .find_map(|line| line.strip_prefix("row 1: "))
                .unwrap();
            Err(reported.split(' ').next().unwrap().to_owned())
        }
        _ => Err("row".to_owned()),
    }
}

/// Sends a request, and returns the body of the response.
fn post(service: &ServiceProcess, path: &str, kind: &str, key: &str, text: &[u8]) -> String {
    let host = service.address.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nhost: {host}\r\nauthorization: Bearer {key}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        text.len()
    )
    .unwrap();
    stream.write_all(text).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn outcome_of_request(service: &ServiceProcess, key: &str, text: &[u8]) -> Outcome {
    let answer: Value = serde_json::from_str(&post(
        service,
        "/v1/sessions",
        "application/json",
        key,
        text,
    ))
    .unwrap();
    if answer["sessionId"].is_string() && answer["code"].is_null() {
        Ok(())
    } else {
        outcome(&answer)
    }
}

fn outcome_of_batch_request(service: &ServiceProcess, key: &str, text: &[u8]) -> Outcome {
    let answer = post(
        service,
        "/v1/sessions:batch",
        "application/jsonl",
        key,
        text,
    );
    outcome(&serde_json::from_str::<Value>(answer.lines().next().unwrap()).unwrap()["error"])
}

#[test]
fn all_inputs_accept_and_reject_the_same_rows() {
    let cli = TestCli::open(&[]);
    let database = guestlane_testkit::new_schema();
    let key = cli.api_key("sessions:write");
    let service = cli.serve(&[], &[]);
    let long = format!(
        "{{\"guestId\":\"ann\",\"attributes\":{{\"a\":\"{}\"}}}}",
        "x".repeat(64 * 1024)
    );
    let deep = format!(
        "{{\"guestId\":\"ann\",\"attributes\":{}1{}}}",
        "[".repeat(40),
        "]".repeat(40)
    );
    let more = [
        (long.as_bytes(), Some("row")),
        (deep.as_bytes(), Some("row")),
    ];
    for (number, (text, field)) in ROWS.iter().copied().chain(more).enumerate() {
        let expected = field.map_or(Ok(()), |field| Err(field.to_owned()));
        let shown = String::from_utf8_lossy(text)
            .chars()
            .take(80)
            .collect::<String>();
        for (entrance, outcome) in [
            ("file", outcome_of_file(&cli, text, number)),
            ("standard input", outcome_of_stdin(&cli, text, number)),
            (
                "batch enqueue",
                outcome_of_enqueue(&cli, &database, text, number),
            ),
            (
                "POST /v1/sessions",
                outcome_of_request(&service, &key, text),
            ),
            (
                "POST /v1/sessions:batch",
                outcome_of_batch_request(&service, &key, text),
            ),
        ] {
            assert_eq!(outcome, expected, "{entrance}: {shown}");
        }
    }
}
