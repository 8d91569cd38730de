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

use serde_json::{Value, json};

use crate::{
    harness::{Ended, Office},
    service_process::Served,
};

fn batch(office: &Office, file: &str) -> (i32, Value) {
    let ended = office.run(&["batch", file, "--json", "--quiet"]);
    let summary = ended.json();
    (
        ended.code,
        json!([summary["opened"], summary["replayed"], summary["failed"]]),
    )
}

/// Replaces a symbolic link atomically, as kubelet does.
fn point(link: &Path, target: &str) {
    let draft = link.with_file_name("draft");
    symlink(target, &draft).unwrap();
    fs::rename(&draft, link).unwrap();
}

#[test]
fn a_batch_keeps_its_name_when_a_link_leads_elsewhere() {
    for (file, in_directory) in [
        ("vol/guests.csv", "."),
        ("vol/..data/guests.csv", "."),
        ("guests.csv", "vol/..data"),
        ("./../vol/guests.csv", "vol"),
    ] {
        let office = Office::open(&[]);
        let home = office.directory.path();
        let release = |name: &str, rows: &str| {
            fs::create_dir_all(home.join("vol").join(name)).unwrap();
            fs::write(home.join("vol").join(name).join("guests.csv"), rows).unwrap();
            point(&home.join("vol/..data"), name);
        };
        let run = || {
            let here = home.join(in_directory);
            let state = home.join("st").display().to_string();
            let mut command =
                office.command(&["batch", file, "--json", "--quiet", "--state-dir", &state]);
            let summary = Ended::of(
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
        office.assert_each_guest_once(3);
    }
}

#[test]
fn one_file_has_one_name_however_its_path_is_written() {
    let office = Office::open(&[]);
    fs::create_dir(office.directory.path().join("sub")).unwrap();
    office.write("guests.csv", "guest_id\nann\n");
    let full = office
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
            batch(&office, file).1,
            json!([u8::from(n == 0), u8::from(n > 0), 0]),
            "{file}"
        );
    }
    office.assert_each_guest_once(1);
}

#[test]
fn an_open_quotation_mark_refuses_its_lines_with_any_line_break() {
    for line_break in ["\n", "\r", "\r\n"] {
        let office = Office::open(&[]);
        office.write(
            "guests.csv",
            &["guest_id,attr.note", "ann,\"unclosed", "bob,x", "cy,y", ""].join(line_break),
        );
        let check = office.run(&["batch", "guests.csv", "--dry-run"]);
        assert_eq!(
            (check.code, check.stdout.trim()),
            (3, "1 row: 0 valid, 1 invalid; nothing was sent"),
            "{line_break:?}"
        );
        let ended = office.run(&["batch", "guests.csv"]);
        assert_eq!(ended.code, 3);
        let part = "row 1 (line 2): row spans the lines 2 to 4: a quotation mark is not closed; these lines were skipped";
        assert!(
            ended.stderr.contains(part),
            "{line_break:?}: {}",
            ended.stderr
        );
        office.assert_each_guest_once(0);
    }
}

#[test]
fn csv_that_does_not_follow_rfc_4180_is_refused_and_never_repaired() {
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
        let office = Office::open(&[]);
        office.write(
            "guests.csv",
            &format!("guest_id,attr.a\nann,x\n{row}\ncy,y"),
        );
        let ended = office.run(&["batch", "guests.csv"]);
        assert!(
            ended.code == 3 && ended.stderr.contains(part),
            "{row}: {}",
            ended.stderr
        );
        office.assert_each_guest_once(1 + u64::from(last_is_used));
        assert!(
            !office
                .journal("contact")
                .iter()
                .any(|entry| entry["body"].as_str().unwrap().contains("bob")),
            "{row}"
        );
    }
    let office = Office::open(&[]);
    office.write("cut.csv", "guest_id,first_name,attr.a\nann,,x\nbob,");
    let ended = office.run(&["batch", "cut.csv"]);
    assert!(
        ended.code == 3 && ended.stderr.contains("row 2 (line 3): row has 2 columns"),
        "a file that was cut: {}",
        ended.stderr
    );
    office.write("heading.csv", "guest_id, \"email\"\nann,x\n");
    let ended = office.run(&["batch", "heading.csv"]);
    assert!(
        ended.code == 2
            && ended
                .stderr
                .contains("heading has white space before a quotation mark"),
        "{}",
        ended.stderr
    );
}

#[test]
fn characters_that_no_reader_sees_are_refused_in_identifiers() {
    let office = Office::open(&[]);
    office.write("zw.csv", "guest_id,attr.a\nzw-bob,1\nzw-bob\u{200b},1\n\u{feff}cy,1\n\u{202a}dee,1\nzw-eve,va\u{200d}lue\n");
    let ended = office.run(&["batch", "zw.csv"]);
    assert_eq!(ended.code, 3);
    for part in [
        "row 2 (line 3): guestId has an invisible character (U+200B) at position 7",
        "row 3 (line 4): guestId has an invisible character (U+FEFF) at position 1",
        "row 4 (line 5): guestId has an invisible character (U+202A) at position 1",
    ] {
        assert!(ended.stderr.contains(part), "{part}\n{}", ended.stderr);
    }
    office.assert_each_guest_once(2);
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
        let ended = office.run(arguments);
        assert!(
            ended.code == 2 && ended.stderr.contains(part),
            "{part}\n{}",
            ended.stderr
        );
    }
    office.write("heading.csv", "guest_id\u{200b}\nann\n");
    let ended = office.run(&["batch", "heading.csv"]);
    assert!(
        ended
            .stderr
            .contains("heading has an invisible character (U+200B) at position 9"),
        "{}",
        ended.stderr
    );
}

/// Returns the phone numbers of all requested contacts, as written and as the identifier.
fn phones(office: &Office) -> Vec<(String, String)> {
    let of = |entry: Value| {
        let body: Value = serde_json::from_str(entry["body"].as_str().unwrap()).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (
            text(&body["contact"]["cellPhone"]["display"]),
            text(&body["matchingIdentifiers"][0]["value"]),
        )
    };
    let mut phones: Vec<_> = office.journal("contact").into_iter().map(of).collect();
    phones.sort();
    phones
}

#[test]
fn telephone_numbers_are_taken_in_the_forms_that_the_platform_documents() {
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
    let office = Office::open(&[]);
    let rows: String = forms
        .iter()
        .enumerate()
        .map(|(n, (phone, _))| format!("guest-{n},{phone}\n"))
        .collect();
    office.write(
        "guests.csv",
        &format!("guest_id,phone\n{rows}home,+31 (0)20 555 0100\n"),
    );
    let mut command = office.command(&["batch", "guests.csv"]);
    command
        .env("GUESTLANE_SURFACE", "open-messaging")
        .env("GENESYS_EXTERNAL_SOURCE_ID", "");
    let ended = Ended::of(command.output().unwrap());
    assert!(
        ended
            .stdout
            .starts_with("11 rows: 10 opened, 0 replayed, 1 failed"),
        "{}{}",
        ended.stdout,
        ended.stderr
    );
    assert!(
        ended
            .stderr
            .contains("row 11 (line 12): phone has an invalid format"),
        "{}",
        ended.stderr
    );
    assert_eq!(
        phones(&office),
        forms.map(|(phone, number)| (phone.to_owned(), number.to_owned()))
    );
    // The same number in another form matches the same contact.
    office.write("again.csv", "guest_id,phone\nother,+441215555251\n");
    let mut command = office.command(&["batch", "again.csv"]);
    command
        .env("GUESTLANE_SURFACE", "open-messaging")
        .env("GENESYS_EXTERNAL_SOURCE_ID", "");
    Ended::of(command.output().unwrap()).ok();
    assert_eq!(office.state()["contacts"], 10);
}

#[test]
fn a_guest_whose_id_an_earlier_version_took_is_still_found_and_erased() {
    let office = Office::open(&[]);
    office
        .run(&["create", "--guest", "zw-bob", "--attr", "tier=gold"])
        .ok();
    let store = rusqlite::Connection::open(office.directory.path().join(".guestlane/guestlane.db"))
        .unwrap();
    let change = "UPDATE session SET guest_id = 'zw-bob\u{200b}', attributes = '{\"ti\u{200b}er\":\"gold\"}'";
    assert_eq!(store.execute(change, []).unwrap(), 1);
    drop(store);
    let listed = office.run(&["sessions", "list", "--json"]).ok();
    assert!(
        listed.stdout.contains("zw-bob\u{200b}"),
        "{}",
        listed.stdout
    );
    office.run(&["create", "--guest", "ann"]).ok();
    office
        .run(&["guests", "erase", "zw-bob\u{200b}", "--yes"])
        .ok();
    assert!(
        !office
            .run(&["sessions", "list", "--json"])
            .ok()
            .stdout
            .contains("zw-bob")
    );
}

#[test]
fn what_a_spreadsheet_adds_is_none_and_what_it_rounds_is_warned_of() {
    let office = Office::open(&[]);
    office.write(
        "guests.csv",
        "guest_id,attr.a,\n,,\nann,1,\n,,\n\"\",,\nbob,,\n, ,\n",
    );
    assert_eq!(batch(&office, "guests.csv"), (0, json!([2, 0, 0])));
    office.write("extra.csv", "guest_id,attr.a,\nann,1,surplus\n");
    let ended = office.run(&["batch", "extra.csv"]);
    assert!(
        ended
            .stderr
            .contains("row has a value in column 3, but the heading does not name that column"),
        "{}",
        ended.stderr
    );
    office.write(
        "ids.csv",
        "guest_id\n1.23457E+17\n\"8,96529E+19\"\n1E+5x\n12345\n",
    );
    let ended = office.run(&["batch", "ids.csv", "--dry-run"]);
    assert_eq!(ended.code, 0, "a warning is no failure");
    assert_eq!(
        ended
            .stderr
            .matches("looks like a number that a spreadsheet rounded")
            .count(),
        2,
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.contains("row 1 (line 2): warning: guestId"),
        "{}",
        ended.stderr
    );
    let json = office
        .run(&["batch", "ids.csv", "--dry-run", "--json"])
        .json();
    assert_eq!(json, json!({"rows": 4, "good": 4, "bad": 0, "warned": 2}));
    for text in [
        "[{\"guestId\":\"x\"}]",
        "\u{feff}\n [\n{\"guestId\":\"x\"}\n]\n",
    ] {
        office.write("array.json", text);
        let ended = office.run(&["batch", "array.json"]);
        assert!(
            ended.code == 2 && ended.stderr.contains("is a JSON array"),
            "{}",
            ended.stderr
        );
    }
    office.assert_each_guest_once(2);
}

#[test]
fn a_pipe_that_delivers_its_first_bytes_one_by_one_is_read_as_a_file_is() {
    let office = Office::open(&[]);
    let mut command = office.command(&["batch", "-", "--json", "--quiet"]);
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
        crate::service_harness::pause(20);
    }
    drop(stdin);
    let ended = Ended::of(child.wait_with_output().unwrap()).ok();
    assert_eq!(
        (&ended.json()["opened"], &ended.json()["failed"]),
        (&json!(3), &json!(0))
    );
    office.assert_each_guest_once(3);
}

#[test]
fn a_row_that_is_too_long_is_refused_and_the_next_one_is_used() {
    let office = Office::open(&[]);
    let long = "x".repeat(64 * 1024);
    office.write(
        "guests.csv",
        &format!("guest_id,attr.a\nann,{long}\nbob,\n"),
    );
    office.write(
        "rows.jsonl",
        &format!(
            "{{\"guestId\":\"ann\",\"attributes\":{{\"a\":\"{long}\"}}}}\r{{\"guestId\":\"cy\"}}\r"
        ),
    );
    for file in ["guests.csv", "rows.jsonl"] {
        let ended = office.run(&["batch", file]);
        assert!(
            ended.code == 3 && ended.stderr.contains("row has more than 65536 bytes"),
            "{file}: {}",
            ended.stderr
        );
        assert!(
            ended
                .stdout
                .starts_with("2 rows: 1 opened, 0 replayed, 1 failed"),
            "{file}: {}",
            ended.stdout
        );
    }
}

#[test]
fn a_key_that_cannot_be_printed_is_not_made() {
    let office = Office::open(&[]);
    let create = ["api-keys", "create", "--name", "web", "--scope", "admin"];
    let first = office.run(&create).ok().stdout;
    for more in [&[][..], &["--json"], &["--replaces", &first[3..15]]] {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let ended = office
            .command(&[&create, more].concat())
            .stdout(full)
            .output()
            .unwrap();
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert!(
            ended.status.code() == Some(1) && stderr.contains("so no key was created"),
            "{stderr}"
        );
        assert!(!stderr.contains("shows it again"), "{stderr}");
    }
    let keys = office.run(&["api-keys", "list", "--json"]).ok().stdout;
    assert_eq!(keys.lines().count(), 1, "{keys}");
    let key: Value = serde_json::from_str(keys.trim()).unwrap();
    assert_eq!(
        (&key["state"], &key["expiresAt"]),
        (&json!("good"), &Value::Null),
        "what was to be replaced stays as it was"
    );
}

#[test]
fn a_byte_order_mark_has_no_meaning_in_settings_and_certificates() {
    let office = Office::open(&["--tls"]);
    office.write(
        "guestlane.toml",
        "\u{feff}[genesys]\nfirst_message = \"Hi\"\n",
    );
    let shown = office.run(&["config", "show"]).ok().stdout;
    assert!(shown.contains("guestlane.toml"), "{shown}");
    let ca = fs::read_to_string(office.says["caFile"].as_str().unwrap()).unwrap();
    let run = |name: &str, pem: &str| {
        office.write(name, pem);
        let mut command = office.command(&["create", "--guest", "ann", "--idempotency-key", "k"]);
        Ended::of(
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
            && glued
                .stderr
                .contains(&format!("has text before -----BEGIN in line {line}")),
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
fn a_byte_order_mark_has_no_meaning_in_keys_and_proofs() {
    let office = Office::open(&[]);
    let session = office
        .run(&["create", "--guest", "ann", "--json"])
        .ok()
        .json()["sessionId"]
        .as_str()
        .unwrap()
        .to_owned();
    office.write(
        "key.txt",
        &format!("\u{feff}{}", office.run(&["audit", "key"]).ok().stdout),
    );
    office.write(
        "proof.json",
        &format!(
            "\u{feff}{}",
            office.run(&["audit", "prove", &session]).ok().stdout
        ),
    );
    office
        .run(&[
            "audit",
            "verify",
            "--key",
            "key.txt",
            "--proof",
            "proof.json",
        ])
        .ok();
    let checkpoint = office.read("audit/session-audit.jsonl.checkpoint");
    office.write("kept.txt", &format!("\u{feff}{checkpoint}"));
    office
        .run(&["audit", "verify", "--checkpoint", "kept.txt"])
        .ok();
    let master = office.directory.path().join(".guestlane/master.key");
    let key = fs::read_to_string(&master).unwrap();
    fs::write(&master, format!("\u{feff}{key}\r\n")).unwrap();
    office.run(&["create", "--guest", "bob"]).ok();
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

fn of_file(office: &Office, text: &[u8], number: usize) -> Outcome {
    let (file, out, key) = (
        format!("{number}.jsonl"),
        format!("{number}.out"),
        format!("file-{number}"),
    );
    fs::write(office.directory.path().join(&file), text).unwrap();
    let ended = office.run(&[
        "batch",
        &file,
        "--output",
        &out,
        "--quiet",
        "--batch-key",
        &key,
    ]);
    if ended.code == 2 {
        // The file is rejected as a whole.
        return Err("row".to_owned());
    }
    let lines = office.read(&out);
    assert_eq!(lines.lines().count(), 1, "{}", ended.stderr);
    outcome(&serde_json::from_str::<Value>(lines.trim()).unwrap()["error"])
}

fn of_standard_input(office: &Office, text: &[u8], number: usize) -> Outcome {
    let key = format!("stdin-{number}");
    let mut command = office.command(&["batch", "-", "--json", "--quiet", "--batch-key", &key]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(text);
    let ended = Ended::of(child.wait_with_output().unwrap());
    if ended.code == 2 {
        return Err("row".to_owned());
    }
    outcome(&serde_json::from_str::<Value>(ended.stdout.lines().next().unwrap()).unwrap()["error"])
}

fn of_enqueue(office: &Office, database: &str, text: &[u8], number: usize) -> Outcome {
    let (file, key) = (format!("{number}.jsonl"), format!("queue-{number}"));
    fs::write(office.directory.path().join(&file), text).unwrap();
    let mut command = office.command(&["batch", "enqueue", &file, "--json", "--batch-key", &key]);
    let ended = Ended::of(
        command
            .env("GUESTLANE_DATABASE_URL", database)
            .output()
            .unwrap(),
    );
    match ended.code {
        0 => Ok(()),
        3 => {
            let told = ended
                .stderr
                .lines()
                .find_map(|line| line.strip_prefix("row 1: "))
                .unwrap();
            Err(told.split(' ').next().unwrap().to_owned())
        }
        _ => Err("row".to_owned()),
    }
}

/// Sends a request, and returns the body of the response.
fn post(served: &Served, path: &str, kind: &str, key: &str, text: &[u8]) -> String {
    let host = served.address.strip_prefix("http://").unwrap();
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

fn of_request(served: &Served, key: &str, text: &[u8]) -> Outcome {
    let answer: Value =
        serde_json::from_str(&post(served, "/v1/sessions", "application/json", key, text)).unwrap();
    if answer["sessionId"].is_string() && answer["code"].is_null() {
        Ok(())
    } else {
        outcome(&answer)
    }
}

fn of_request_of_many(served: &Served, key: &str, text: &[u8]) -> Outcome {
    let answer = post(served, "/v1/sessions:batch", "application/jsonl", key, text);
    outcome(&serde_json::from_str::<Value>(answer.lines().next().unwrap()).unwrap()["error"])
}

#[test]
fn the_same_bytes_mean_the_same_at_every_entrance() {
    let office = Office::open(&[]);
    let database = guestlane_testkit::new_schema();
    let key = office.api_key("sessions:write");
    let served = office.serve(&[], &[]);
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
            ("file", of_file(&office, text, number)),
            ("standard input", of_standard_input(&office, text, number)),
            (
                "batch enqueue",
                of_enqueue(&office, &database, text, number),
            ),
            ("POST /v1/sessions", of_request(&served, &key, text)),
            (
                "POST /v1/sessions:batch",
                of_request_of_many(&served, &key, text),
            ),
        ] {
            assert_eq!(outcome, expected, "{entrance}: {shown}");
        }
    }
}
