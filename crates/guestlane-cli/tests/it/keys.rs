//! `guestlane signing-keys`: rotation and revocation, with snapshots of the output.

use std::{path::Path, process::Command};

use guestlane_testkit::cli::{Exited, TestCli, run_in};
use serde_json::{Value, json};

/// Compares the output with a snapshot, with all times replaced.
#[track_caller]
fn assert_screen(name: &str, exited: &Exited) {
    insta::with_settings!({filters => vec![(r"\d{4}-\d\d-\d\dT[\d:]+(\.\d+)?Z", "2026-11-22T15:23:49Z")]}, {
        insta::assert_snapshot!(name, format!("{}---\n{}", exited.stdout, exited.stderr));
    });
}

fn listed(directory: &Path) -> Vec<(String, String)> {
    let lines = run_in(directory, &["signing-keys", "list", "--json"], &[])
        .ok()
        .stdout;
    let key = |line: &str| {
        let key: Value = serde_json::from_str(line).unwrap();
        (
            key["kid"]
                .as_str()
                .unwrap()
                .replace("webchat-guest-key-", ""),
            key["state"].as_str().unwrap().to_owned(),
        )
    };
    lines.lines().map(key).collect()
}

fn states(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|(kid, state)| ((*kid).to_owned(), (*state).to_owned()))
        .collect()
}

/// Returns the `kid` values of the published key set.
fn published(directory: &Path) -> Vec<String> {
    let set = run_in(
        directory,
        &["signing-keys", "export", "--format", "jwks"],
        &[],
    )
    .ok()
    .json();
    let kid = |key: &Value| {
        key["kid"]
            .as_str()
            .unwrap()
            .replace("webchat-guest-key-", "")
    };
    set["keys"].as_array().unwrap().iter().map(kid).collect()
}

#[test]
fn signing_key_rotation_and_revocation_match_screen_snapshots() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    assert!(
        run_in(here, &["signing-keys", "rotate"], &[])
            .stderr
            .contains("has no store")
    );
    run_in(here, &["signing-keys", "list"], &[]).ok();

    assert_screen(
        "rotate",
        &run_in(here, &["signing-keys", "rotate"], &[]).ok(),
    );
    assert_eq!(listed(here), states(&[("v1", "active"), ("v2", "next")]));
    assert_eq!(published(here), ["v1", "v2"]);
    let again = run_in(here, &["signing-keys", "rotate"], &[]);
    assert_eq!(again.code, 2);
    assert_screen("rotate_again", &again);
    assert_screen("list", &run_in(here, &["signing-keys", "list"], &[]).ok());

    let newest = run_in(here, &["signing-keys", "export"], &[]).ok();
    assert!(newest.stdout.starts_with("-----BEGIN PUBLIC KEY-----\n"));
    let note = Exited {
        code: 0,
        stdout: String::new(),
        stderr: newest.stderr.clone(),
    };
    assert_screen("export_next", &note);
    let first = run_in(
        here,
        &["signing-keys", "export", "--kid", "webchat-guest-key-v1"],
        &[],
    )
    .ok();
    assert!(
        first.stderr == "kid: webchat-guest-key-v1\n" && first.stdout != newest.stdout,
        "{}",
        first.stderr
    );
    let both = run_in(
        here,
        &[
            "signing-keys",
            "export",
            "--format",
            "jwks",
            "--kid",
            "webchat-guest-key-v1",
        ],
        &[],
    );
    assert!(
        both.code == 2 && both.stderr.contains("--format pem"),
        "{}",
        both.stderr
    );

    let would = run_in(
        here,
        &["signing-keys", "revoke", "webchat-guest-key-v1"],
        &[],
    );
    assert_eq!(would.code, 2);
    assert_screen("would_revoke_active", &would);
    assert_eq!(
        listed(here),
        states(&[("v1", "active"), ("v2", "next")]),
        "nothing was changed"
    );
    let revoked = run_in(
        here,
        &["signing-keys", "revoke", "webchat-guest-key-v1", "--yes"],
        &[],
    )
    .ok();
    assert_screen("revoke_active", &revoked);
    assert_eq!(listed(here), states(&[("v1", "revoked"), ("v2", "active")]));
    assert_eq!(published(here), ["v2"]);

    let again = run_in(
        here,
        &["signing-keys", "revoke", "webchat-guest-key-v1", "--yes"],
        &[],
    );
    assert!(
        again.code == 2 && again.stderr.contains("was revoked at"),
        "{}",
        again.stderr
    );
    let unknown = run_in(here, &["signing-keys", "revoke", "unknown", "--yes"], &[]);
    assert!(
        unknown.code == 2 && unknown.stderr.contains("is not a key of this store"),
        "{}",
        unknown.stderr
    );

    let emergency = run_in(
        here,
        &["signing-keys", "revoke", "webchat-guest-key-v2", "--yes"],
        &[],
    )
    .ok();
    assert_screen("revoke_without_next", &emergency);
    assert_eq!(
        listed(here),
        states(&[("v1", "revoked"), ("v2", "revoked"), ("v3", "active")])
    );

    let rotated = run_in(here, &["signing-keys", "rotate", "--json"], &[])
        .ok()
        .json();
    assert_eq!(
        (&rotated["kid"], &rotated["state"]),
        (&json!("webchat-guest-key-v4"), &json!("next"))
    );
    let next = run_in(
        here,
        &["signing-keys", "revoke", "webchat-guest-key-v4", "--yes"],
        &[],
    )
    .ok();
    assert_screen("revoke_next", &next);
    let json = run_in(
        here,
        &["signing-keys", "revoke", "webchat-guest-key-v3", "--json"],
        &[],
    )
    .json();
    assert_eq!(
        json,
        json!({"kid": "webchat-guest-key-v3", "done": false, "signsNow": "webchat-guest-key-v5"})
    );
}

#[test]
fn token_of_revoked_key_is_refused_and_new_token_is_valid() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let sign = || {
        run_in(here, &["token", "sign", "--guest", "ann"], &[])
            .ok()
            .stdout
    };
    let token = sign();
    run_in(
        here,
        &["signing-keys", "revoke", "webchat-guest-key-v1", "--yes"],
        &[],
    )
    .ok();
    let refused = run_in(here, &["token", "verify", token.trim()], &[]);
    assert!(
        refused.code == 1
            && refused
                .stderr
                .contains("webchat-guest-key-v1, which is revoked"),
        "{}",
        refused.stderr
    );
    run_in(here, &["token", "verify", sign().trim()], &[]).ok();
}

#[test]
fn too_short_key_rotation_interval_is_refused_before_any_write() {
    let cli = TestCli::open(&[]);
    let refused = |command: &mut Command| {
        Exited::of(
            command
                .env("GUESTLANE_SIGNING_KEY_ROTATION_INTERVAL", "1d")
                .output()
                .unwrap(),
        )
    };
    for arguments in [
        &["create", "--guest", "ann"][..],
        &["signing-keys", "rotate"],
    ] {
        let exited = refused(&mut cli.command(arguments));
        assert!(
            exited.code == 2
                && exited
                    .stderr
                    .contains("GUESTLANE_SIGNING_KEY_ROTATION_INTERVAL: is not longer"),
            "{}",
            exited.stderr
        );
    }
    assert!(!cli.directory.path().join(".guestlane").exists());
}
