//! `guestlane serve` as operators run it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use guestlane_testkit::{
    cli::{TestCli, bare},
    service_process::Response,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

#[test]
fn serve_creates_and_lists_sessions_and_exits_0_on_sigterm() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    cli.register_keys();
    let (write, read) = (cli.api_key("sessions:write"), cli.api_key("sessions:read"));
    let service = cli.serve(&[], &[]);
    let opened = service.create(&write, &json!({"guestId": "user-8842-xyz"}));
    assert_eq!(opened.status, 201, "{}", opened.body);
    assert_eq!(
        opened.headers["location"],
        format!(
            "/v1/sessions/{}",
            opened.json()["sessionId"].as_str().unwrap()
        )
    );
    let listed = service
        .send_request("GET", "/v1/sessions", &read, "", "")
        .json();
    assert_eq!(
        listed["sessions"][0]["sessionId"],
        opened.json()["sessionId"]
    );
    assert!(
        service
            .scrape()
            .contains("guestlane_session_create_duration_seconds_count{surface=\"rest\"} 1")
    );
    service.signal(Signal::SIGTERM);
    assert_eq!(service.wait_for_exit(), 0);
    // The command line reads the same store.
    assert_eq!(
        cli.run(&["sessions", "list", "--json"]).ok().json()["sessionId"],
        opened.json()["sessionId"]
    );
    cli.assert_each_guest_once(1);
}

#[test]
fn serve_rejects_invalid_settings_before_listening() {
    let cli = TestCli::open(&[]);
    for (settings, expected) in [
        (("GUESTLANE_LISTEN", "somewhere"), "GUESTLANE_LISTEN"),
        (("GUESTLANE_LISTEN", "0.0.0.0:0"), "without TLS"),
        (
            ("GUESTLANE_API_KEY_RATE_LIMIT", "many"),
            "GUESTLANE_API_KEY_RATE_LIMIT",
        ),
        (
            ("GUESTLANE_MAX_CONCURRENT_SESSIONS", "0"),
            "GUESTLANE_MAX_CONCURRENT_SESSIONS",
        ),
        (
            ("GUESTLANE_TLS_CERT_FILE", "cert.pem"),
            "GUESTLANE_TLS_KEY_FILE",
        ),
        (("GUESTLANE_LOG_LEVEL", "loud"), "GUESTLANE_LOG_LEVEL"),
    ] {
        let exited = guestlane_testkit::cli::Exited::of(
            cli.command(&["serve"])
                .env(settings.0, settings.1)
                .output()
                .unwrap(),
        );
        assert_eq!(exited.code, 2, "{settings:?}: {}", exited.stderr);
        assert!(
            exited.stderr.contains(expected),
            "{settings:?}: {}",
            exited.stderr
        );
    }
    let open = cli
        .command(&["serve", "--listen", "0.0.0.0:0"])
        .env("GUESTLANE_TLS_TERMINATED_UPSTREAM", "true")
        .output()
        .unwrap();
    let reported = String::from_utf8(open.stderr).unwrap();
    assert!(
        open.status.code() == Some(2) && reported.contains("no valid API key"),
        "{reported}"
    );
    let none = guestlane_testkit::cli::Exited::of(
        bare()
            .current_dir(cli.directory.path())
            .arg("serve")
            .output()
            .unwrap(),
    );
    assert!(
        none.code == 2 && none.stderr.contains("GENESYS_CLIENT_ID"),
        "{}",
        none.stderr
    );
}

#[test]
fn sessions_are_created_once_despite_repeated_service_kills() {
    const LIVES: u64 = 12;
    let cli = TestCli::open(&["--rate-limit", "off", "--latency", "10"]);
    cli.register_keys();
    let key = cli.api_key("sessions:write");
    let next = Arc::new(AtomicU64::new(0));
    for life in 0..LIVES {
        let service = cli.serve(&[], &[]);
        let done = Arc::new(AtomicBool::new(false));
        let asked = thread::scope(|scope| {
            let callers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let mut mine = Vec::new();
                        while !done.load(Ordering::Relaxed) {
                            let guest = next.fetch_add(1, Ordering::Relaxed);
                            mine.push(guest);
                            let body = json!({"guestId": format!("guest-{guest}"), "idempotencyKey": format!("key-{guest}")});
                            service.try_send_request("POST", "/v1/sessions", &key, "content-type: application/json\r\n", &body.to_string());
                        }
                        mine
                    })
                })
                .collect();
            while cli.state()["conversations"].as_u64().unwrap() < (life + 1) * 15 {
                thread::yield_now();
            }
            service.signal(if life % 3 == 2 {
                Signal::SIGTERM
            } else {
                Signal::SIGKILL
            });
            done.store(true, Ordering::Relaxed);
            callers
                .into_iter()
                .flat_map(|caller| caller.join().unwrap())
                .count()
        });
        assert!(asked > 0);
        let _ = service.wait_for_exit();
    }
    // Callers without a response repeat the request under the same key.
    let service = cli.serve(&[], &[]);
    let guests = next.load(Ordering::Relaxed);
    for guest in 0..guests {
        let body =
            json!({"guestId": format!("guest-{guest}"), "idempotencyKey": format!("key-{guest}")});
        let open = |answer: &Response| matches!(answer.status, 200 | 201);
        while !open(&service.create(&key, &body)) {
            thread::yield_now();
        }
    }
    cli.assert_each_guest_once(guests);
    service.signal(Signal::SIGTERM);
    assert_eq!(service.wait_for_exit(), 0);
    cli.run(&["audit", "verify"]).ok();
}

#[test]
fn sighup_reloads_the_rate_limit_and_keeps_it_if_invalid() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    cli.register_keys();
    let read = cli.api_key("sessions:read");
    cli.write(
        "guestlane.toml",
        "platform_rate_limit = \"100/s\"\n[log]\nlevel = \"info\"\n",
    );
    let service = cli.serve(&[], &[]);
    let limit = || {
        service
            .send_request("GET", "/v1/overview", &read, "", "")
            .json()["clients"][0]["limitPerSecond"]
            .clone()
    };
    assert_eq!(limit(), json!(100.0));
    cli.write(
        "guestlane.toml",
        "platform_rate_limit = \"7/s\"\n[log]\nlevel = \"info\"\n",
    );
    service.signal(Signal::SIGHUP);
    service.wait_for_log("settings reloaded");
    assert_eq!(limit(), json!(7.0));
    cli.write("guestlane.toml", "platform_rate_limit = \"many\"\n");
    service.signal(Signal::SIGHUP);
    service.wait_for_log("keeping the previous ones");
    assert_eq!(limit(), json!(7.0));
}

#[test]
fn json_log_lines_parse_and_contain_no_guest_id() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    cli.register_keys();
    let write = cli.api_key("sessions:write");
    let service = cli.serve(&[], &[("GUESTLANE_LOG_FORMAT", "json")]);
    service.send_request(
        "POST",
        "/v1/sessions",
        &write,
        "content-type: application/json\r\nx-request-id: req-1\r\n",
        &json!({"guestId": "canary-guest"}).to_string(),
    );
    service.send_request("GET", "/v1/sessions?guestId=canary-guest", &write, "", "");
    service.wait_for_log("\"status\":403");
    let log = service.log.lock().unwrap().clone();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let answered = lines
        .iter()
        .find(|line| line["request_id"] == "req-1")
        .unwrap();
    assert_eq!(
        (&answered["method"], &answered["route"], &answered["status"]),
        (&json!("POST"), &json!("/v1/sessions"), &json!(201))
    );
    assert!(!log.contains("canary"), "{log}");
}

#[test]
fn api_keys_are_created_listed_replaced_and_revoked() {
    let cli = TestCli::open(&[]);
    let made = cli
        .run(&[
            "api-keys",
            "create",
            "--name",
            "shop",
            "--scope",
            "sessions:write",
            "--scope",
            "sessions:read",
            "--expires",
            "90d",
        ])
        .ok();
    let key = made.stdout.trim().to_owned();
    assert!(key.len() == 64 && key.starts_with("gl_"), "{key}");
    assert!(
        made.stderr.contains("It is not shown again"),
        "{}",
        made.stderr
    );
    let listed = cli.run(&["api-keys", "list", "--json"]).ok().json();
    assert_eq!(
        (&listed["name"], &listed["scopes"], &listed["state"]),
        (
            &json!("shop"),
            &json!(["sessions:write", "sessions:read"]),
            &json!("good")
        )
    );
    let id = listed["id"].as_str().unwrap();
    let table = cli.run(&["api-keys", "list"]).ok().stdout;
    assert!(
        table.contains(id) && table.contains("shop") && !table.contains(&key[15..]),
        "{table}"
    );
    let kept = std::fs::read(cli.directory.path().join(".guestlane/guestlane.db")).unwrap();
    assert!(
        !kept
            .windows(20)
            .any(|bytes| bytes == &key.as_bytes()[20..40]),
        "the store has no key"
    );

    let next = cli
        .run(&[
            "api-keys",
            "create",
            "--name",
            "shop 2",
            "--replaces",
            id,
            "--overlap",
            "12h",
            "--json",
        ])
        .ok()
        .json();
    assert_eq!(
        next["scopes"],
        json!(["sessions:write", "sessions:read"]),
        "the same as before"
    );
    let revoked = cli
        .run(&["api-keys", "revoke", id, "--json", "--yes"])
        .ok()
        .json();
    assert_eq!(revoked["state"], "revoked");
    for (arguments, expected) in [
        (
            &["api-keys", "create", "--name", "", "--scope", "admin"][..],
            "--name",
        ),
        (
            &["api-keys", "create", "--name", "x", "--scope", "root"],
            "--scope",
        ),
        (
            &[
                "api-keys",
                "create",
                "--name",
                "x",
                "--scope",
                "admin",
                "--expires",
                "soon",
            ],
            "--expires",
        ),
        (
            &["api-keys", "create", "--name", "x", "--replaces", id],
            "--replaces",
        ),
        (&["api-keys", "revoke", "unknown"], "api-keys list"),
    ] {
        let exited = cli.run(arguments);
        assert!(
            exited.code == 2 && exited.stderr.contains(expected),
            "{arguments:?}: {} {}",
            exited.code,
            exited.stderr
        );
    }
}

#[test]
fn port_in_use_error_names_flag_setting_and_likely_holder() {
    let cli = TestCli::open(&[]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, setting) in [
        ("--listen", "GUESTLANE_LISTEN"),
        ("--metrics-listen", "GUESTLANE_METRICS_LISTEN"),
    ] {
        let free =
            ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"].map(str::to_owned);
        let arguments = free.iter().map(String::as_str).collect::<Vec<_>>();
        let at = arguments
            .iter()
            .position(|argument| *argument == flag)
            .unwrap()
            + 1;
        let arguments = [
            &["serve"],
            &arguments[..at],
            &[address.as_str()],
            &arguments[at + 1..],
        ]
        .concat();
        let refused = cli.run(&arguments);
        assert_eq!(refused.code, 1, "{}", refused.stderr);
        for word in [flag, setting, "guestlane demo --serve"] {
            assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
        }
    }
}
