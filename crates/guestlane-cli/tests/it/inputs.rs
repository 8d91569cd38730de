//! Input from files, standard input and HTTP. The same bytes have the same meaning everywhere, and
//! invalid input is rejected with the name of the field, never repaired.

mod byte_order_marks;
mod consistency;
mod csv;

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
