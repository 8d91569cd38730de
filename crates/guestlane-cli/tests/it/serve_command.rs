//! `guestlane serve` as operators run it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    harness::{Office, bare},
    service_process::Answer,
};

#[test]
fn a_service_is_started_asked_and_ended() {
    let office = Office::open(&["--rate-limit", "off"]);
    office.register_keys();
    let (write, read) = (
        office.api_key("sessions:write"),
        office.api_key("sessions:read"),
    );
    let served = office.serve(&[], &[]);
    let opened = served.create(&write, &json!({"guestId": "user-8842-xyz"}));
    assert_eq!(opened.status, 201, "{}", opened.body);
    assert_eq!(
        opened.headers["location"],
        format!(
            "/v1/sessions/{}",
            opened.json()["sessionId"].as_str().unwrap()
        )
    );
    let listed = served.ask("GET", "/v1/sessions", &read, "", "").json();
    assert_eq!(
        listed["sessions"][0]["sessionId"],
        opened.json()["sessionId"]
    );
    assert!(
        served
            .scrape()
            .contains("guestlane_session_create_duration_seconds_count{surface=\"rest\"} 1")
    );
    served.signal(Signal::SIGTERM);
    assert_eq!(served.ended(), 0);
    // The command line reads the same store.
    assert_eq!(
        office.run(&["sessions", "list", "--json"]).ok().json()["sessionId"],
        opened.json()["sessionId"]
    );
    office.assert_each_guest_once(1);
}

#[test]
fn whatever_is_wrong_with_its_settings_is_told_before_it_listens() {
    let office = Office::open(&[]);
    for (settings, says) in [
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
        let ended = crate::harness::Ended::of(
            office
                .command(&["serve"])
                .env(settings.0, settings.1)
                .output()
                .unwrap(),
        );
        assert_eq!(ended.code, 2, "{settings:?}: {}", ended.stderr);
        assert!(
            ended.stderr.contains(says),
            "{settings:?}: {}",
            ended.stderr
        );
    }
    let open = office
        .command(&["serve", "--listen", "0.0.0.0:0"])
        .env("GUESTLANE_TLS_TERMINATED_UPSTREAM", "true")
        .output()
        .unwrap();
    let told = String::from_utf8(open.stderr).unwrap();
    assert!(
        open.status.code() == Some(2) && told.contains("no valid API key"),
        "{told}"
    );
    let none = crate::harness::Ended::of(
        bare()
            .current_dir(office.directory.path())
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
fn sessions_asked_for_while_the_service_is_killed_again_and_again_are_there_once() {
    const LIVES: u64 = 12;
    let office = Office::open(&["--rate-limit", "off", "--latency", "10"]);
    office.register_keys();
    let key = office.api_key("sessions:write");
    let next = Arc::new(AtomicU64::new(0));
    for life in 0..LIVES {
        let served = office.serve(&[], &[]);
        let over = Arc::new(AtomicBool::new(false));
        let asked = thread::scope(|scope| {
            let callers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let mut mine = Vec::new();
                        while !over.load(Ordering::Relaxed) {
                            let guest = next.fetch_add(1, Ordering::Relaxed);
                            mine.push(guest);
                            let body = json!({"guestId": format!("guest-{guest}"), "idempotencyKey": format!("key-{guest}")});
                            served.try_ask("POST", "/v1/sessions", &key, "content-type: application/json\r\n", &body.to_string());
                        }
                        mine
                    })
                })
                .collect();
            while office.state()["conversations"].as_u64().unwrap() < (life + 1) * 15 {
                thread::yield_now();
            }
            served.signal(if life % 3 == 2 {
                Signal::SIGTERM
            } else {
                Signal::SIGKILL
            });
            over.store(true, Ordering::Relaxed);
            callers
                .into_iter()
                .flat_map(|caller| caller.join().unwrap())
                .count()
        });
        assert!(asked > 0);
        let _ = served.ended();
    }
    // Callers without a response repeat the request under the same key.
    let served = office.serve(&[], &[]);
    let guests = next.load(Ordering::Relaxed);
    for guest in 0..guests {
        let body =
            json!({"guestId": format!("guest-{guest}"), "idempotencyKey": format!("key-{guest}")});
        let open = |answer: &Answer| matches!(answer.status, 200 | 201);
        while !open(&served.create(&key, &body)) {
            thread::yield_now();
        }
    }
    office.assert_each_guest_once(guests);
    served.signal(Signal::SIGTERM);
    assert_eq!(served.ended(), 0);
    office.run(&["audit", "verify"]).ok();
}

#[test]
fn a_hang_up_reads_log_level_and_quota_again() {
    let office = Office::open(&["--rate-limit", "off"]);
    office.register_keys();
    let read = office.api_key("sessions:read");
    office.write(
        "guestlane.toml",
        "platform_rate_limit = \"100/s\"\n[log]\nlevel = \"info\"\n",
    );
    let served = office.serve(&[], &[]);
    let limit = || {
        served.ask("GET", "/v1/overview", &read, "", "").json()["clients"][0]["limitPerSecond"]
            .clone()
    };
    assert_eq!(limit(), json!(100.0));
    office.write(
        "guestlane.toml",
        "platform_rate_limit = \"7/s\"\n[log]\nlevel = \"info\"\n",
    );
    served.signal(Signal::SIGHUP);
    served.says("settings reloaded");
    assert_eq!(limit(), json!(7.0));
    office.write("guestlane.toml", "platform_rate_limit = \"many\"\n");
    served.signal(Signal::SIGHUP);
    served.says("keeping the previous ones");
    assert_eq!(limit(), json!(7.0));
}

#[test]
fn the_log_can_be_read_by_machines_and_names_nobody() {
    let office = Office::open(&["--rate-limit", "off"]);
    office.register_keys();
    let write = office.api_key("sessions:write");
    let served = office.serve(&[], &[("GUESTLANE_LOG_FORMAT", "json")]);
    served.ask(
        "POST",
        "/v1/sessions",
        &write,
        "content-type: application/json\r\nx-request-id: req-1\r\n",
        &json!({"guestId": "canary-guest"}).to_string(),
    );
    served.ask("GET", "/v1/sessions?guestId=canary-guest", &write, "", "");
    served.says("\"status\":403");
    let log = served.log.lock().unwrap().clone();
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
fn api_keys_are_made_shown_once_listed_and_revoked() {
    let office = Office::open(&[]);
    let made = office
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
    let listed = office.run(&["api-keys", "list", "--json"]).ok().json();
    assert_eq!(
        (&listed["name"], &listed["scopes"], &listed["state"]),
        (
            &json!("shop"),
            &json!(["sessions:write", "sessions:read"]),
            &json!("good")
        )
    );
    let id = listed["id"].as_str().unwrap();
    let table = office.run(&["api-keys", "list"]).ok().stdout;
    assert!(
        table.contains(id) && table.contains("shop") && !table.contains(&key[15..]),
        "{table}"
    );
    let kept = std::fs::read(office.directory.path().join(".guestlane/guestlane.db")).unwrap();
    assert!(
        !kept
            .windows(20)
            .any(|bytes| bytes == &key.as_bytes()[20..40]),
        "the store has no key"
    );

    let next = office
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
    let revoked = office
        .run(&["api-keys", "revoke", id, "--json", "--yes"])
        .ok()
        .json();
    assert_eq!(revoked["state"], "revoked");
    for (arguments, says) in [
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
        (&["api-keys", "revoke", "nobody"], "api-keys list"),
    ] {
        let ended = office.run(arguments);
        assert!(
            ended.code == 2 && ended.stderr.contains(says),
            "{arguments:?}: {} {}",
            ended.code,
            ended.stderr
        );
    }
}

#[test]
fn a_port_that_is_taken_names_the_setting_the_flag_and_what_may_have_it() {
    let office = Office::open(&[]);
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
        let refused = office.run(&arguments);
        assert_eq!(refused.code, 1, "{}", refused.stderr);
        for word in [flag, setting, "guestlane demo --serve"] {
            assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
        }
    }
}
