//! `guestlane create`: output, replay, dry run, failures, and the lookup of sessions.

use guestlane_testkit::cli::{SALES, SUPPORT, TestCli};
use serde_json::{Value, json};

const SAMPLE: [&str; 8] = [
    "create",
    "--guest",
    "user-8842-xyz",
    "--attr",
    "source=web-portal",
    "--attr",
    "tier=premium",
    "--json",
];

#[test]
fn create_prints_documented_json_and_verifiable_token() {
    let cli = TestCli::open(&[]);
    let exited = cli.run(&SAMPLE).ok();
    let Value::Object(session) = exited.json() else {
        panic!()
    };
    let names: Vec<_> = session.keys().map(String::as_str).collect();
    let mut wanted = [
        "sessionId",
        "guestId",
        "queueId",
        "state",
        "contactId",
        "conversationId",
        "guestToken",
        "idempotencyKey",
        "replayed",
        "attempts",
        "latencyMs",
        "admittedAt",
        "openedAt",
    ];
    wanted.sort();
    assert_eq!(names, wanted);
    assert_eq!(
        (
            &session["state"],
            &session["replayed"],
            &session["attempts"]
        ),
        (&json!("open"), &json!(false), &json!(2))
    );
    assert_eq!(
        (&session["guestId"], &session["queueId"]),
        (&json!("user-8842-xyz"), &json!(SALES))
    );

    let token = session["guestToken"].as_str().unwrap();
    let pem = cli
        .run(&["signing-keys", "export", "--format", "pem"])
        .ok()
        .stdout;
    let key = jsonwebtoken::DecodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
    let validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    let claims = jsonwebtoken::decode::<Value>(token, &key, &validation)
        .unwrap()
        .claims;
    assert_eq!(claims["guestId"], "user-8842-xyz");

    let jwks = cli
        .run(&["signing-keys", "export", "--format", "jwks"])
        .ok()
        .stdout;
    assert_eq!(
        cli.admin("PUT", "/_sim/guest-keys", &jwks),
        json!({"registered": 1})
    );
    assert_eq!(
        cli.run(&["token", "verify", token, "--json"]).ok().json()["guestId"],
        "user-8842-xyz"
    );
    assert_eq!(
        cli.run(&["token", "decode", token, "--json"]).ok().json()["claims"]["tier"],
        "premium"
    );

    let contact = &cli.journal("contact")[0];
    assert_eq!(
        contact["headers"]["idempotency-key"],
        format!("{}-contact", session["idempotencyKey"].as_str().unwrap())
    );
    assert_eq!(
        cli.state()["crm"],
        json!({"events": 1, "repeated": 0, "badSignature": 0, "unchecked": 0, "guestsNotifiedTwice": 0})
    );
    cli.assert_each_guest_once(1);
}

#[test]
fn create_replays_same_key_and_rejects_it_with_another_queue() {
    let cli = TestCli::open(&[]);
    let create = |queue: &str| {
        cli.run(&[
            "create",
            "--guest",
            "ann",
            "--queue",
            queue,
            "--idempotency-key",
            "order-1",
            "--json",
        ])
    };
    let first = create(SALES).ok().json();
    let calls = cli.state()["calls"].clone();
    let again = create(SALES).ok().json();
    assert_eq!(again["replayed"], true);
    assert_eq!(
        (&again["conversationId"], &again["guestToken"]),
        (&first["conversationId"], &first["guestToken"])
    );
    assert_eq!(cli.state()["calls"], calls);

    let other = create(SUPPORT);
    assert_eq!(other.code, 1);
    assert_eq!(other.json()["error"]["code"], "idempotency_key_reused");
    assert!(
        other.stderr.contains("these differ: queueId"),
        "{}",
        other.stderr
    );
    assert_eq!(cli.state()["calls"], calls);
}

#[test]
fn create_output_hides_tokens_and_secrets_by_default() {
    let cli = TestCli::open(&[]);
    let arguments = [
        "create",
        "--guest",
        "ann",
        "--attr",
        "mail=ann@example.org",
        "-v",
        "-v",
    ];
    let exited = cli.run(&arguments).ok();
    let journal = cli.journal("contact");
    let body: Value = serde_json::from_str(journal[0]["body"].as_str().unwrap()).unwrap();
    let token = body["customAttributes"]["guestToken"].as_str().unwrap();
    let bearer = journal[0]["headers"]["authorization"]
        .as_str()
        .unwrap()
        .strip_prefix("Bearer ")
        .unwrap();
    let screen = format!("{}{}", exited.stdout, exited.stderr);
    assert!(
        exited.stderr.contains("request"),
        "the shape is there: {}",
        exited.stderr
    );
    for secret in [
        token,
        bearer,
        "sim-client-secret",
        "ann@example.org",
        guestlane_testkit::cli::CRM_SECRET,
    ] {
        assert!(!screen.contains(secret), "{secret}\n{screen}");
    }
    assert!(
        !exited.stderr.contains("guest-ann"),
        "personal data stays out of logs: {}",
        exited.stderr
    );

    let shown = cli
        .run(&["create", "--guest", "bob", "--show-token"])
        .ok()
        .stdout;
    assert!(shown.contains("guest token   ey"), "{shown}");
}

#[test]
fn create_dry_run_prints_calls_and_sends_nothing() {
    let cli = TestCli::open(&[]);
    let shown = cli
        .run(&[
            "create",
            "--guest",
            "ann",
            "--attr",
            "tier=gold",
            "--idempotency-key",
            "order-1",
            "--dry-run",
        ])
        .ok()
        .stdout;
    for part in [
        "POST http://127.0.0.1:",
        "/api/v2/externalcontacts/contacts",
        "Idempotency-Key: webchat-session-7af15ad7-58ca-8cc5-b0e5-d73184eeb92e-conversation",
        r#"{"type":"webchat","address":"guest-ann","externalContactId":"ann","customAttributes":{"guestToken":"<guest token>","tier":"gold"}}"#,
        "Attributes: 8 of 2048 bytes.",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    assert_eq!(cli.state()["calls"]["token"], 0);
    assert_eq!(std::fs::read_dir(cli.directory.path()).unwrap().count(), 0);
}

#[test]
fn create_succeeds_while_crm_is_down_and_event_is_delivered_later() {
    let cli = TestCli::open(&["--fault", "crm:500:first=1"]);
    let exited = cli.run(&["create", "--guest", "ann"]).ok();
    assert!(
        exited
            .stderr
            .contains("1 event for the CRM is pending; `guestlane outbox deliver` attempts it now"),
        "{}",
        exited.stderr
    );
    assert!(
        cli.run(&["outbox", "list"])
            .ok()
            .stdout
            .contains("the endpoint responded with HTTP 500")
    );
    let delivered = cli.run(&["outbox", "deliver", "--json"]).ok().json();
    assert_eq!(
        delivered,
        json!({"delivered": 1, "failed": 0, "dead": 0, "pending": 0})
    );
    assert_eq!(cli.state()["crm"]["events"], 1);
}

#[test]
fn create_failure_exits_1_and_prints_cause_and_fix() {
    let cli = TestCli::open(&[]);
    let unknown = cli.run(&[
        "create",
        "--guest",
        "ann",
        "--queue",
        "00000000-0000-4000-8000-000000000000",
    ]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (1, ""));
    assert!(
        unknown
            .stderr
            .contains("does not exist in this organization")
            && unknown.stderr.contains("correlation id"),
        "{}",
        unknown.stderr
    );

    let mut wrong = cli.command(&["create", "--guest", "ann"]);
    let wrong = wrong
        .env("GENESYS_CLIENT_SECRET", "wrong")
        .output()
        .unwrap();
    let stderr = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    assert!(
        stderr.starts_with("error: OAuth authentication failed")
            && stderr.contains("verify client credentials and scopes"),
        "{stderr}"
    );
    assert!(stderr.contains("\n  call:  "), "{stderr}");
    assert_eq!(cli.state()["contacts"], 0);
}

#[test]
fn create_failure_prints_generated_key_for_a_safe_retry() {
    let cli = TestCli::open(&["--fault", "conversation:500:first=1"]);
    let output = cli
        .command(&["create", "--guest", "ann", "--json"])
        .env("GUESTLANE_MAX_RETRIES", "0")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let failed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let key = failed["error"]["idempotencyKey"].as_str().unwrap();
    assert!(failed["error"]["correlationId"].is_string(), "{failed}");
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains(&format!("key:   {key}"))
    );
    let again = cli
        .run(&[
            "create",
            "--guest",
            "ann",
            "--idempotency-key",
            key,
            "--json",
        ])
        .ok()
        .json();
    assert_eq!(again["state"], "open");
    cli.assert_each_guest_once(1);
    let resumed = cli.run(&["sessions", "resume"]).ok();
    assert!(
        resumed.stderr.contains("No session is unfinished"),
        "{}",
        resumed.stderr
    );
}

#[test]
fn invalid_input_prints_no_key_and_replay_prints_original_latency() {
    let cli = TestCli::open(&[]);
    for arguments in [
        &["create", "--guest", "ann", "--first-name", "Ann"][..],
        &["create", "--guest", "a\u{200b}"],
    ] {
        let refused = cli.run(arguments);
        assert!(
            refused.code == 2 && !refused.stderr.contains("key:"),
            "{}",
            refused.stderr
        );
        let json = cli.run(&[arguments, &["--json"]].concat()).json();
        assert_eq!(json["error"].get("idempotencyKey"), None, "{json}");
    }
    let create = ["create", "--guest", "ann", "--idempotency-key", "order-1"];
    assert!(!cli.run(&create).ok().stdout.contains("at its creation"));
    assert!(
        cli.run(&create)
            .ok()
            .stdout
            .contains(" ms (at its creation)")
    );
}

#[test]
fn sessions_show_and_timeline_accept_any_identifier() {
    let cli = TestCli::open(&[]);
    let mut sessions = Vec::new();
    for (guest, key) in [("ann", "order-1"), ("ann", "order-2"), ("bob", "order-3")] {
        sessions.push(
            cli.run(&[
                "create",
                "--guest",
                guest,
                "--idempotency-key",
                key,
                "--json",
            ])
            .ok()
            .json(),
        );
    }
    let text = |session: &Value, name: &str| session[name].as_str().unwrap().to_owned();
    for command in ["show", "timeline"] {
        let found = |wanted: &str| {
            let shown = cli
                .run(&["sessions", command, wanted, "--json"])
                .ok()
                .json();
            shown.get("session").unwrap_or(&shown)["sessionId"].clone()
        };
        for session in &sessions {
            for member in ["sessionId", "idempotencyKey", "conversationId", "contactId"] {
                assert_eq!(
                    found(&text(session, member)),
                    session["sessionId"],
                    "{command} {member}"
                );
            }
        }
        assert_eq!(
            found("ann"),
            sessions[1]["sessionId"],
            "the newest of the guest"
        );
        let several = cli.run(&["sessions", command, "ann"]).ok();
        assert!(
            several.stderr.contains("several sessions match"),
            "{}",
            several.stderr
        );
        let unknown = cli.run(&["sessions", command, "nothing"]);
        assert!(
            unknown.code == 2
                && unknown
                    .stderr
                    .contains("`nothing` is not a session of this store"),
            "{}",
            unknown.stderr
        );
    }
}
