//! Reload on SIGHUP: the running process takes all rotated secrets from their files, or none.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, thread, time::Duration};

use guestlane_testkit::{Server, execute, schema_in};
use guestlane_testkit::{
    cli::{CRM_SECRET, Exited, TestCli},
    service_process::ServiceProcess,
};
use nix::sys::signal::Signal;
use serde_json::json;

const OTHER_SECRET: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const OLD_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const NEW_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

fn run(cli: &TestCli, arguments: &[&str], settings: &[(&str, &str)]) -> Exited {
    Exited::of(
        cli.command(arguments)
            .envs(settings.iter().copied())
            .output()
            .unwrap(),
    )
}

/// Replaces the file atomically, as secret rotation does: a reader sees the old content or the new
/// one.
fn write(path: &Path, content: &str) -> String {
    let draft = path.with_extension("draft");
    fs::write(&draft, content).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&draft, path).unwrap();
    path.display().to_string()
}

/// Sends SIGHUP, and returns the log line about its result.
fn send_sighup(service: &ServiceProcess) -> String {
    let before = service.log.lock().unwrap().len();
    service.signal(Signal::SIGHUP);
    loop {
        // A zombie process has an empty command line.
        let command = fs::read_to_string(format!("/proc/{}/cmdline", service.child.id())).unwrap();
        let log = service.log.lock().unwrap()[before..].to_owned();
        assert!(!command.is_empty(), "the process ended: {log}");
        let reports_result = |line: &&str| {
            line.contains("settings reloaded") || line.contains("keeping the previous ones")
        };
        if let Some(line) = log.lines().find(reports_result) {
            return line.to_owned();
        }
        thread::park_timeout(Duration::from_millis(10));
    }
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        thread::park_timeout(Duration::from_millis(10));
    }
}

fn has_received_event(cli: &TestCli, guest: &str) -> bool {
    let events = cli.admin("GET", "/_sim/crm-events", "");
    events
        .as_array()
        .unwrap()
        .iter()
        .any(|event| event["data"]["guestId"] == guest)
}

/// Registers the store's keys with the platform, and returns an API key that can create sessions.
fn prepare(cli: &TestCli, settings: &[(&str, &str)]) -> String {
    let jwks = run(
        cli,
        &["signing-keys", "export", "--format", "jwks"],
        settings,
    )
    .ok()
    .stdout;
    cli.admin("PUT", "/_sim/guest-keys", &jwks);
    let create = [
        "api-keys",
        "create",
        "--name",
        "test",
        "--scope",
        "sessions:write",
        "--json",
    ];
    run(cli, &create, settings).ok().json()["key"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn create(service: &ServiceProcess, key: &str, guest: &str) -> u16 {
    service
        .create(key, &json!({"guestId": guest, "idempotencyKey": guest}))
        .status
}

#[test]
fn sighup_reloads_webhook_secret_and_keeps_it_if_invalid() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let path = cli.directory.path().join("webhook");
    let file = write(&path, OTHER_SECRET);
    let settings = [
        ("CRM_WEBHOOK_SECRET", ""),
        ("CRM_WEBHOOK_SECRET_FILE", file.as_str()),
    ];
    let key = prepare(&cli, &settings);
    let service = cli.serve(&[], &settings);
    assert_eq!(create(&service, &key, "ann"), 201);
    wait_until(|| cli.state()["crm"]["badSignature"] != 0);

    write(&path, CRM_SECRET);
    let log_line = send_sighup(&service);
    assert!(
        log_line.contains("new_secrets=1 secrets=\"CRM_WEBHOOK_SECRET\""),
        "{log_line}"
    );
    assert_eq!(create(&service, &key, "bob"), 201);
    wait_until(|| has_received_event(&cli, "bob"));

    for (unusable, reason) in [
        ("hunter2", "an entry 1"),
        (&format!("{CRM_SECRET} {OTHER_SECRET}"), "2 entries"),
    ] {
        write(&path, unusable);
        cli.write("guestlane.toml", "platform_rate_limit = \"7/s\"\n");
        let log_line = send_sighup(&service);
        assert!(
            log_line.contains("CRM_WEBHOOK_SECRET")
                && log_line.contains(reason)
                && !log_line.contains(unusable),
            "{log_line}"
        );
    }
    assert_eq!(create(&service, &key, "cy"), 201);
    wait_until(|| has_received_event(&cli, "cy"));
    write(&path, CRM_SECRET);
    let log_line = send_sighup(&service);
    assert!(
        log_line.contains("quota=\"7/s\"") && log_line.contains("new_secrets=0"),
        "{log_line}"
    );

    let log = service.log.lock().unwrap().clone();
    assert!(
        !log.contains("whsec_M") && !log.contains("whsec_A") && !log.contains("hunter2"),
        "{log}"
    );
}

#[test]
fn sighup_reloads_webhook_secret_of_a_worker() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let server = Server::start();
    let url = schema_in(&server.url());
    let path = cli.directory.path().join("webhook");
    let file = write(&path, OTHER_SECRET);
    let settings = [
        ("GUESTLANE_DATABASE_URL", url.as_str()),
        ("CRM_WEBHOOK_SECRET", ""),
        ("CRM_WEBHOOK_SECRET_FILE", file.as_str()),
    ];
    prepare(&cli, &settings);
    let mut command = cli.command(&["worker", "--json"]);
    command.envs(settings);
    let worker = ServiceProcess::start(command);
    let enqueue = |guest: &str| {
        cli.write(&format!("{guest}.csv"), &format!("guest_id\n{guest}\n"));
        run(
            &cli,
            &["batch", "enqueue", &format!("{guest}.csv")],
            &settings,
        )
        .ok();
    };
    enqueue("ann");
    wait_until(|| cli.state()["crm"]["badSignature"] != 0);
    write(&path, CRM_SECRET);
    let log_line = send_sighup(&worker);
    assert!(
        log_line.contains("secrets=\"CRM_WEBHOOK_SECRET\""),
        "{log_line}"
    );
    enqueue("bob");
    wait_until(|| has_received_event(&cli, "bob"));
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.wait_for_exit(), 0);
}

/// Starts a server with password authentication and a separate schema for each user.
fn server_with_passwords() -> Server {
    let server = Server::start();
    for role in ["app", "other", "copy"] {
        let own = format!(
            "CREATE SCHEMA of_{role} AUTHORIZATION {role}; ALTER ROLE {role} SET search_path = of_{role}"
        );
        execute(
            &server.url(),
            &format!("CREATE ROLE {role} LOGIN PASSWORD 'first-hunter2'; {own}"),
        );
    }
    let rules = "host all guestlane all trust\nhost all all all scram-sha-256\n";
    fs::write(server.data().join("pg_hba.conf"), rules).unwrap();
    execute(&server.url(), "SELECT pg_reload_conf()");
    server
}

#[test]
fn sighup_reloads_database_password_and_rejects_other_stores() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let server = server_with_passwords();
    let url = |user: &str, password: &str| {
        format!(
            "postgres://{user}:{password}@127.0.0.1:{}/postgres",
            server.port()
        )
    };
    let path = cli.directory.path().join("database");
    let file = write(&path, &url("app", "first-hunter2"));
    let master = cli.directory.path().join("master");
    let master_file = write(&master, OLD_KEY);
    let settings = [
        ("GUESTLANE_DATABASE_URL_FILE", file.as_str()),
        ("GUESTLANE_MASTER_KEY_FILE", master_file.as_str()),
    ];
    let key = prepare(&cli, &settings);
    let service = cli.serve(&[], &settings);
    assert_eq!(create(&service, &key, "ann"), 201);

    let cut_off = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
    execute(&server.url(), "ALTER ROLE app PASSWORD 'second-hunter2'");
    execute(&server.url(), cut_off);
    assert!(
        create(&service, &key, "bob") >= 500,
        "the password before is no longer good"
    );
    write(&path, &url("app", "second-hunter2"));
    let log_line = send_sighup(&service);
    assert!(
        log_line.contains("new_secrets=1 secrets=\"GUESTLANE_DATABASE_URL\""),
        "{log_line}"
    );
    assert_eq!(create(&service, &key, "bob"), 201);
    wait_until(|| service.send_request("GET", "/readyz", "", "", "").status == 200);

    // Settings that are invalid or name another store are rejected by name, and the service
    // continues.
    let others = [
        ("GUESTLANE_DATABASE_URL", url("other", "first-hunter2")),
        ("GUESTLANE_MASTER_KEY", NEW_KEY.to_owned()),
    ];
    run(
        &cli,
        &["signing-keys", "list"],
        &others
            .each_ref()
            .map(|(name, value)| (*name, value.as_str())),
    )
    .ok();
    for table in [
        "property",
        "platform",
        "session",
        "outbox",
        "audit_record",
        "audit_log",
        "secret",
    ] {
        execute(
            &server.url(),
            &format!("CREATE TABLE of_copy.{table} (LIKE of_app.{table} INCLUDING ALL)"),
        );
    }
    let copy = "INSERT INTO of_copy.secret TABLE of_app.secret; GRANT ALL ON ALL TABLES IN SCHEMA of_copy TO copy";
    execute(&server.url(), copy);
    let good = url("app", "second-hunter2");
    for (refused, reason) in [
        (url("app", "third-hunter2"), "cannot be used"),
        (url("other", "first-hunter2"), "connects to another store"),
        (url("copy", "first-hunter2"), "connects to another store"),
        (good.replace("/postgres", "/template1"), "another database"),
        (good.replace("127.0.0.1", "localhost"), "another host"),
        (
            good.replace(&server.port().to_string(), "1"),
            "another port",
        ),
        (
            format!("{good}?options=-csearch_path%3Dof_other"),
            "another value of options",
        ),
        ("sqlite:other.db".to_owned(), "another store"),
    ] {
        write(&path, &refused);
        let log_line = send_sighup(&service);
        assert!(
            log_line.contains("GUESTLANE_DATABASE_URL") && log_line.contains(reason),
            "{reason}: {log_line}"
        );
    }
    assert_eq!(create(&service, &key, "cy"), 201);

    // If one secret is invalid, no other secret is taken.
    execute(&server.url(), "ALTER ROLE app PASSWORD 'fourth-hunter2'");
    write(&path, &url("app", "fourth-hunter2"));
    write(&master, NEW_KEY);
    let log_line = send_sighup(&service);
    assert!(
        log_line
            .matches("GUESTLANE_MASTER_KEY: cannot decrypt")
            .count()
            == 1
            && !log_line.contains("\\n"),
        "{log_line}"
    );
    execute(&server.url(), cut_off);
    assert!(
        create(&service, &key, "dan") >= 500,
        "the URL before is in use"
    );
    write(&master, OLD_KEY);
    assert!(send_sighup(&service).contains("new_secrets=1 secrets=\"GUESTLANE_DATABASE_URL\""));
    assert_eq!(create(&service, &key, "dan"), 201);
    let log = service.log.lock().unwrap().clone();
    assert!(
        !log.contains("hunter2") && !log.contains(OLD_KEY) && !log.contains(NEW_KEY),
        "{log}"
    );
}

#[test]
fn sighup_replaces_the_master_key_without_a_restart() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let credentials = cli.directory.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    let (current, previous) = (
        credentials.join("GUESTLANE_MASTER_KEY"),
        credentials.join("GUESTLANE_MASTER_KEY_PREVIOUS"),
    );
    write(&current, OLD_KEY);
    let settings = [
        ("CREDENTIALS_DIRECTORY", "credentials"),
        ("GUESTLANE_SURFACE", "web-messaging"),
    ];
    let key = prepare(&cli, &settings);
    let service = cli.serve(&[], &settings);
    assert_eq!(create(&service, &key, "ann"), 201);

    for (guest, wrong, reason) in [
        ("bea", NEW_KEY, "cannot decrypt the values in the store"),
        ("ben", "c2hvcnQ=", "not the base64 of 32 bytes"),
    ] {
        write(&current, wrong);
        let log_line = send_sighup(&service);
        assert!(
            log_line.contains("GUESTLANE_MASTER_KEY")
                && log_line.contains(reason)
                && !log_line.contains(wrong),
            "{log_line}"
        );
        assert_eq!(create(&service, &key, guest), 201);
    }
    write(&current, NEW_KEY);
    write(&previous, OLD_KEY);
    let log_line = send_sighup(&service);
    assert!(
        log_line.contains("new_secrets=1 secrets=\"GUESTLANE_MASTER_KEY\""),
        "{log_line}"
    );
    assert_eq!(create(&service, &key, "bob"), 201);
    // Bob's guest session token is already sealed under the new key.
    let resealed = run(
        &cli,
        &["master-key", "reseal", "--yes", "--json"],
        &settings,
    )
    .ok()
    .json();
    assert_eq!(resealed["guestSessions"], 3, "{resealed}");

    fs::remove_file(&previous).unwrap();
    assert!(send_sighup(&service).contains("secrets=\"GUESTLANE_MASTER_KEY\""));
    assert_eq!(create(&service, &key, "cy"), 201);
    service.signal(Signal::SIGTERM);
    let log = std::sync::Arc::clone(&service.log);
    assert_eq!(service.wait_for_exit(), 0);
    let log = log.lock().unwrap().clone();
    assert!(!log.contains(OLD_KEY) && !log.contains(NEW_KEY), "{log}");
    run(&cli, &["sessions", "list"], &settings).ok();
}
