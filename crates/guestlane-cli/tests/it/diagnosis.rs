//! Diagnosis before and during an outage, sources of secrets, and exit codes.

mod doctor;

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
