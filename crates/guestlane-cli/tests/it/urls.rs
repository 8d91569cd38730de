//! A password in a malformed URL appears nowhere: not in `config show`, errors, logs or DNS
//! queries. Each invalid setting is named with its source before a port is opened.

use std::{fs, os::unix::ffi::OsStrExt};

use crate::harness::{Ended, Office, run_in};

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

fn assert_hidden(case: &str, ended: &Ended) {
    for part in PASSWORD {
        assert!(
            !ended.stdout.contains(part) && !ended.stderr.contains(part),
            "{case}\n{}\n{}",
            ended.stdout,
            ended.stderr
        );
    }
}

/// The URL is rejected while settings are read, so no name is resolved and no port is opened. The
/// exit code is that of invalid settings, and the message comes from the parser alone.
#[test]
fn a_password_in_a_malformed_url_is_found_nowhere() {
    let office = Office::open(&[]);
    let databases = DATABASES.iter().map(|url| ("GUESTLANE_DATABASE_URL", *url));
    let cases: Vec<_> = databases.chain(OTHERS.iter().copied()).collect();
    assert!(cases.len() >= 30);
    for (name, url) in cases {
        for command in [
            ["config", "show", "-vv"].as_slice(),
            &["serve", "-vv"],
            &["doctor", "-vv"],
        ] {
            let ended = Ended::of(office.command(command).env(name, url).output().unwrap());
            assert_hidden(&format!("{command:?} {name}={url}"), &ended);
            if command[0] == "serve" {
                assert_eq!(ended.code, 2, "{url}: {}", ended.stderr);
                assert!(ended.stderr.contains(name), "{url}: {}", ended.stderr);
            }
        }
    }
    office.assert_each_guest_once(0);
}

#[test]
fn a_database_url_with_an_at_sign_is_refused_with_the_advice_to_encode_it() {
    let directory = tempfile::tempdir().unwrap();
    let url = "postgres://guestlane:p@ss/w:rd@127.0.0.1:15432/guestlane";
    let ended = run_in(
        directory.path(),
        &["sessions", "list"],
        &[("GUESTLANE_DATABASE_URL", url)],
    );
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("percent-encode") && ended.stderr.contains("%40"),
        "{}",
        ended.stderr
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
fn white_space_at_the_ends_of_every_setting_has_no_meaning() {
    let office = Office::open(&[]);
    let bare = office
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
    let first = Ended::of(bare).ok().json();
    for end in ["\r", "\n", "\r\n", " \t"] {
        let mut command = office.command(&[
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
        let again = Ended::of(command.output().unwrap()).ok().json();
        assert_eq!(
            again["sessionId"], first["sessionId"],
            "{end:?}: another store"
        );
    }
    office.assert_each_guest_once(1);
    let directories = fs::read_dir(office.directory.path()).unwrap().count();
    assert_eq!(directories, 2, "the state directory and the audit log");
}

#[test]
fn quotation_marks_and_bytes_that_are_no_text_are_refused_by_name() {
    let office = Office::open(&[]);
    office.write("guestlane.toml", "attempt_timeout = \"'10s'\"\n");
    let quoted = Ended::of(
        office
            .command(&["create", "--guest", "ann"])
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
    let ended = Ended::of(
        office
            .command(&["create", "--guest", "ann"])
            .env("GUESTLANE_MASTER_KEY", bytes)
            .output()
            .unwrap(),
    );
    assert!(
        ended.code == 2 && ended.stderr.contains("GUESTLANE_MASTER_KEY: is not UTF-8"),
        "{}",
        ended.stderr
    );
    assert_eq!(office.state()["calls"]["token"], 0);
}

#[test]
fn lists_with_commas_are_refused_by_name() {
    let office = Office::open(&[]);
    for (name, value) in [
        ("GENESYS_CLIENT_ID", "a,b"),
        ("GENESYS_CLIENT_ID", "a, b"),
        (
            "CRM_WEBHOOK_URL",
            "http://127.0.0.1:9/a, http://127.0.0.1:9/b",
        ),
    ] {
        let mut command = office.command(&["create", "--guest", "ann"]);
        command.env(name, value);
        if value == "a, b" {
            command.env("GENESYS_CLIENT_SECRET", "a b");
        }
        let ended = Ended::of(command.output().unwrap());
        assert!(
            ended.code == 2 && ended.stderr.contains(name) && ended.stderr.contains("comma"),
            "{value}: {}",
            ended.stderr
        );
    }
}

#[test]
fn an_unknown_variable_is_warned_of_once_without_its_value() {
    let directory = tempfile::tempdir().unwrap();
    let settings = [
        ("GENESYS_CLINET_SECRET", "hunter2"),
        ("GUESTLANE_SERVICE_HOST", "10.0.0.1"),
    ];
    let ended = run_in(directory.path(), &["signing-keys", "list"], &settings);
    assert_eq!(
        ended.stderr.matches("unknown environment variable").count(),
        1,
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.contains("GENESYS_CLINET_SECRET")
            && ended.stderr.contains("GENESYS_CLIENT_SECRET"),
        "{}",
        ended.stderr
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
    for told in [&ended, &doctor] {
        assert!(!format!("{}{}", told.stdout, told.stderr).contains("hunter2"));
    }
}

#[test]
fn a_wrong_setting_is_named_with_its_source_before_a_port_is_opened() {
    let office = Office::open(&[]);
    office.write(
        "guestlane.toml",
        "[genesys]\nqueue_id = \"sales\"\n[log]\nlevel = \"loud\"\n",
    );
    for (name, value, says) in [
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
        let mut command = office.command(&["serve"]);
        command.env_remove("GENESYS_QUEUE_ID").env(name, value);
        if name == "GUESTLANE_OTLP_ENDPOINT" {
            command.env("GUESTLANE_LOG_LEVEL", "info");
        }
        let ended = Ended::of(command.output().unwrap());
        assert!(
            ended.code == 2 && ended.stderr.contains(says),
            "{says}\n{}",
            ended.stderr
        );
    }
}
