//! `guestlane doctor` names the failing check and its fix.

use super::*;

#[test]
fn doctor_detects_a_store_that_rejects_writes() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    cli.run(&["create", "--guest", "ann"]).ok();
    cli.run(&["outbox", "deliver"]).ok();
    cli.run(&["doctor"]).ok();
    let database =
        rusqlite::Connection::open(cli.directory.path().join(".guestlane/guestlane.db")).unwrap();
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON property BEGIN SELECT RAISE(FAIL, 'no write today'); END";
    database.execute_batch(refuse).unwrap();
    let found = cli.run(&["doctor"]);
    assert!(
        found.code == 1
            && found
                .stdout
                .contains("BAD   database: cannot be written to"),
        "{}",
        found.stdout
    );
    assert!(found.stdout.contains("no write today"), "{}", found.stdout);
    let rows: u32 = database
        .query_row(
            "SELECT count(*) FROM property WHERE name = 'doctor'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(rows, 0, "nothing of the attempts is left");
}

#[test]
fn doctor_checks_service_settings_proxies_and_trace_collector() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let taken = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let collector = format!("http://{taken}/v1/traces");
    for (settings, mark, reported) in [
        (
            &[
                ("GUESTLANE_TLS_CERT_FILE", "/nope"),
                ("GUESTLANE_TLS_KEY_FILE", "/nope"),
            ] as &[(&str, &str)],
            "BAD ",
            "/nope: No such file",
        ),
        (
            &[
                ("GUESTLANE_LISTEN", "192.0.2.1:1"),
                ("GUESTLANE_TLS_TERMINATED_UPSTREAM", "true"),
            ],
            "BAD ",
            "cannot listen on 192.0.2.1:1",
        ),
        (
            &[("GUESTLANE_METRICS_LISTEN", "0.0.0.0:1")],
            "BAD ",
            "GUESTLANE_METRICS_ALLOW_PUBLIC",
        ),
        (
            &[("GUESTLANE_MAX_CONCURRENT_SESSIONS", "0")],
            "BAD ",
            "GUESTLANE_MAX_CONCURRENT_SESSIONS",
        ),
        (
            &[("GUESTLANE_LOG_LEVEL", "loud")],
            "BAD ",
            "GUESTLANE_LOG_LEVEL",
        ),
        (
            &[("GUESTLANE_OTLP_ENDPOINT", &collector)],
            "warn",
            "trace collector",
        ),
        (
            &[("HTTPS_PROXY", "http://user:hunter2@proxy:3128")],
            "warn",
            "HTTPS_PROXY is set but not used",
        ),
        (
            &[("all_proxy", "socks5://proxy")],
            "warn",
            "all_proxy is set but not used",
        ),
    ] {
        let found = run(&cli, &["doctor"], settings);
        assert_eq!(
            found.code,
            i32::from(mark == "BAD "),
            "{settings:?}: {}",
            found.stdout
        );
        assert!(
            found.stdout.contains(mark) && found.stdout.contains(reported),
            "{settings:?}: {}",
            found.stdout
        );
        assert!(
            !found.stdout.contains("hunter2") && !found.stdout.contains("the brief"),
            "{}",
            found.stdout
        );
    }
    let quiet = run(
        &cli,
        &["doctor"],
        &[("NO_PROXY", "localhost"), ("HTTP_PROXY", "")],
    )
    .ok();
    assert!(!quiet.stdout.contains("PROXY"), "{}", quiet.stdout);
}

#[test]
fn doctor_checks_tls_of_each_webhook_endpoint_and_names_the_fix() {
    let cli = TestCli::open(&["--rate-limit", "off", "--tls"]);
    let good = cli.startup["crmUrl"].as_str().unwrap();
    let trusted = cli.run(&["doctor"]).ok();
    assert!(
        trusted
            .stdout
            .contains("accepts connections, and its certificate is trusted"),
        "{}",
        trusted.stdout
    );
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let urls = format!("{good} https://{closed}/hook-secret");
    let settings = [
        ("CRM_WEBHOOK_URL", urls.as_str()),
        ("CRM_WEBHOOK_SECRET", ""),
        ("CRM_CA_FILE", ""),
    ];
    let found = run(&cli, &["doctor"], &settings);
    assert_eq!(found.code, 1, "{}", found.stdout);
    for reported in [
        "its certificate authority is not trusted",
        "set CRM_CA_FILE to the authority's certificate",
        "refuses connections",
    ] {
        assert!(
            found.stdout.contains(reported),
            "{reported}: {}",
            found.stdout
        );
    }
    assert!(!found.stdout.contains("hook-secret"), "{}", found.stdout);
}

/// The header `inin-ratelimit-allowed` does not name its window. The window of the simulator is one
/// second, and 300 per minute would be far below its limit.
#[test]
fn doctor_suggests_no_rate_limit_for_a_window_of_unknown_length() {
    let cli = TestCli::open(&[]);
    let found = run(&cli, &["doctor"], &[("GUESTLANE_SURFACE", "web-messaging")]).ok();
    assert!(
        !found.stdout.contains("GUESTLANE_PLATFORM_RATE_LIMIT=")
            && found
                .stdout
                .contains("does not report the length of the window"),
        "{}",
        found.stdout
    );
}

#[test]
fn doctor_without_settings_suggests_the_web_messaging_surface() {
    let directory = tempfile::tempdir().unwrap();
    let found = guestlane_testkit::cli::run_in(directory.path(), &["doctor"], &[]);
    assert!(
        found.stdout.contains("GUESTLANE_SURFACE is not set")
            && found
                .stdout
                .contains("web-messaging for a real organization")
    );
    assert!(
        !found.stdout.contains("GENESYS_ORG_DOMAIN is missing"),
        "{}",
        found.stdout
    );
}

#[test]
fn doctor_refuses_a_damaged_master_key_before_there_is_a_store() {
    let directory = tempfile::tempdir().unwrap();
    for setting in ["GUESTLANE_MASTER_KEY", "GUESTLANE_MASTER_KEY_PREVIOUS"] {
        let good = (
            "GUESTLANE_MASTER_KEY",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        );
        let settings = [good, (setting, "c2hvcnQ=")];
        let found = guestlane_testkit::cli::run_in(directory.path(), &["doctor"], &settings);
        let expected = format!("the master key in {setting} is damaged");
        assert!(found.stdout.contains(&expected), "{}", found.stdout);
        assert_eq!(found.code, 1, "{}", found.stdout);
    }
    assert!(!directory.path().join(".guestlane").exists());
}

#[test]
fn doctor_names_cause_of_database_permission_and_connection_errors() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let server = Server::start();
    let url = schema_in(&server.url());
    run(
        &cli,
        &["create", "--guest", "ann"],
        &[("GUESTLANE_DATABASE_URL", &url)],
    )
    .ok();
    let schema = url
        .rsplit("search_path%3D")
        .next()
        .unwrap()
        .split('&')
        .next()
        .unwrap()
        .to_owned();
    let roles = [
        ("looker", String::new(), "grant the user"),
        (
            "create_many",
            "CONNECTION LIMIT 0".to_owned(),
            "max_connections",
        ),
        ("reader", String::new(), "default_transaction_read_only"),
    ];
    for (role, more, _) in &roles {
        execute(&url, &format!("CREATE ROLE {role} LOGIN {more}"));
        execute(
            &url,
            &format!(
                "GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}"
            ),
        );
    }
    execute(
        &url,
        "ALTER ROLE reader SET default_transaction_read_only = on",
    );
    for (role, _, fix) in &roles {
        let as_role = url.replace("guestlane@", &format!("{role}@"));
        let found = run(&cli, &["doctor"], &[("GUESTLANE_DATABASE_URL", &as_role)]);
        assert!(
            found.code == 1 && found.stdout.contains(fix),
            "{role}: {}",
            found.stdout
        );
    }
    fs::write(
        server.data().join("pg_hba.conf"),
        "hostssl all all all trust\n",
    )
    .unwrap();
    execute(&url, "SELECT pg_reload_conf()");
    let found = run(&cli, &["doctor"], &[("GUESTLANE_DATABASE_URL", &url)]);
    assert!(
        found.code == 1 && found.stdout.contains("sslmode=require"),
        "{}",
        found.stdout
    );
    let refused = run(
        &cli,
        &["sessions", "list"],
        &[("GUESTLANE_DATABASE_URL", &url)],
    );
    assert!(
        refused.code == 1 && refused.stderr.contains("sslmode=require"),
        "{}",
        refused.stderr
    );
}
