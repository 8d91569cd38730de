//! Diagnosis before and during an outage, sources of secrets, and exit codes.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::Path};

use guestlane_testkit::cli::{Exited, TestCli};
use guestlane_testkit::{Server, execute, schema_in};
use nix::sys::signal::Signal;
use serde_json::json;

fn run(cli: &TestCli, arguments: &[&str], settings: &[(&str, &str)]) -> Exited {
    Exited::of(
        cli.command(arguments)
            .envs(settings.iter().copied())
            .output()
            .unwrap(),
    )
}

fn secret(directory: &Path, name: &str, content: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

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
fn secrets_are_read_from_files_and_from_systemd_credentials() {
    let cli = TestCli::open(&[]);
    let directory = cli.directory.path();
    let client = cli.startup["clientSecret"].as_str().unwrap().to_owned();
    let file = secret(directory, "client-secret", &format!("{client}\n"));
    let from_file = [
        ("GENESYS_CLIENT_SECRET", ""),
        ("GENESYS_CLIENT_SECRET_FILE", file.as_str()),
    ];
    run(&cli, &["create", "--guest", "ann"], &from_file).ok();
    let shown = run(&cli, &["config", "show"], &from_file).ok().stdout;
    assert!(
        !shown.contains(&client) && shown.contains("client-secret"),
        "{shown}"
    );

    fs::create_dir(directory.join("credentials")).unwrap();
    secret(
        &directory.join("credentials"),
        "GENESYS_CLIENT_SECRET",
        &client,
    );
    let credentials = [
        ("GENESYS_CLIENT_SECRET", ""),
        ("CREDENTIALS_DIRECTORY", "credentials"),
    ];
    run(&cli, &["create", "--guest", "bob"], &credentials).ok();
    cli.assert_each_guest_once(2);

    let both = run(
        &cli,
        &["create", "--guest", "cy"],
        &[("GENESYS_CLIENT_SECRET_FILE", &file)],
    );
    assert!(
        both.code == 2 && both.stderr.contains("GENESYS_CLIENT_SECRET is set, too"),
        "{}",
        both.stderr
    );
    fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
    let open = run(&cli, &["create", "--guest", "cy"], &from_file);
    assert!(
        open.code == 1 && open.stderr.contains("(mode 604)") && open.stderr.contains("chmod o="),
        "{}",
        open.stderr
    );
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let group = run(&cli, &["create", "--guest", "cy"], &from_file).ok();
    assert!(
        group.stderr.contains("can be read by its group"),
        "{}",
        group.stderr
    );
}

#[test]
fn sighup_reloads_the_oauth_client_secret() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    cli.register_keys();
    let key = cli.api_key("sessions:write");
    let file = secret(cli.directory.path(), "client-secret", "an-old-one");
    let settings = [
        ("GENESYS_CLIENT_SECRET", ""),
        ("GENESYS_CLIENT_SECRET_FILE", file.as_str()),
    ];
    let service = cli.serve(&[], &settings);
    let create =
        |guest: &str| service.create(&key, &json!({"guestId": guest, "idempotencyKey": guest}));
    assert_eq!(create("ann").json()["code"], "auth_failed");
    secret(
        cli.directory.path(),
        "client-secret",
        cli.startup["clientSecret"].as_str().unwrap(),
    );
    service.signal(Signal::SIGHUP);
    service.wait_for_log("new_secrets=1");
    assert_eq!(create("ann").status, 201);
    service.signal(Signal::SIGHUP);
    service.wait_for_log("new_secrets=0");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    service.signal(Signal::SIGHUP);
    service.wait_for_log("keeping the previous ones");
    assert_eq!(create("bob").status, 201);
    let log = service.log.lock().unwrap().clone();
    assert!(
        !log.contains("an-old-one") && !log.contains(cli.startup["clientSecret"].as_str().unwrap()),
        "{log}"
    );
}

#[test]
fn serve_exit_code_separates_transient_failures_from_bad_settings() {
    let cli = TestCli::open(&[]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let absent = [
        ("GUESTLANE_TLS_CERT_FILE", "absent.pem"),
        ("GUESTLANE_TLS_KEY_FILE", "absent.key"),
    ];
    let database = ("GUESTLANE_DATABASE_URL_FILE", "absent");
    for (settings, code) in [
        (
            &[("GUESTLANE_LISTEN", address.as_str())] as &[(&str, &str)],
            1,
        ),
        (
            &[
                ("GUESTLANE_METRICS_LISTEN", &address),
                ("GUESTLANE_LISTEN", "127.0.0.1:0"),
            ],
            1,
        ),
        (
            &[absent[0], absent[1], ("GUESTLANE_LISTEN", "127.0.0.1:0")],
            1,
        ),
        (&[("GENESYS_CA_FILE", "absent.pem")], 1),
        (&[database], 1),
        (&[("GUESTLANE_LISTEN", "everywhere")], 2),
        // The files are read first.
        (&[database, ("GUESTLANE_LISTEN", "everywhere")], 1),
        (
            &[
                ("GENESYS_CA_FILE", "absent.pem"),
                ("GENESYS_QUEUE_ID", "sales"),
            ],
            2,
        ),
    ] {
        let exited = run(&cli, &["serve"], settings);
        assert_eq!(exited.code, code, "{settings:?}: {}", exited.stderr);
    }
}

#[test]
fn serve_disables_core_dumps() {
    let cli = TestCli::open(&[]);
    let service = cli.serve(&[], &[]);
    let limits = fs::read_to_string(format!("/proc/{}/limits", service.child.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(
        core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(),
        ["0", "0"]
    );
}

#[test]
fn database_outage_logs_one_line_at_start_and_one_at_end() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let server = Server::start();
    let url = schema_in(&server.url());
    let service = cli.serve(&[], &[("GUESTLANE_DATABASE_URL", &url)]);
    server.stop();
    service.wait_for_log("an outage began");
    server.restart();
    service.wait_for_log("the outage ended");
    service.signal(Signal::SIGTERM);
    let log = std::sync::Arc::clone(&service.log);
    assert_eq!(service.wait_for_exit(), 0);
    let log = log.lock().unwrap().clone();
    let reported: Vec<_> = log
        .lines()
        .filter(|line| line.contains("dependency=database"))
        .collect();
    assert_eq!(reported.len(), 2, "{log}");
    let others: Vec<_> = log
        .lines()
        .filter(|line| line.contains(" WARN ") && !line.contains("dependency=database"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn webhook_outage_logs_one_warning_for_all_pending_events() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    cli.register_keys();
    let key = cli.api_key("sessions:write");
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let service = cli.serve(
        &[],
        &[("CRM_WEBHOOK_URL", &format!("http://{closed}/hook"))],
    );
    for guest in 0..20 {
        assert_eq!(
            service
                .create(&key, &json!({"guestId": format!("guest-{guest}")}))
                .status,
            201
        );
    }
    service.wait_for_log("webhook endpoint 1");
    let log = std::sync::Arc::clone(&service.log);
    service.signal(Signal::SIGTERM);
    assert_eq!(service.wait_for_exit(), 0);
    let log = log.lock().unwrap().clone();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains(" WARN ")).collect();
    assert!(
        warnings.len() == 1 && warnings[0].contains("webhook endpoint 1"),
        "{warnings:?}"
    );
    assert!(!log.contains("/hook"), "a path may be a secret: {log}");
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
        ("crowd", "CONNECTION LIMIT 0".to_owned(), "max_connections"),
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
