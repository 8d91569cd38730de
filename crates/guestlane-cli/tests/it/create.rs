//! `guestlane create`: output, replay, dry run, failures, and the lookup of sessions.

use serde_json::{Value, json};

use crate::harness::{Office, SALES, SUPPORT};

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
fn the_sample_guest_prints_the_json_of_the_design_and_a_token_that_verifies_with_the_exported_key()
{
    let office = Office::open(&[]);
    let ended = office.run(&SAMPLE).ok();
    let Value::Object(session) = ended.json() else {
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
    let pem = office
        .run(&["signing-keys", "export", "--format", "pem"])
        .ok()
        .stdout;
    let key = jsonwebtoken::DecodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
    let validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    let claims = jsonwebtoken::decode::<Value>(token, &key, &validation)
        .unwrap()
        .claims;
    assert_eq!(claims["guestId"], "user-8842-xyz");

    let jwks = office
        .run(&["signing-keys", "export", "--format", "jwks"])
        .ok()
        .stdout;
    assert_eq!(
        office.admin("PUT", "/_sim/guest-keys", &jwks),
        json!({"registered": 1})
    );
    assert_eq!(
        office
            .run(&["token", "verify", token, "--json"])
            .ok()
            .json()["guestId"],
        "user-8842-xyz"
    );
    assert_eq!(
        office
            .run(&["token", "decode", token, "--json"])
            .ok()
            .json()["claims"]["tier"],
        "premium"
    );

    let contact = &office.journal("contact")[0];
    assert_eq!(
        contact["headers"]["idempotency-key"],
        format!("{}-contact", session["idempotencyKey"].as_str().unwrap())
    );
    assert_eq!(
        office.state()["crm"],
        json!({"events": 1, "repeated": 0, "badSignature": 0, "unchecked": 0, "guestsToldTwice": 0})
    );
    office.assert_each_guest_once(1);
}

#[test]
fn the_same_key_again_is_replayed_without_a_call_and_with_another_queue_it_is_a_mismatch() {
    let office = Office::open(&[]);
    let create = |queue: &str| {
        office.run(&[
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
    let calls = office.state()["calls"].clone();
    let again = create(SALES).ok().json();
    assert_eq!(again["replayed"], true);
    assert_eq!(
        (&again["conversationId"], &again["guestToken"]),
        (&first["conversationId"], &first["guestToken"])
    );
    assert_eq!(office.state()["calls"], calls);

    let other = create(SUPPORT);
    assert_eq!(other.code, 1);
    assert_eq!(other.json()["error"]["code"], "idempotency_key_reused");
    assert!(
        other.stderr.contains("these differ: queueId"),
        "{}",
        other.stderr
    );
    assert_eq!(office.state()["calls"], calls);
}

#[test]
fn no_token_and_no_secret_is_on_the_screen_unless_it_was_asked_for() {
    let office = Office::open(&[]);
    let arguments = [
        "create",
        "--guest",
        "ann",
        "--attr",
        "mail=ann@example.org",
        "-v",
        "-v",
    ];
    let ended = office.run(&arguments).ok();
    let journal = office.journal("contact");
    let body: Value = serde_json::from_str(journal[0]["body"].as_str().unwrap()).unwrap();
    let token = body["customAttributes"]["guestToken"].as_str().unwrap();
    let bearer = journal[0]["headers"]["authorization"]
        .as_str()
        .unwrap()
        .strip_prefix("Bearer ")
        .unwrap();
    let screen = format!("{}{}", ended.stdout, ended.stderr);
    assert!(
        ended.stderr.contains("request"),
        "the shape is there: {}",
        ended.stderr
    );
    for secret in [
        token,
        bearer,
        "sim-client-secret",
        "ann@example.org",
        crate::harness::CRM_SECRET,
    ] {
        assert!(!screen.contains(secret), "{secret}\n{screen}");
    }
    assert!(
        !ended.stderr.contains("guest-ann"),
        "personal data stays out of logs: {}",
        ended.stderr
    );

    let shown = office
        .run(&["create", "--guest", "bob", "--show-token"])
        .ok()
        .stdout;
    assert!(shown.contains("guest token   ey"), "{shown}");
}

#[test]
fn a_dry_run_shows_the_calls_and_makes_none_and_leaves_nothing_behind() {
    let office = Office::open(&[]);
    let shown = office
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
    assert_eq!(office.state()["calls"]["token"], 0);
    assert_eq!(
        std::fs::read_dir(office.directory.path()).unwrap().count(),
        0
    );
}

#[test]
fn a_crm_that_is_down_does_not_fail_the_session_and_is_told_later() {
    let office = Office::open(&["--fault", "crm:500:first=1"]);
    let ended = office.run(&["create", "--guest", "ann"]).ok();
    assert!(
        ended
            .stderr
            .contains("1 event for the CRM is pending; `guestlane outbox deliver` attempts it now"),
        "{}",
        ended.stderr
    );
    assert!(
        office
            .run(&["outbox", "list"])
            .ok()
            .stdout
            .contains("the endpoint responded with HTTP 500")
    );
    let delivered = office.run(&["outbox", "deliver", "--json"]).ok().json();
    assert_eq!(
        delivered,
        json!({"delivered": 1, "failed": 0, "dead": 0, "pending": 0})
    );
    assert_eq!(office.state()["crm"]["events"], 1);
}

#[test]
fn a_refusal_ends_with_exit_code_1_and_says_cause_and_fix() {
    let office = Office::open(&[]);
    let unknown = office.run(&[
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

    let mut wrong = office.command(&["create", "--guest", "ann"]);
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
    assert_eq!(office.state()["contacts"], 0);
}

#[test]
fn a_failure_tells_the_key_that_was_made_so_that_asking_again_is_not_a_second_session() {
    let office = Office::open(&["--fault", "conversation:500:first=1"]);
    let output = office
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
    let again = office
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
    office.assert_each_guest_once(1);
    let resumed = office.run(&["sessions", "resume"]).ok();
    assert!(
        resumed.stderr.contains("No session is unfinished"),
        "{}",
        resumed.stderr
    );
}

#[test]
fn an_input_that_was_refused_has_no_key_and_a_replay_no_latency_of_its_own() {
    let office = Office::open(&[]);
    for arguments in [
        &["create", "--guest", "ann", "--first-name", "Ann"][..],
        &["create", "--guest", "a\u{200b}"],
    ] {
        let refused = office.run(arguments);
        assert!(
            refused.code == 2 && !refused.stderr.contains("key:"),
            "{}",
            refused.stderr
        );
        let json = office.run(&[arguments, &["--json"]].concat()).json();
        assert_eq!(json["error"].get("idempotencyKey"), None, "{json}");
    }
    let create = ["create", "--guest", "ann", "--idempotency-key", "order-1"];
    assert!(!office.run(&create).ok().stdout.contains("at its creation"));
    assert!(
        office
            .run(&create)
            .ok()
            .stdout
            .contains(" ms (at its creation)")
    );
}

#[test]
fn a_session_is_found_by_what_its_owner_has_in_hand() {
    let office = Office::open(&[]);
    let mut sessions = Vec::new();
    for (guest, key) in [("ann", "order-1"), ("ann", "order-2"), ("bob", "order-3")] {
        sessions.push(
            office
                .run(&[
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
            let shown = office
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
        let several = office.run(&["sessions", command, "ann"]).ok();
        assert!(
            several.stderr.contains("several sessions match"),
            "{}",
            several.stderr
        );
        let unknown = office.run(&["sessions", command, "nothing"]);
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
