//! A password in a malformed URL appears nowhere: not in `config show`, errors, logs or DNS
//! queries. Each invalid setting is named with its source before a port is opened.

use std::{fs, os::unix::ffi::OsStrExt};

use guestlane_testkit::cli::{Exited, TestCli, run_in};

const PASSWORD: [&str; 2] = ["hunter2", "swordfish"];

/// Malformed database URLs, with a password in two pieces.
const DATABASES: &[&str] = &[
    "postgres://guestlane:hunter2@swordfish/w:rd@db.example/guestlane",
    "postgres://guestlane:hunter2@swordfish@db.example:5432/guestlane",
    "postgres://guestlane:hunter2/swordfish@db.example/guestlane",
    "postgres://guestlane:hunter2?swordfish@db.example/guestlane",
    "postgres://guestlane:hunter2#swordfish@db.example/guestlane",
    "postgres://guestlane:12345/hunter2?swordfish@db.example/guestlane",
    "postgres://guestlane:12345#hunter2@swordfish@db.example/guestlane",
    "postgres://guestlane:hunter2@db.example/guestlane?swordfish@=1",
    "postgres://guestlane:hunter2@db.example/guestlane?swordfish=1",
    "postgres://guestlane:hunter2@db.example/guestlane?pgbouncer=swordfish",
    "postgres://guestlane:hunter2@db.example/guestlane?sslmode=swordfish",
    "postgres://guestlane:hunter2@db.example/guestlane?sslcert=swordfish",
    "postgres://guestlane:hunter2@db.example/guestlane?passfile=swordfish",
    "postgres://guestlane:hunter2@db.example/guestlane?connect_timeout=swordfish",
    "postgres://guestlane:hunter2@db.example/guestlane#swordfish",
    "postgres://guestlane:hunter2@db.example:swordfish/guestlane",
    "postgres://guestlane:hunter2@db.example",
    "postgres://guestlane:hunter2@swordfish db.example/guestlane",
    "postgres://guestlane:hunter2/swordfish",
    "postgres:guestlane:hunter2@swordfish/guestlane",
    "postgres:/guestlane:hunter2@swordfish/guestlane",
    "jdbc:postgresql://db.example/guestlane?user=a&password=hunter2swordfish",
    "mysql://guestlane:hunter2@swordfish/guestlane",
    "host=db.example password=hunter2 user=swordfish",
    "\"postgres://guestlane:hunter2@swordfish/x@db.example/guestlane\"",
];

/// Malformed URLs of other settings.
const OTHERS: &[(&str, &str)] = &[
    (
        "CRM_WEBHOOK_URL",
        "https://user:hunter2@swordfish.example/y",
    ),
    (
        "CRM_WEBHOOK_URL",
        "https://user:12/hunter2@swordfish.example/y",
    ),
    (
        "CRM_WEBHOOK_URL",
        "https://a.example/x https://user:hunter2@swordfish.example/y",
    ),
    (
        "CRM_WEBHOOK_URL",
        "https://a.example/x, https://user:hunter2@swordfish.example/y",
    ),
    (
        "CRM_WEBHOOK_URL",
        "https://a.example/x;https://user:hunter2@swordfish.example/y",
    ),
    ("CRM_WEBHOOK_URL", "https://a.example/x#hunter2swordfish"),
    ("CRM_WEBHOOK_URL", "https://user:hunter2swordfish"),
    ("GENESYS_BASE_URL", "http://user:hunter2@swordfish.example"),
    ("GENESYS_BASE_URL", "user:hunter2@swordfish.example"),
    ("GENESYS_BASE_URL", "https://gw.example/?hunter2=swordfish"),
    ("GENESYS_BASE_URL", "https://user:hunter2swordfish"),
    ("GENESYS_BASE_URL", "ftp://user:hunter2@swordfish.example"),
    (
        "GUESTLANE_OTLP_ENDPOINT",
        "https://user:hunter2@swordfish.example/v1/traces",
    ),
    (
        "GUESTLANE_LISTEN",
        "postgres://guestlane:hunter2@swordfish@db.example/guestlane",
    ),
];

fn assert_hidden(case: &str, exited: &Exited) {
    for part in PASSWORD {
        assert!(
            !exited.stdout.contains(part) && !exited.stderr.contains(part),
            "{case}\n{}\n{}",
            exited.stdout,
            exited.stderr
        );
    }
}

/// The URL is rejected while settings are read, so no name is resolved and no port is opened. The
/// exit code is that of invalid settings, and the message comes from the parser alone.
#[test]
fn password_in_a_malformed_url_is_never_printed() {
    let cli = TestCli::open(&[]);
    let databases = DATABASES.iter().map(|url| ("GUESTLANE_DATABASE_URL", *url));
    let cases: Vec<_> = databases.chain(OTHERS.iter().copied()).collect();
    assert!(cases.len() >= 30);
    for (name, url) in cases {
        for command in [
            ["config", "show", "-vv"].as_slice(),
            &["serve", "-vv"],
            &["doctor", "-vv"],
        ] {
            let exited = Exited::of(cli.command(command).env(name, url).output().unwrap());
            assert_hidden(&format!("{command:?} {name}={url}"), &exited);
            if command[0] == "serve" {
                assert_eq!(exited.code, 2, "{url}: {}", exited.stderr);
                assert!(exited.stderr.contains(name), "{url}: {}", exited.stderr);
            }
        }
    }
    cli.assert_each_guest_once(0);
}

#[test]
fn unencoded_at_sign_in_database_url_is_refused_with_advice() {
    let directory = tempfile::tempdir().unwrap();
    let url = "postgres://guestlane:p@ss/w:rd@127.0.0.1:15432/guestlane";
    let exited = run_in(
        directory.path(),
        &["sessions", "list"],
        &[("GUESTLANE_DATABASE_URL", url)],
    );
    assert_eq!(exited.code, 2, "{}", exited.stderr);
    assert!(
        exited.stderr.contains("percent-encode") && exited.stderr.contains("%40"),
        "{}",
        exited.stderr
    );
    let to = run_in(
        directory.path(),
        &["store", "migrate", "--from", "sqlite:x.db", "--to", url],
        &[],
    );
    assert!(
        to.code == 2 && to.stderr.contains("--to") && !to.stderr.contains("ss/w"),
        "{}",
        to.stderr
    );
}

#[test]
fn surrounding_white_space_in_settings_is_ignored() {
    let cli = TestCli::open(&[]);
    let bare = cli
        .command(&[
            "create",
            "--guest",
            "crlf-1",
            "--idempotency-key",
            "same-key",
            "--json",
        ])
        .output()
        .unwrap();
    let first = Exited::of(bare).ok().json();
    for end in ["\r", "\n", "\r\n", " \t"] {
        let mut command = cli.command(&[
            "create",
            "--guest",
            "crlf-1",
            "--idempotency-key",
            "same-key",
            "--json",
        ]);
        for name in [
            "GENESYS_BASE_URL",
            "GENESYS_CLIENT_ID",
            "GENESYS_CLIENT_SECRET",
            "GENESYS_QUEUE_ID",
            "CRM_WEBHOOK_URL",
            "CRM_WEBHOOK_SECRET",
        ] {
            let value = command
                .get_envs()
                .find(|(known, _)| *known == name)
                .unwrap()
                .1
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            command.env(name, format!("{end}{value}{end}"));
        }
        for (name, value) in [
            ("GUESTLANE_STATE_DIR", ".guestlane"),
            ("GUESTLANE_PLATFORM_RATE_LIMIT", "100/s"),
            ("GUESTLANE_SURFACE", "rest"),
            ("GUESTLANE_LOG_FORMAT", "text"),
        ] {
            command.env(name, format!("{end}{value}{end}"));
        }
        command.env(
            "GUESTLANE_AUDIT_LOG",
            format!("audit/session-audit.jsonl{end}"),
        );
        let again = Exited::of(command.output().unwrap()).ok().json();
        assert_eq!(
            again["sessionId"], first["sessionId"],
            "{end:?}: another store"
        );
    }
    cli.assert_each_guest_once(1);
    let directories = fs::read_dir(cli.directory.path()).unwrap().count();
    assert_eq!(directories, 2, "the state directory and the audit log");
}

#[test]
fn quoted_and_non_utf8_settings_are_refused_by_name() {
    let cli = TestCli::open(&[]);
    cli.write("guestlane.toml", "attempt_timeout = \"'10s'\"\n");
    let quoted = Exited::of(
        cli.command(&["create", "--guest", "ann"])
            .env("GENESYS_CLIENT_SECRET", "\"hunter2\"")
            .output()
            .unwrap(),
    );
    assert_eq!(quoted.code, 2, "{}", quoted.stderr);
    let file = "GUESTLANE_ATTEMPT_TIMEOUT (attempt_timeout in guestlane.toml): has quotation marks";
    for part in ["GENESYS_CLIENT_SECRET: has quotation marks", file] {
        assert!(quoted.stderr.contains(part), "{}", quoted.stderr);
    }
    assert!(!quoted.stderr.contains("hunter2"));
    let bytes = std::ffi::OsStr::from_bytes(b"\xff");
    let exited = Exited::of(
        cli.command(&["create", "--guest", "ann"])
            .env("GUESTLANE_MASTER_KEY", bytes)
            .output()
            .unwrap(),
    );
    assert!(
        exited.code == 2 && exited.stderr.contains("GUESTLANE_MASTER_KEY: is not UTF-8"),
        "{}",
        exited.stderr
    );
    assert_eq!(cli.state()["calls"]["token"], 0);
}

#[test]
fn comma_separated_lists_are_refused_by_name() {
    let cli = TestCli::open(&[]);
    for (name, value) in [
        ("GENESYS_CLIENT_ID", "a,b"),
        ("GENESYS_CLIENT_ID", "a, b"),
        (
            "CRM_WEBHOOK_URL",
            "http://127.0.0.1:9/a, http://127.0.0.1:9/b",
        ),
    ] {
        let mut command = cli.command(&["create", "--guest", "ann"]);
        command.env(name, value);
        if value == "a, b" {
            command.env("GENESYS_CLIENT_SECRET", "a b");
        }
        let exited = Exited::of(command.output().unwrap());
        assert!(
            exited.code == 2 && exited.stderr.contains(name) && exited.stderr.contains("comma"),
            "{value}: {}",
            exited.stderr
        );
    }
}

#[test]
fn unknown_variable_is_reported_once_without_its_value() {
    let directory = tempfile::tempdir().unwrap();
    let settings = [
        ("GENESYS_CLINET_SECRET", "hunter2"),
        ("GUESTLANE_SERVICE_HOST", "10.0.0.1"),
    ];
    let exited = run_in(directory.path(), &["signing-keys", "list"], &settings);
    assert_eq!(
        exited
            .stderr
            .matches("unknown environment variable")
            .count(),
        1,
        "{}",
        exited.stderr
    );
    assert!(
        exited.stderr.contains("GENESYS_CLINET_SECRET")
            && exited.stderr.contains("GENESYS_CLIENT_SECRET"),
        "{}",
        exited.stderr
    );
    let doctor = run_in(directory.path(), &["doctor"], &settings);
    assert!(
        doctor
            .stdout
            .contains("GENESYS_CLINET_SECRET is not a setting"),
        "{}",
        doctor.stdout
    );
    assert!(
        doctor.stdout.contains("rename it to GENESYS_CLIENT_SECRET"),
        "{}",
        doctor.stdout
    );
    for reported in [&exited, &doctor] {
        assert!(!format!("{}{}", reported.stdout, reported.stderr).contains("hunter2"));
    }
}

#[test]
fn invalid_setting_is_reported_with_its_source() {
    let cli = TestCli::open(&[]);
    cli.write(
        "guestlane.toml",
        "[genesys]\nqueue_id = \"sales\"\n[log]\nlevel = \"loud\"\n",
    );
    for (name, value, expected) in [
        (
            "GUESTLANE_LOG_LEVEL",
            "info",
            "GENESYS_QUEUE_ID (genesys.queue_id in guestlane.toml)",
        ),
        (
            "GUESTLANE_LOG_LEVEL",
            "",
            "GUESTLANE_LOG_LEVEL (log.level in guestlane.toml)",
        ),
        (
            "GUESTLANE_LOG_FORMAT",
            "xml",
            "GUESTLANE_LOG_FORMAT: is not a valid value",
        ),
        (
            "GUESTLANE_OTLP_ENDPOINT",
            "garbage",
            "GUESTLANE_OTLP_ENDPOINT: is not a URL",
        ),
    ] {
        let mut command = cli.command(&["serve"]);
        command.env_remove("GENESYS_QUEUE_ID").env(name, value);
        if name == "GUESTLANE_OTLP_ENDPOINT" {
            command.env("GUESTLANE_LOG_LEVEL", "info");
        }
        let exited = Exited::of(command.output().unwrap());
        assert!(
            exited.code == 2 && exited.stderr.contains(expected),
            "{expected}\n{}",
            exited.stderr
        );
    }
}
