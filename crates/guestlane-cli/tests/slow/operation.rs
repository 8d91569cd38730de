//! Operation of the service: probes, limits for hostile clients, draining, and the metrics of a
//! worker.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
};

use guestlane_testkit::{Proxy, Server, schema_in};
use guestlane_testkit::{
    cli::{Exited, TestCli},
    serve::pause,
    service_process::{Response, ServiceProcess, send_request},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn ready(service: &ServiceProcess) -> Response {
    service.send_request("GET", "/readyz", "", "", "")
}

/// Waits until the readiness probe answers `status`. The time limit of the test bounds the wait.
fn until_ready_is(service: &ServiceProcess, status: u16) -> Response {
    loop {
        match service.try_send_request("GET", "/readyz", "", "", "") {
            Some(answer) if answer.status == status => return answer,
            _ => pause(20),
        }
    }
}

fn metric(text: &str, name: &str) -> f64 {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name} ")));
    value
        .unwrap_or_else(|| panic!("no {name}"))
        .parse()
        .unwrap()
}

/// Runs the service in a shell that sets resource limits first.
fn limited(cli: &TestCli, limits: &str, settings: &[(&str, &str)]) -> Command {
    let inner = cli.command(&[
        "serve",
        "--json",
        "--listen",
        "127.0.0.1:0",
        "--metrics-listen",
        "127.0.0.1:0",
    ]);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("{limits}; exec \"$0\" \"$@\"")])
        .arg(inner.get_program())
        .args(inner.get_args());
    shell
        .current_dir(cli.directory.path())
        .env_clear()
        .stderr(std::process::Stdio::piped());
    shell.envs(
        inner
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    shell
        .env("GUESTLANE_DRAIN_PERIOD", "off")
        .envs(settings.iter().copied());
    shell
}

/// Clients that request pages and never read them. Without limits they would hold every connection
/// forever.
#[test]
fn stalled_connections_do_not_block_authenticated_callers() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    cli.register_keys();
    let key = cli.api_key("sessions:write");
    // 300 files allow at most 150 connections.
    let service = ServiceProcess::start(limited(&cli, "ulimit -n 300", &[]));
    let host = service.address.strip_prefix("http://").unwrap();
    let requests = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(120);
    let stalled: Vec<TcpStream> = (0..400)
        .filter_map(|_| {
            let mut stream = TcpStream::connect(host).ok()?;
            stream.write_all(requests.as_bytes()).ok()?;
            Some(stream)
        })
        .collect();
    for guest in ["ann", "bob"] {
        assert_eq!(service.create(&key, &json!({"guestId": guest})).status, 201);
    }
    assert_eq!(
        service.send_request("GET", "/healthz", "", "", "").status,
        200
    );
    assert!(metric(&service.scrape(), "http_server_rejected_connections_total") > 0.0);
    let warnings = service
        .log
        .lock()
        .unwrap()
        .matches("connection limit reached")
        .count();
    assert!(warnings <= 1, "{warnings} lines for one flood");
    drop(stalled);
}

#[test]
fn unauthenticated_flood_is_counted_and_logged_in_few_lines() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let service = cli.serve(&[], &[]);
    for n in 0..60 {
        let headers = format!("authorization: Bearer gl_{n}\r\n");
        assert_eq!(
            send_request(&service.address, "GET /v1/sessions", &headers, "")
                .unwrap()
                .status,
            401
        );
    }
    assert_eq!(
        metric(&service.scrape(), "guestlane_authentication_failures_total"),
        60.0
    );
    service.wait_for_log("authentication failed");
    let log = service.log.lock().unwrap().clone();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("authentication failed"))
        .collect();
    assert!(
        (1..=30).contains(&lines.len()) && lines[0].contains("peer=127.0.0.1:"),
        "{log}"
    );
    assert!(
        !log.contains("gl_1"),
        "what was sent as a key is not logged"
    );
}

/// A database that accepts connections but does not answer, as on a paused machine or a stuck disk.
/// A probe that queries it would hang as well.
#[test]
fn hung_database_makes_node_unready_but_alive() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = Server::start();
    let url = schema_in(&server.url());
    let proxy = runtime.block_on(Proxy::to(server.port()));
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let url = proxy.url(&url, server.port());
    let settings = [("GUESTLANE_DATABASE_URL", url.as_str())];
    let make = |scope| {
        let made = cli
            .command(&["api-keys", "create", "--name", "t", "--scope", scope])
            .envs(settings)
            .output()
            .unwrap();
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    };
    let (key, read) = (make("sessions:write"), make("sessions:read"));
    let service = cli.serve(&[], &settings);
    until_ready_is(&service, 200);
    proxy.blackhole();
    let host = service.address.strip_prefix("http://").unwrap();
    for _ in 0..2_000 {
        // Each client disconnects before the response is ready.
        let mut stream = TcpStream::connect(host).unwrap();
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
    }
    let unready = until_ready_is(&service, 503);
    assert_eq!(unready.json()["code"], "store_failed");
    assert!(
        !unready.body.contains("127.0.0.1") && !unready.body.contains(&server.port().to_string()),
        "{}",
        unready.body
    );
    assert_eq!(
        service.send_request("GET", "/healthz", "", "", "").status,
        200
    );
    let metrics = service.scrape();
    assert_eq!(
        (
            metric(&metrics, "guestlane_store_up"),
            metric(&metrics, "guestlane_ready")
        ),
        (0.0, 0.0)
    );
    proxy.restore();
    until_ready_is(&service, 200);
    // The database is unreachable: the response names no host either, but the log does.
    proxy.disconnect();
    let away = service.send_request("GET", "/v1/sessions", &read, "", "");
    assert_eq!(
        (away.status, away.json()["detail"].as_str()),
        (503, Some("the store failed"))
    );
    assert!(
        !away.body.contains("127.0.0.1") && !away.body.contains("postgres"),
        "{}",
        away.body
    );
    service.wait_for_log("an outage began");
    proxy.restore();
    until_ready_is(&service, 200);
    let keys = cli
        .command(&["signing-keys", "export", "--format", "jwks"])
        .envs(settings)
        .output()
        .unwrap();
    cli.admin(
        "PUT",
        "/_sim/guest-keys",
        &String::from_utf8(keys.stdout).unwrap(),
    );
    assert_eq!(service.create(&key, &json!({"guestId": "ann"})).status, 201);
    cli.assert_each_guest_once(1);
}

#[test]
fn full_disk_makes_node_unready_and_loses_no_session() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    cli.register_keys();
    let key = cli.api_key("sessions:write");
    // Without the trap, SIGXFSZ would end the process. With it, a write beyond the limit fails as
    // on a full disk.
    let service = ServiceProcess::start(limited(&cli, "trap '' XFSZ; ulimit -S -f 1000", &[]));
    let request = |guest: u64| json!({"guestId": format!("guest-{guest}"), "idempotencyKey": format!("key-{guest}")});
    let mut guest = 0;
    while service.create(&key, &request(guest)).status == 201 {
        guest += 1;
    }
    let unready = ready(&service);
    assert_eq!(
        (unready.status, unready.json()["detail"].as_str()),
        (503, Some("the store does not accept writes"))
    );
    assert_eq!(metric(&service.scrape(), "guestlane_store_writable"), 0.0);
    let pid = service.child.id().to_string();
    let raised = Command::new("prlimit")
        .args(["--pid", &pid, "--fsize=unlimited:"])
        .status()
        .unwrap();
    assert!(raised.success());
    until_ready_is(&service, 200);
    assert_eq!(metric(&service.scrape(), "guestlane_store_writable"), 1.0);
    for guest in 0..=guest {
        assert!([200, 201].contains(&service.create(&key, &request(guest)).status));
    }
    cli.assert_each_guest_once(guest + 1);
    service.signal(Signal::SIGTERM);
    assert_eq!(service.wait_for_exit(), 0);
    cli.run(&["audit", "verify"]).ok();
}

/// A database that is read-only, like a demoted primary or one on a full disk.
#[test]
fn read_only_database_makes_idle_node_unready() {
    let server = Server::start();
    let url = schema_in(&server.url());
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let service = cli.serve(&[], &[("GUESTLANE_DATABASE_URL", &url)]);
    until_ready_is(&service, 200);
    let alter = |sql: &str| {
        guestlane_testkit::execute(&url, sql);
    };
    alter(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$",
    );
    alter(
        "CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON property FOR EACH ROW EXECUTE FUNCTION full_disk()",
    );
    assert_eq!(
        until_ready_is(&service, 503).json()["detail"],
        "the store does not accept writes"
    );
    alter("DROP TRIGGER full_disk ON property");
    until_ready_is(&service, 200);
}

#[test]
fn terminating_node_is_unready_and_serves_during_drain_period() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    cli.register_keys();
    let key = cli.api_key("sessions:write");
    let service = cli.serve(&[], &[("GUESTLANE_DRAIN_PERIOD", "3s")]);
    assert_eq!(ready(&service).status, 200);
    service.signal(Signal::SIGTERM);
    assert_eq!(
        until_ready_is(&service, 503).json()["code"],
        "shutting_down"
    );
    let answer = service.create(&key, &json!({"guestId": "ann"}));
    assert_eq!(
        (answer.status, answer.headers["connection"].as_str()),
        (201, "close")
    );
    assert_eq!(service.wait_for_exit(), 0);
    cli.assert_each_guest_once(1);
}

#[test]
fn worker_serves_probes_and_metrics_on_its_metrics_address() {
    let server = Server::start();
    let url = schema_in(&server.url());
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let mut command = cli.command(&["worker", "--json", "--metrics-listen", "127.0.0.1:0"]);
    let mut child = command
        .env("GUESTLANE_DATABASE_URL", &url)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    let startup: Value = serde_json::from_str(&line).unwrap();
    let address = startup["metrics"]
        .as_str()
        .unwrap()
        .trim_end_matches("/metrics")
        .to_owned();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(
            send_request(&address, &format!("GET {path}"), "", "")
                .unwrap()
                .status,
            200,
            "{path}"
        );
    }
    assert_eq!(
        metric(
            &send_request(&address, "GET /metrics", "", "").unwrap().body,
            "guestlane_ready"
        ),
        1.0
    );
    assert_eq!(
        send_request(&address, "GET /v1/sessions", "", "")
            .unwrap()
            .status,
        404,
        "and nothing else"
    );
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id() as i32),
        Signal::SIGTERM,
    )
    .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let _ = stdout.read_to_string(&mut line);
}

/// Monitoring must not mistake a worker that is shutting down for a healthy one.
#[test]
fn terminating_worker_is_unready_while_work_is_in_flight() {
    let server = Server::start();
    let url = schema_in(&server.url());
    let settings = [
        ("GUESTLANE_DATABASE_URL", url.as_str()),
        ("GUESTLANE_ATTEMPT_TIMEOUT", "2s"),
    ];
    let cli = TestCli::open(&["--rate-limit", "off", "--fault", "conversation:hang"]);
    cli.write("rows.csv", "guest_id\nann\n");
    for arguments in [
        ["signing-keys", "export", "--format", "jwks"],
        ["batch", "enqueue", "rows.csv", "--json"],
    ] {
        let exited = Exited::of(cli.command(&arguments).envs(settings).output().unwrap()).ok();
        if arguments[0] == "signing-keys" {
            cli.admin("PUT", "/_sim/guest-keys", &exited.stdout);
        }
    }
    let mut command = cli.command(&["worker", "--json", "--metrics-listen", "127.0.0.1:0"]);
    command.envs(settings);
    let worker = ServiceProcess::start(command);
    let probes = worker.metrics.trim_end_matches("/metrics").to_owned();
    let ready = || send_request(&probes, "GET /readyz", "", "").map(|answer| answer.status);
    assert_eq!(ready(), Some(200));
    while cli.state()["hanging"] != 1 {
        pause(20);
    }
    worker.signal(Signal::SIGTERM);
    while ready() == Some(200) {
        pause(5);
    }
    assert_eq!(
        (ready(), &cli.state()["conversations"]),
        (Some(503), &json!(0)),
        "unready, and the row is in flight"
    );
    cli.faults(&[]);
    assert_eq!(worker.wait_for_exit(), 0);
    cli.assert_each_guest_once(1);
}
