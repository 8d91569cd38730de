//! Operation of the service: probes, limits for hostile clients, draining, and the metrics of a
//! worker.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
};

use guestlane_testkit::{Proxy, Server, schema_in};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    harness::{Ended, Office},
    service_harness::pause,
    service_process::{Answer, Served, ask},
};

fn ready(served: &Served) -> Answer {
    served.ask("GET", "/readyz", "", "", "")
}

/// Waits until the readiness probe answers `status`. The time limit of the test bounds the wait.
fn until_ready_is(served: &Served, status: u16) -> Answer {
    loop {
        match served.try_ask("GET", "/readyz", "", "", "") {
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
fn limited(office: &Office, limits: &str, settings: &[(&str, &str)]) -> Command {
    let inner = office.command(&[
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
        .current_dir(office.directory.path())
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
fn connections_that_never_read_do_not_keep_a_caller_with_a_key_out() {
    let office = Office::open(&["--rate-limit", "off"]);
    office.register_keys();
    let key = office.api_key("sessions:write");
    // 300 files allow at most 150 connections.
    let served = Served::start(limited(&office, "ulimit -n 300", &[]));
    let host = served.address.strip_prefix("http://").unwrap();
    let asks = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(120);
    let silent: Vec<TcpStream> = (0..400)
        .filter_map(|_| {
            let mut stream = TcpStream::connect(host).ok()?;
            stream.write_all(asks.as_bytes()).ok()?;
            Some(stream)
        })
        .collect();
    for guest in ["ann", "bob"] {
        assert_eq!(served.create(&key, &json!({"guestId": guest})).status, 201);
    }
    assert_eq!(served.ask("GET", "/healthz", "", "", "").status, 200);
    assert!(metric(&served.scrape(), "http_server_rejected_connections_total") > 0.0);
    let warnings = served
        .log
        .lock()
        .unwrap()
        .matches("connection limit reached")
        .count();
    assert!(warnings <= 1, "{warnings} lines for one flood");
    drop(silent);
}

#[test]
fn a_flood_of_requests_without_a_key_is_counted_and_logged_with_its_source_in_few_lines() {
    let office = Office::open(&["--rate-limit", "off"]);
    let served = office.serve(&[], &[]);
    for n in 0..60 {
        let headers = format!("authorization: Bearer gl_{n}\r\n");
        assert_eq!(
            ask(&served.address, "GET /v1/sessions", &headers, "")
                .unwrap()
                .status,
            401
        );
    }
    assert_eq!(
        metric(&served.scrape(), "guestlane_authentication_failures_total"),
        60.0
    );
    served.says("authentication failed");
    let log = served.log.lock().unwrap().clone();
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
fn a_database_that_hangs_makes_a_node_unready_and_leaves_it_alive() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = Server::start();
    let url = schema_in(&server.url());
    let proxy = runtime.block_on(Proxy::to(server.port()));
    let office = Office::open(&["--rate-limit", "off"]);
    let url = proxy.url(&url, server.port());
    let settings = [("GUESTLANE_DATABASE_URL", url.as_str())];
    let make = |scope| {
        let made = office
            .command(&["api-keys", "create", "--name", "t", "--scope", scope])
            .envs(settings)
            .output()
            .unwrap();
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    };
    let (key, read) = (make("sessions:write"), make("sessions:read"));
    let served = office.serve(&[], &settings);
    until_ready_is(&served, 200);
    proxy.blackhole();
    let host = served.address.strip_prefix("http://").unwrap();
    for _ in 0..2_000 {
        // Each client disconnects before the response is ready.
        let mut stream = TcpStream::connect(host).unwrap();
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
    }
    let unready = until_ready_is(&served, 503);
    assert_eq!(unready.json()["code"], "store_failed");
    assert!(
        !unready.body.contains("127.0.0.1") && !unready.body.contains(&server.port().to_string()),
        "{}",
        unready.body
    );
    assert_eq!(served.ask("GET", "/healthz", "", "", "").status, 200);
    let metrics = served.scrape();
    assert_eq!(
        (
            metric(&metrics, "guestlane_store_up"),
            metric(&metrics, "guestlane_ready")
        ),
        (0.0, 0.0)
    );
    proxy.restore();
    until_ready_is(&served, 200);
    // The database is unreachable: the response names no host either, but the log does.
    proxy.disconnect();
    let away = served.ask("GET", "/v1/sessions", &read, "", "");
    assert_eq!(
        (away.status, away.json()["detail"].as_str()),
        (503, Some("the store failed"))
    );
    assert!(
        !away.body.contains("127.0.0.1") && !away.body.contains("postgres"),
        "{}",
        away.body
    );
    served.says("an outage began");
    proxy.restore();
    until_ready_is(&served, 200);
    let keys = office
        .command(&["signing-keys", "export", "--format", "jwks"])
        .envs(settings)
        .output()
        .unwrap();
    office.admin(
        "PUT",
        "/_sim/guest-keys",
        &String::from_utf8(keys.stdout).unwrap(),
    );
    assert_eq!(served.create(&key, &json!({"guestId": "ann"})).status, 201);
    office.assert_each_guest_once(1);
}

#[test]
fn a_full_disk_makes_a_node_unready_until_there_is_room_and_loses_no_session() {
    let office = Office::open(&["--rate-limit", "off"]);
    office.register_keys();
    let key = office.api_key("sessions:write");
    // Without the trap, SIGXFSZ would end the process. With it, a write beyond the limit fails as
    // on a full disk.
    let served = Served::start(limited(&office, "trap '' XFSZ; ulimit -S -f 1000", &[]));
    let wish = |guest: u64| json!({"guestId": format!("guest-{guest}"), "idempotencyKey": format!("key-{guest}")});
    let mut guest = 0;
    while served.create(&key, &wish(guest)).status == 201 {
        guest += 1;
    }
    let unready = ready(&served);
    assert_eq!(
        (unready.status, unready.json()["detail"].as_str()),
        (503, Some("the store does not accept writes"))
    );
    assert_eq!(metric(&served.scrape(), "guestlane_store_writable"), 0.0);
    let pid = served.child.id().to_string();
    let raised = Command::new("prlimit")
        .args(["--pid", &pid, "--fsize=unlimited:"])
        .status()
        .unwrap();
    assert!(raised.success());
    until_ready_is(&served, 200);
    assert_eq!(metric(&served.scrape(), "guestlane_store_writable"), 1.0);
    for guest in 0..=guest {
        assert!([200, 201].contains(&served.create(&key, &wish(guest)).status));
    }
    office.assert_each_guest_once(guest + 1);
    served.signal(Signal::SIGTERM);
    assert_eq!(served.ended(), 0);
    office.run(&["audit", "verify"]).ok();
}

/// A database that is read-only, like a demoted primary or one on a full disk.
#[test]
fn a_database_that_takes_no_writes_makes_an_idle_node_unready() {
    let server = Server::start();
    let url = schema_in(&server.url());
    let office = Office::open(&["--rate-limit", "off"]);
    let served = office.serve(&[], &[("GUESTLANE_DATABASE_URL", &url)]);
    until_ready_is(&served, 200);
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
        until_ready_is(&served, 503).json()["detail"],
        "the store does not accept writes"
    );
    alter("DROP TRIGGER full_disk ON property");
    until_ready_is(&served, 200);
}

#[test]
fn a_node_that_ends_is_unready_first_and_goes_on_serving_for_the_drain_period() {
    let office = Office::open(&["--rate-limit", "off"]);
    office.register_keys();
    let key = office.api_key("sessions:write");
    let served = office.serve(&[], &[("GUESTLANE_DRAIN_PERIOD", "3s")]);
    assert_eq!(ready(&served).status, 200);
    served.signal(Signal::SIGTERM);
    assert_eq!(until_ready_is(&served, 503).json()["code"], "shutting_down");
    let answer = served.create(&key, &json!({"guestId": "ann"}));
    assert_eq!(
        (answer.status, answer.headers["connection"].as_str()),
        (201, "close")
    );
    assert_eq!(served.ended(), 0);
    office.assert_each_guest_once(1);
}

#[test]
fn a_worker_answers_probes_and_gives_metrics_where_it_is_asked_to() {
    let server = Server::start();
    let url = schema_in(&server.url());
    let office = Office::open(&["--rate-limit", "off"]);
    let mut command = office.command(&["worker", "--json", "--metrics-listen", "127.0.0.1:0"]);
    let mut child = command
        .env("GUESTLANE_DATABASE_URL", &url)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    let says: Value = serde_json::from_str(&line).unwrap();
    let address = says["metrics"]
        .as_str()
        .unwrap()
        .trim_end_matches("/metrics")
        .to_owned();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(
            ask(&address, &format!("GET {path}"), "", "")
                .unwrap()
                .status,
            200,
            "{path}"
        );
    }
    assert_eq!(
        metric(
            &ask(&address, "GET /metrics", "", "").unwrap().body,
            "guestlane_ready"
        ),
        1.0
    );
    assert_eq!(
        ask(&address, "GET /v1/sessions", "", "").unwrap().status,
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
fn a_worker_that_ends_is_unready_while_work_is_in_flight() {
    let server = Server::start();
    let url = schema_in(&server.url());
    let settings = [
        ("GUESTLANE_DATABASE_URL", url.as_str()),
        ("GUESTLANE_ATTEMPT_TIMEOUT", "2s"),
    ];
    let office = Office::open(&["--rate-limit", "off", "--fault", "conversation:hang"]);
    office.write("rows.csv", "guest_id\nann\n");
    for arguments in [
        ["signing-keys", "export", "--format", "jwks"],
        ["batch", "enqueue", "rows.csv", "--json"],
    ] {
        let ended = Ended::of(office.command(&arguments).envs(settings).output().unwrap()).ok();
        if arguments[0] == "keys" {
            office.admin("PUT", "/_sim/guest-keys", &ended.stdout);
        }
    }
    let mut command = office.command(&["worker", "--json", "--metrics-listen", "127.0.0.1:0"]);
    command.envs(settings);
    let worker = Served::start(command);
    let probes = worker.metrics.trim_end_matches("/metrics").to_owned();
    let ready = || ask(&probes, "GET /readyz", "", "").map(|answer| answer.status);
    assert_eq!(ready(), Some(200));
    while office.state()["hanging"] != 1 {
        pause(20);
    }
    worker.signal(Signal::SIGTERM);
    while ready() == Some(200) {
        pause(5);
    }
    assert_eq!(
        (ready(), &office.state()["conversations"]),
        (Some(503), &json!(0)),
        "unready, and the row is in flight"
    );
    office.faults(&[]);
    assert_eq!(worker.ended(), 0);
    office.assert_each_guest_once(1);
}
