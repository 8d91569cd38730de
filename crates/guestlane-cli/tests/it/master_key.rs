//! `guestlane master-key`: rotation, with snapshots of the output.

use std::fs;

use guestlane_testkit::{
    cli::{TestCli, run_in},
    serve::TestServe,
};
use serde_json::json;

const OLD: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const NEW: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

#[test]
fn master_key_file_is_rotated_only_while_unused() {
    let cli = TestCli::open(&[]);
    let none = cli.run(&["master-key", "rotate"]);
    assert!(
        none.code == 2 && none.stderr.contains("has no store"),
        "{}",
        none.stderr
    );
    let service = TestServe::start(&cli, ".guestlane", &[]);
    assert_eq!(service.create("ann", "a").0, 201);
    let old = cli.read(".guestlane/master.key");
    let refused = cli.run(&["master-key", "rotate", "--yes"]);
    assert!(
        refused.code == 2
            && refused
                .stderr
                .contains("another process uses the master key file"),
        "{}",
        refused.stderr
    );
    assert!(
        refused.stderr.contains("stop all processes"),
        "{}",
        refused.stderr
    );
    service.end();
    assert_eq!(cli.read(".guestlane/master.key"), old);

    let rotated = cli.run(&["master-key", "rotate", "--yes"]).ok();
    assert_eq!(
        rotated.stdout,
        "2 secrets, 1 signing key and 0 guest session tokens were encrypted again. Everything can be decrypted with the current master key.\n"
    );
    assert_eq!(
        rotated.stderr,
        "The new master key is in .guestlane/master.key: back it up. Earlier backups of the store need the old one.\n"
    );
    assert_ne!(cli.read(".guestlane/master.key"), old);
    let json = cli.run(&["master-key", "rotate", "--json", "--yes"]).ok();
    assert_eq!(
        (json.json(), json.stderr.as_str()),
        (
            json!({"secrets": 2, "signingKeys": 1, "guestSessions": 0, "done": true}),
            ""
        )
    );
    let mut names: Vec<_> = fs::read_dir(cli.directory.path().join(".guestlane"))
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    names.retain(|name| name.to_str().unwrap().starts_with("master.key"));
    names.sort();
    assert_eq!(names, ["master.key", "master.key.lock"]);
    let service = TestServe::start(&cli, ".guestlane", &[]);
    assert_eq!(service.create("ann", "a").0, 200);
    service.end();
}

#[test]
fn master_key_in_settings_is_replaced_by_reseal() {
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str], settings: &[(&str, &str)]| {
        run_in(directory.path(), arguments, settings)
    };
    run(&["signing-keys", "list"], &[("GUESTLANE_MASTER_KEY", OLD)]).ok();
    let swapped = [
        ("GUESTLANE_MASTER_KEY", NEW),
        ("GUESTLANE_MASTER_KEY_PREVIOUS", OLD),
    ];
    run(
        &["signing-keys", "list"],
        &[
            ("GUESTLANE_MASTER_KEY", OLD),
            ("GUESTLANE_MASTER_KEY_PREVIOUS", NEW),
        ],
    )
    .ok();
    run(&["signing-keys", "list"], &swapped).ok();
    let in_file = run(&["master-key", "rotate"], &swapped);
    assert!(
        in_file.code == 2
            && in_file
                .stderr
                .contains("GUESTLANE_MASTER_KEY is set, so the"),
        "{}",
        in_file.stderr
    );
    let alone = run(
        &["signing-keys", "list"],
        &[("GUESTLANE_MASTER_KEY_PREVIOUS", OLD)],
    );
    let reason = "GUESTLANE_MASTER_KEY_PREVIOUS: is set without GUESTLANE_MASTER_KEY";
    assert!(
        alone.code == 2 && alone.stderr.contains(reason),
        "{}",
        alone.stderr
    );

    let resealed = run(&["master-key", "reseal", "--yes"], &swapped).ok();
    assert!(
        resealed.stdout.starts_with(
            "1 secret, 1 signing key and 0 guest session tokens were encrypted again."
        ),
        "{}",
        resealed.stdout
    );
    assert_eq!(
        resealed.stderr,
        "Remove GUESTLANE_MASTER_KEY_PREVIOUS from the settings of all nodes.\n"
    );
    run(&["signing-keys", "list"], &[("GUESTLANE_MASTER_KEY", NEW)]).ok();
    assert_eq!(
        run(&["signing-keys", "list"], &[("GUESTLANE_MASTER_KEY", OLD)]).code,
        2
    );
    let shown = run(&["config", "show"], &swapped).ok().stdout;
    assert!(
        shown.contains("GUESTLANE_MASTER_KEY_PREVIOUS")
            && !shown.contains(OLD)
            && !shown.contains(NEW),
        "{shown}"
    );
}
