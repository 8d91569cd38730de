//! Commands that cannot be undone preview their effect, and run only with `--yes`.

use guestlane_testkit::cli::{Exited, TestCli};
use serde_json::Value;

/// Runs a command without and with `--yes`, and compares the preview with the report.
#[track_caller]
fn assert_previewed(
    cli: &TestCli,
    arguments: &[&str],
    expected: &str,
    settings: &[(&str, &str)],
    changed: impl Fn() -> bool,
) {
    let run = |more: &[&str]| {
        let mut command = cli.command(&[arguments, more].concat());
        Exited::of(command.envs(settings.iter().copied()).output().unwrap())
    };
    let text = run(&[]);
    assert_eq!(text.code, 2, "{arguments:?}: {}", text.stderr);
    assert!(
        text.stdout.contains(expected) && text.stderr.contains("Nothing was changed; add --yes"),
        "{}{}",
        text.stdout,
        text.stderr
    );
    let would = run(&["--json"]);
    assert_eq!(
        (would.code, &would.json()["done"]),
        (2, &Value::Bool(false)),
        "{arguments:?}: {}",
        would.stdout
    );
    assert!(!changed(), "{arguments:?} changed something");
    let done = run(&["--json", "--yes"]).ok().json();
    assert_eq!(done["done"], true, "{arguments:?}: {done}");
    assert!(changed(), "{arguments:?} changed nothing");
    for (name, value) in would.json().as_object().unwrap() {
        let may_differ =
            ["done", "state", "revokedAt", "waiting", "cancelled"].contains(&name.as_str());
        assert!(
            may_differ || done[name] == *value,
            "{arguments:?}: {name} {value} {}",
            done[name]
        );
    }
}

#[test]
fn destructive_commands_change_nothing_before_confirmation() {
    let cli = TestCli::open(&[]);
    cli.run(&["create", "--guest", "ann"]).ok();
    let session = cli.run(&["sessions", "list", "--json"]).ok().json();
    let event = cli.run(&["outbox", "list", "--json"]).ok().json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    cli.run(&["api-keys", "create", "--name", "shop", "--scope", "admin"])
        .ok();
    let key = cli.run(&["api-keys", "list", "--json"]).ok().json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let state = |arguments: &[&str], name: &str| {
        cli.run(arguments).ok().json()[name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };

    let pending = || state(&["outbox", "list", "--json"], "state") == "pending";
    assert_previewed(
        &cli,
        &["outbox", "replay", &event],
        "1 event would be sent again",
        &[],
        pending,
    );
    cli.run(&["outbox", "deliver"]).ok();
    assert_previewed(
        &cli,
        &["outbox", "replay", "--since", "2020-01-01T00:00:00Z"],
        "1 event would be sent",
        &[],
        pending,
    );
    cli.run(&["outbox", "deliver"]).ok();

    let revoked = || state(&["api-keys", "list", "--json"], "state") == "revoked";
    assert_previewed(
        &cli,
        &["api-keys", "revoke", &key],
        "of shop (admin) would be revoked",
        &[],
        revoked,
    );
    let kid = ["signing-keys", "revoke", "webchat-guest-key-v1"];
    let revoked = || {
        cli.run(&["signing-keys", "list", "--json"])
            .ok()
            .stdout
            .contains(r#""state":"revoked""#)
    };
    assert_previewed(&cli, &kid, "would be revoked", &[], revoked);

    let master_key = cli.read(".guestlane/master.key");
    let rotated = || cli.read(".guestlane/master.key") != master_key;
    assert_previewed(
        &cli,
        &["master-key", "rotate"],
        "would be encrypted with a new master key",
        &[],
        rotated,
    );

    let erased = || {
        state(
            &[
                "sessions",
                "show",
                session["sessionId"].as_str().unwrap(),
                "--json",
            ],
            "guestId",
        ) != "ann"
    };
    let erase = ["guests", "erase", "ann"];
    let would = cli.run(&erase);
    assert!(
        would
            .stderr
            .contains("2 records with the guest's ID in plain text"),
        "{}",
        would.stderr
    );
    assert_previewed(
        &cli,
        &erase,
        "would be erased permanently from 1 session and 1 event",
        &[],
        erased,
    );
    let again = cli.run(&erase);
    assert!(
        again.code == 2 && again.stderr.contains("is not a guest"),
        "{}",
        again.stderr
    );
}

#[test]
fn store_migrate_abandon_and_batch_cancel_need_confirmation() {
    let cli = TestCli::open(&[]);
    cli.run(&["create", "--guest", "ann"]).ok();
    let store = cli.directory.path().join(".guestlane/guestlane.db");
    let marks = || -> u32 {
        let store = rusqlite::Connection::open(&store).unwrap();
        store
            .query_row("SELECT count(*) FROM maintenance_task", [], |row| {
                row.get(0)
            })
            .unwrap()
    };
    let mark = "INSERT INTO maintenance_task (name) VALUES ('moving to localhost:5432/guestlane, schema public')";
    rusqlite::Connection::open(&store)
        .unwrap()
        .execute(mark, [])
        .unwrap();
    let from = format!("sqlite:{}", store.display());
    let abandon = ["store", "migrate", "--from", &from, "--abandon"];
    assert_previewed(&cli, &abandon, "would be abandoned", &[], || marks() == 0);

    let database = guestlane_testkit::new_schema();
    let shared = [
        ("GUESTLANE_DATABASE_URL", database.as_str()),
        ("GUESTLANE_STATE_DIR", "shared"),
    ];
    cli.write("rows.csv", "guest_id\nbob\neve\n");
    let mut enqueue = cli.command(&["batch", "enqueue", "rows.csv", "--json"]);
    let batch = Exited::of(enqueue.envs(shared).output().unwrap())
        .ok()
        .json()["batchId"]
        .as_str()
        .unwrap()
        .to_owned();
    let cancelled = || {
        let mut status = cli.command(&["batch", "status", &batch, "--json"]);
        Exited::of(status.envs(shared).output().unwrap())
            .ok()
            .json()["cancelled"]
            == 2
    };
    assert_previewed(
        &cli,
        &["batch", "cancel", &batch],
        "2 waiting rows would be cancelled",
        &shared,
        cancelled,
    );
}
