//! Invalid input: the error names field, reason and fix, and nothing is created or sent.

use std::{fs, os::unix::fs::PermissionsExt};

use guestlane_testkit::cli::{TestCli, run_in};

#[test]
fn missing_settings_are_all_listed_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let exited = run_in(directory.path(), &["create", "--guest", "ann"], &[]);
    assert_eq!((exited.code, exited.stdout.as_str()), (2, ""));
    insta::assert_snapshot!(exited.stderr);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn invalid_argument_or_setting_is_named_and_nothing_is_sent() {
    let cli = TestCli::open(&[]);
    let long = "x".repeat(129);
    let (long_key, large) = ("k".repeat(256), format!("note={}", "x".repeat(2045)));
    /// Arguments, settings, and a part of the expected message.
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);
    let cases: &[Case<'_>] = &[
        (&["--guest", ""], &[], "guestId is empty"),
        (&["--guest", &long], &[], "guestId has 129 characters"),
        (
            &["--guest", "a\u{1}b"],
            &[],
            "guestId has a control character (U+0001) at position 2",
        ),
        (
            &["--guest", "ann", "--queue", "sales"],
            &[],
            "queueId `sales` is not a UUID",
        ),
        (
            &["--guest", "ann", "--attr", "tier"],
            &[],
            "--attr `tier` has no `=`",
        ),
        (
            &["--guest", "ann", "--attr", "guestToken=x"],
            &[],
            "attributes.guestToken: the name is reserved",
        ),
        (
            &["--guest", "ann", "--attr", "exp=1"],
            &[],
            "attributes.exp: the name is reserved",
        ),
        (
            &["--guest", "ann", "--attr", "a=1", "--attr", "a=2"],
            &[],
            "attributes.a is given twice",
        ),
        (
            &["--guest", "ann", "--attr", &large],
            &[],
            "attributes have 2049 bytes",
        ),
        (
            &["--guest", "ann", "--idempotency-key", &long_key],
            &[],
            "idempotencyKey has 256 characters",
        ),
        (
            &["--guest", "ann"],
            &[("GENESYS_BASE_URL", "http://acme.example")],
            "plain http to another machine",
        ),
        (
            &["--guest", "ann"],
            &[
                ("GENESYS_BASE_URL", ""),
                ("GENESYS_ORG_DOMAIN", "https://acme.example"),
            ],
            "has a scheme",
        ),
        (
            &["--guest", "ann"],
            &[
                ("GENESYS_BASE_URL", ""),
                ("GENESYS_ORG_DOMAIN", "acme.example/api"),
            ],
            "has a path",
        ),
        (
            &["--guest", "ann"],
            &[("GENESYS_QUEUE_ID", "sales")],
            "GENESYS_QUEUE_ID",
        ),
        (
            &["--guest", "ann"],
            &[("GUESTLANE_MASTER_KEY", "c2hvcnQ=")],
            "the master key in GUESTLANE_MASTER_KEY is damaged",
        ),
        (
            &["--guest", "ann"],
            &[("CRM_WEBHOOK_SECRET", "hush")],
            "CRM_WEBHOOK_SECRET",
        ),
        (
            &["--guest", "ann"],
            &[("GUESTLANE_DATABASE_URL", "mysql://x/y")],
            "neither an SQLite file nor a PostgreSQL database",
        ),
        (
            &["--guest", "ann"],
            &[(
                "GUESTLANE_DATABASE_URL",
                "postgres://u:pw@db.example/y?sslmode=disable",
            )],
            "on another machine",
        ),
        (
            &["--guest", "ann"],
            &[("GUESTLANE_DATABASE_URL", "postgres://u:pw@localhost")],
            "has no database",
        ),
        (
            &["--guest", "ann", "--config", "nowhere.toml"],
            &[],
            "--config nowhere.toml: cannot be read",
        ),
    ];
    for (arguments, settings, part) in cases {
        let exited = cli
            .command(&[&["create"], *arguments].concat())
            .envs(settings.iter().copied())
            .output()
            .unwrap();
        let stderr = String::from_utf8(exited.stderr).unwrap();
        // A missing file is not a usage error, because it may exist at the next attempt.
        let code = if part.starts_with("--config") { 1 } else { 2 };
        assert_eq!(exited.status.code(), Some(code), "{part}\n{stderr}");
        assert!(stderr.contains(part), "{part}\n{stderr}");
        assert!(
            exited.stdout.is_empty() && !stderr.contains("panicked"),
            "{stderr}"
        );
    }
    assert_eq!(cli.state()["calls"]["token"], 0);
}

#[test]
fn unusable_state_directory_is_reported_before_any_call() {
    let cli = TestCli::open(&[]);
    cli.write("file", "not a directory");
    let exited = cli.run(&["create", "--guest", "ann", "--state-dir", "file"]);
    assert!(
        exited.code == 1
            && exited.stderr.contains("cannot be opened")
            && exited.stderr.contains("--state-dir"),
        "{}",
        exited.stderr
    );
    assert_eq!(cli.state()["calls"]["token"], 0);
}

#[test]
fn database_of_newer_version_is_refused() {
    let cli = TestCli::open(&[]);
    cli.run(&["signing-keys", "list"]).ok();
    let path = cli.directory.path().join(".guestlane/guestlane.db");
    rusqlite::Connection::open(path)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let exited = cli.run(&["create", "--guest", "ann"]);
    assert!(
        exited.code == 2
            && exited
                .stderr
                .contains("newer version of guestlane (format 99; this version supports 1)"),
        "{}",
        exited.stderr
    );
}

#[test]
fn unusable_master_key_file_is_refused_with_reason() {
    let cli = TestCli::open(&[]);
    cli.run(&["signing-keys", "list"]).ok();
    let path = cli.directory.path().join(".guestlane/master.key");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let good = fs::read_to_string(&path).unwrap();

    fs::remove_file(&path).unwrap();
    let exited = cli.run(&["create", "--guest", "ann"]);
    assert!(
        exited.code == 1 && exited.stderr.contains("is missing, and the store has keys"),
        "{}",
        exited.stderr
    );
    assert!(!path.exists(), "no new one stands in for it");

    fs::write(&path, "damaged").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let exited = cli.run(&["create", "--guest", "ann"]);
    assert!(
        exited.code == 2 && exited.stderr.contains("is damaged"),
        "{}",
        exited.stderr
    );

    // 32 bytes of zero.
    let another = format!("{}=", "A".repeat(43));
    fs::write(&path, another).unwrap();
    let exited = cli.run(&["create", "--guest", "ann"]);
    assert!(
        exited.code == 2 && exited.stderr.contains("encrypted under another master key"),
        "{}",
        exited.stderr
    );

    fs::write(&path, good).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let exited = cli.run(&["create", "--guest", "ann"]);
    assert!(
        exited.code == 1 && exited.stderr.contains("chmod 600"),
        "{}",
        exited.stderr
    );
    assert_eq!(cli.state()["calls"]["token"], 0);
}

#[test]
fn create_fails_when_stdout_cannot_be_written() {
    let cli = TestCli::open(&[]);
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let exited = cli
        .command(&["create", "--guest", "ann", "--json"])
        .stdout(full)
        .output()
        .unwrap();
    let stderr = String::from_utf8(exited.stderr).unwrap();
    assert!(
        exited.status.code() == Some(1) && stderr.contains("cannot write to standard output"),
        "{stderr}"
    );
}
