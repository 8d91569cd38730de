//! The read-only commands.

use guestlane_testkit::cli::{TestCli, run_in};
use serde_json::json;

#[test]
fn read_commands_show_session_event_audit_record_and_metrics() {
    let cli = TestCli::open(&["--fault", "contact:429:first=1"]);
    let created = cli.run(&["create", "--guest", "ann", "--json"]).ok().json();
    let id = created["sessionId"].as_str().unwrap();

    let listed = cli
        .run(&["sessions", "list", "--guest", "ann", "--json"])
        .ok()
        .json();
    assert_eq!(
        (&listed["sessionId"], &listed["state"]),
        (&created["sessionId"], &json!("open"))
    );
    assert!(listed.get("guestToken").is_none());
    let shown = cli
        .run(&["sessions", "show", id, "--show-token", "--json"])
        .ok()
        .json();
    assert_eq!(shown["guestToken"], created["guestToken"]);
    assert!(
        cli.run(&["sessions", "show", id])
            .ok()
            .stdout
            .contains(created["conversationId"].as_str().unwrap())
    );

    let event = cli
        .run(&["outbox", "list", "--state", "delivered", "--json"])
        .ok()
        .json();
    let event_id = event["id"].as_str().unwrap();
    assert_eq!(
        cli.run(&["outbox", "show", event_id, "--json"]).ok().json()["body"]["data"]["guestId"],
        "ann"
    );
    cli.run(&["outbox", "replay", event_id, "--yes"]).ok();
    cli.run(&["outbox", "deliver"]).ok();
    assert_eq!(cli.state()["crm"]["repeated"], 1);
    assert_eq!(
        cli.run(&["outbox", "secret"]).ok().stdout.trim(),
        guestlane_testkit::cli::CRM_SECRET
    );

    let records = cli
        .run(&["audit", "show", "--session", id, "--json"])
        .ok()
        .stdout;
    let log = cli.read("audit/session-audit.jsonl");
    let of_session: String = log
        .lines()
        .filter(|line| line.contains(id))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(records, of_session);
    assert_eq!(
        cli.run(&["signing-keys", "list", "--json"]).ok().json()["kid"],
        "webchat-guest-key-v1"
    );

    let metrics = cli.run(&["stats", "--json"]).ok().json();
    assert_eq!(
        metrics["errors"],
        json!({"total": 1, "tokenValidation": 0, "rateLimit": 1, "auth": 0, "network": 0, "tokenValidationRate": "0.0000"})
    );
    assert_eq!(
        (&metrics["sessions"], &metrics["crmEvents"]),
        (&json!({"open": 1}), &json!({"delivered": 1}))
    );
    assert_eq!(metrics["initializationLatencyMs"]["count"], 1);
    assert!(
        cli.run(&["stats"])
            .ok()
            .stdout
            .contains("tokenValidationRate  0.0000")
    );

    let config = cli.run(&["config", "show"]).ok().stdout;
    assert!(
        config.contains("GENESYS_CLIENT_SECRET")
            && config.contains("(hidden)")
            && !config.contains("sim-client-secret"),
        "{config}"
    );
}

#[test]
fn token_sign_produces_a_verifiable_guest_token() {
    let directory = tempfile::tempdir().unwrap();
    let token = run_in(
        directory.path(),
        &["token", "sign", "--guest", "ann", "--attr", "tier=gold"],
        &[],
    )
    .ok()
    .stdout;
    let verified = run_in(directory.path(), &["token", "verify", token.trim()], &[])
        .ok()
        .stdout;
    assert!(
        verified.starts_with("valid: guest ann, key webchat-guest-key-v1"),
        "{verified}"
    );
    let another = tempfile::tempdir().unwrap();
    let refused = run_in(another.path(), &["token", "verify", token.trim()], &[]);
    assert!(
        refused.code == 1 && refused.stderr.contains("signature does not verify"),
        "{}",
        refused.stderr
    );
}

#[test]
fn completions_exist_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            run_in(std::path::Path::new("."), &["completions", shell], &[])
                .ok()
                .stdout
                .contains("guestlane"),
            "{shell}"
        );
    }
}
