//! Forty secrets and personal values are planted, then searched for in everything that the service
//! writes or answers.

use std::{collections::BTreeMap, thread, time::Duration};

use nix::sys::signal::Signal;
use serde_json::{Map, json};

use guestlane_testkit::cli::TestCli;

use crate::traces::Collector;

/// The places in which each value was found.
#[derive(Default)]
struct LeakReport(BTreeMap<String, Vec<String>>);

impl LeakReport {
    fn search(&mut self, place: &str, text: &[u8], planted: &[(String, String)]) {
        for (name, value) in planted {
            if text
                .windows(value.len())
                .any(|bytes| bytes == value.as_bytes())
            {
                self.0
                    .entry(name.clone())
                    .or_default()
                    .push(place.to_owned());
            }
        }
    }
}

#[test]
fn planted_secrets_and_personal_values_do_not_leak() {
    let collector = Collector::open();
    let cli = TestCli::open(&[
        "--rate-limit",
        "off",
        "--fault",
        "conversation:503:nth=1",
        "--fault",
        "crm:500:first=3",
        "--fault",
        "contact:400-echo:nth=6",
    ]);
    let (write, read, admin, verify) = (
        cli.api_key("sessions:write"),
        cli.api_key("sessions:read"),
        cli.api_key("admin"),
        cli.api_key("tokens:verify"),
    );
    cli.register_keys();
    let service = cli.serve(
        &["-vv"],
        &[
            ("GUESTLANE_OTLP_ENDPOINT", collector.endpoint.as_str()),
            ("GUESTLANE_LOG_FORMAT", "json"),
            ("GUESTLANE_RETRY_INITIAL_BACKOFF", "5ms"),
            ("GUESTLANE_RETRY_MAX_BACKOFF", "10ms"),
        ],
    );

    // 24 attribute values, five guests, and twelve secrets of guestlane itself. The names of
    // attributes are allowed in a log at `-vv`.
    let mut attributes = Map::new();
    let mut personal = Vec::new();
    for number in 0..24 {
        let value = format!("canary-value-{number}-@example.com");
        attributes.insert(format!("name{number}"), value.clone().into());
        personal.push((format!("attribute value {number}"), value));
    }
    let guests: Vec<_> = (0..5)
        .map(|number| format!("canary-guest-{number}@example.com"))
        .collect();
    personal.extend(guests.iter().map(|guest| (guest.clone(), guest.clone())));
    let secret = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let text = |name: &str| cli.startup[name].as_str().unwrap().to_owned();
    let mut secrets = vec![
        secret("client secret", &text("clientSecret")),
        secret("webhook secret", guestlane_testkit::cli::CRM_SECRET),
        secret("master key", cli.read(".guestlane/master.key").trim()),
        secret("write key", &write[15..]),
        secret("read key", &read[15..]),
        secret("admin key", &admin[15..]),
        secret("verify key", &verify[15..]),
    ];
    // The public key is not a secret. The tests look for the private key by the tokens that it
    // signed.
    let pem = cli.run(&["signing-keys", "export"]).ok().stdout;
    assert!(pem.contains("PUBLIC KEY"));

    let kind = "content-type: application/json\r\n";
    let mut answers = Vec::new();
    for (number, guest) in guests.iter().enumerate() {
        let body = json!({"guestId": guest, "idempotencyKey": format!("canary-{number}"), "attributes": attributes});
        let opened = service.send_request("POST", "/v1/sessions", &write, kind, &body.to_string());
        assert!(opened.status == 201, "{}", opened.body);
        secrets.push((
            format!("guest token {number}"),
            opened.json()["guestToken"].as_str().unwrap().to_owned(),
        ));
        // The creator of a session receives its token and the guest's ID, but no attribute.
        let mut reported = opened.json();
        reported["guestToken"] = "".into();
        reported["guestId"] = "".into();
        answers.push(("create".to_owned(), reported.to_string()));
        let id = opened.json()["sessionId"].as_str().unwrap().to_owned();
        for path in [
            format!("/v1/sessions/{id}"),
            format!("/v1/sessions/{id}/timeline"),
            format!("/v1/sessions?guestId={guest}"),
        ] {
            let body = service
                .send_request("GET", &path, &read, "", "")
                .body
                .replace(guest.as_str(), "");
            answers.push((path, body));
        }
        let _ = service.send_request("POST", &format!("/v1/sessions?{guest}"), &write, kind, "{}");
    }
    // The platform's message repeats attributes. Only the caller of that request receives it.
    let body =
        json!({"guestId": "echo", "idempotencyKey": "canary-echo", "attributes": attributes})
            .to_string();
    let refused = service.send_request("POST", "/v1/sessions", &write, kind, &body);
    assert!(
        refused.json()["cause"]
            .as_str()
            .unwrap()
            .contains("canary-value-0-@example.com"),
        "{}",
        refused.body
    );
    let id = refused.json()["sessionId"].as_str().unwrap().to_owned();
    for path in [
        format!("/v1/sessions/{id}"),
        format!("/v1/sessions/{id}/timeline"),
        "/v1/sessions?state=failed".to_owned(),
    ] {
        let reported = service.send_request("GET", &path, &read, "", "");
        assert!(
            reported.body.contains("bad.request"),
            "{path}: {}",
            reported.body
        );
        answers.push((path, reported.body));
    }
    let overview = service
        .send_request("GET", "/v1/overview", &read, "", "")
        .json();
    assert!(
        overview["problems"]
            .as_array()
            .unwrap()
            .iter()
            .any(|problem| problem["code"] == "platform_rejected"),
        "{overview}"
    );
    let token = secrets.last().unwrap().1.clone();
    let _ = service.send_request(
        "POST",
        "/v1/tokens:verify",
        &verify,
        kind,
        &json!({"token": token}).to_string(),
    );
    let broken = format!("{}x", &token[..token.len() - 1]);
    answers.push((
        "verify".to_owned(),
        service
            .send_request(
                "POST",
                "/v1/tokens:verify",
                &verify,
                kind,
                &json!({"token": broken}).to_string(),
            )
            .body,
    ));
    // Errors may name a field, but must not repeat its value.
    for body in [
        json!({"guestId": guests[0], "idempotencyKey": "canary-1", "attributes": attributes}),
        json!({"guestId": "x", "queueId": "canary-value-1-@example.com"}),
        json!({"guestId": "x", "email": "canary-value-2-@example.com"}),
        json!({"guestId": "x", "queueId": "00000000-0000-4000-8000-000000000009", "attributes": {"x": "canary-value-3-@example.com"}}),
    ] {
        let refused = service.send_request("POST", "/v1/sessions", &write, kind, &body.to_string());
        assert!(refused.status >= 400, "{}", refused.body);
        let named = refused.json();
        if body["queueId"].as_str() != Some("canary-value-1-@example.com") {
            // An error about a malformed UUID repeats the beginning of the value, only to the
            // caller that sent it.
            let reported = format!("{} {}", named["detail"], named["cause"]);
            answers.push((format!("refused {}", named["code"]), reported));
        }
    }
    let lines: String = guests
        .iter()
        .map(|guest| format!("{}\n", json!({"guestId": guest, "attributes": attributes})))
        .collect();
    let _ = service.send_request(
        "POST",
        "/v1/sessions:batch",
        &write,
        "content-type: application/jsonl\r\n",
        &lines,
    );
    for path in [
        "/v1/overview",
        "/v1/errors",
        "/v1/outbox",
        "/v1/audit/checkpoint",
        "/.well-known/jwks.json",
        "/openapi.json",
        "/",
        "/docs",
        "/healthz",
        "/readyz",
    ] {
        answers.push((
            path.to_owned(),
            service.send_request("GET", path, &read, "", "").body,
        ));
    }
    answers.push((
        "/v1/audit:verify".to_owned(),
        service
            .send_request("POST", "/v1/audit:verify", &admin, "", "")
            .body,
    ));
    for (path, headers) in [
        ("/v1/sessions", ""),
        (&*format!("/v1/{}", guests[0]), ""),
        ("/v1/events", ""),
    ] {
        answers.push((
            format!("{path} without a key"),
            service.send_request("GET", path, "", headers, "").body,
        ));
    }
    while cli.state()["crm"]["events"].as_u64().unwrap() < 5 {
        thread::park_timeout(Duration::from_millis(20));
    }
    let metrics = service.scrape();
    let log = std::sync::Arc::clone(&service.log);
    service.signal(Signal::SIGTERM);
    assert_eq!(service.wait_for_exit(), 0);

    let planted = [personal, secrets.clone()].concat();
    assert!(planted.len() >= 40, "{}", planted.len());
    let mut found = LeakReport::default();
    for (place, text) in &answers {
        found.search(place, text.as_bytes(), &planted);
    }
    found.search("metrics", metrics.as_bytes(), &planted);
    found.search("log", log.lock().unwrap().as_bytes(), &planted);
    found.search("traces", &collector.bytes(), &planted);
    assert!(
        !collector.bytes().is_empty() && log.lock().unwrap().len() > 10_000,
        "all of these say something"
    );
    // On disk, guests and attributes may be in the store, but secrets only in the master key's
    // file.
    for entry in walk(cli.directory.path()) {
        if entry.ends_with("master.key") {
            continue;
        }
        found.search(
            &entry.display().to_string(),
            &std::fs::read(&entry).unwrap(),
            &secrets,
        );
    }
    assert!(found.0.is_empty(), "{:#?}", found.0);
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                walk(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}
