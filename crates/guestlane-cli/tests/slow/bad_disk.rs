//! A full disk, a read-only disk, and a database that another process has locked.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::{Command, Stdio},
};

use guestlane_testkit::cli::TestCli;

/// Runs a command whose files cannot grow beyond `kilobytes`, which looks like a full disk to the
/// process.
fn with_small_files(cli: &TestCli, kilobytes: u32, arguments: &[&str]) -> std::process::Output {
    let inner = cli.command(arguments);
    let mut shell = Command::new("sh");
    // Without the trap, SIGXFSZ would end the process. With it, the write fails as on a full disk.
    shell
        .args([
            "-c",
            &format!("trap '' XFSZ; ulimit -f {kilobytes}; exec \"$0\" \"$@\""),
        ])
        .arg(inner.get_program());
    shell
        .args(inner.get_args())
        .current_dir(cli.directory.path())
        .env_clear();
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell.stdin(Stdio::null()).output().unwrap()
}

fn rows(count: usize) -> String {
    let rows: String = (0..count).map(|row| format!("guest-{row}\n")).collect();
    format!("guest_id\n{rows}")
}

#[test]
fn batch_on_full_disk_fails_with_reason_and_completes_later() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    cli.run(&["signing-keys", "list"]).ok();
    cli.write("rows.csv", &rows(400));
    let mut failed_at_first = 0;
    for kilobytes in [200, 400, 800] {
        let full = with_small_files(
            &cli,
            kilobytes,
            &["batch", "rows.csv", "--rate-limit", "off"],
        );
        let reported = String::from_utf8_lossy(&full.stderr);
        if full.status.code() != Some(0) {
            failed_at_first += 1;
            assert!(
                ["disk", "file too large", "full", "I/O"]
                    .iter()
                    .any(|word| reported.to_lowercase().contains(&word.to_lowercase())),
                "{reported}"
            );
            assert!(!reported.contains("panicked"), "{reported}");
        }
    }
    assert!(failed_at_first > 0, "the disk was never full");
    cli.run(&["batch", "rows.csv", "--rate-limit", "off"]).ok();
    cli.run(&["outbox", "deliver"]);
    cli.assert_each_guest_once(400);
    assert_eq!(cli.state()["crm"]["events"], 400);
    cli.run(&["audit", "verify"]).ok();
}

#[test]
fn unwritable_audit_log_prevents_session_creation() {
    let cli = TestCli::open(&[]);
    // A file in place of the directory: no user, not even root, can write below it.
    fs::write(cli.directory.path().join("audit"), "in the way").unwrap();
    let refused = cli.run(&["create", "--guest", "ann", "--idempotency-key", "order-1"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("nothing was created") && refused.stderr.contains("audit"),
        "{}",
        refused.stderr
    );
    assert_eq!(
        (&cli.state()["contacts"], &cli.state()["conversations"]),
        (&0.into(), &0.into())
    );
    fs::remove_file(cli.directory.path().join("audit")).unwrap();
    cli.run(&["create", "--guest", "ann", "--idempotency-key", "order-1"])
        .ok();
    cli.assert_each_guest_once(1);
    cli.run(&["audit", "verify"]).ok();
}

/// Root can write anywhere. So the command runs as another user, with a copy of the executable that
/// this user can access.
fn as_unprivileged_user(cli: &TestCli, command: &Command) -> Command {
    let directory = cli.directory.path();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    let executable = directory.join("guestlane");
    fs::copy(command.get_program(), &executable).unwrap();
    let mut other = Command::new(&executable);
    other
        .args(command.get_args())
        .current_dir(directory)
        .env_clear()
        .uid(65534)
        .gid(65534);
    other.envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    other
}

/// A store that cannot be written, as in a copy for forensic analysis or on a read-only file
/// system. It is read with and without a write-ahead log beside the file.
#[test]
fn read_commands_work_on_a_read_only_store() {
    for checkpoint in [false, true] {
        let cli = TestCli::open(&[]);
        cli.run(&["create", "--guest", "ann", "--idempotency-key", "order-1"])
            .ok();
        cli.run(&["outbox", "deliver"]).ok();
        if checkpoint {
            let database =
                rusqlite::Connection::open(cli.directory.path().join(".guestlane/guestlane.db"))
                    .unwrap();
            database
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
                .unwrap();
        }
        check_read_only_store(&cli, checkpoint);
        cli.assert_each_guest_once(1);
    }
}

fn check_read_only_store(cli: &TestCli, checkpoint: bool) {
    let state = cli.directory.path().join(".guestlane");
    let is_root = nix::unistd::geteuid().is_root();
    let files = || {
        fs::read_dir(&state)
            .unwrap()
            .map(|entry| entry.unwrap().path())
    };
    assert_eq!(
        files().any(|file| file.ends_with("guestlane.db-wal")),
        !checkpoint
    );
    for file in files() {
        if file.to_string_lossy().ends_with("lock") {
            fs::remove_file(&file).unwrap();
            continue;
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
        if is_root {
            std::os::unix::fs::chown(&file, Some(65534), Some(65534)).unwrap();
        }
    }
    fs::set_permissions(
        &state,
        fs::Permissions::from_mode(if is_root { 0o555 } else { 0o500 }),
    )
    .unwrap();
    let run = |arguments: &[&str]| {
        let command = cli.command(arguments);
        let mut command = if is_root {
            as_unprivileged_user(cli, &command)
        } else {
            command
        };
        guestlane_testkit::cli::Exited::of(command.stdin(Stdio::null()).output().unwrap())
    };
    let before = files().count();
    for (arguments, shown) in [
        (&["sessions", "list"] as &[&str], "ann"),
        (&["audit", "show"], "ann"),
        (&["outbox", "list", "--state", "delivered"], "delivered"),
        (&["stats"], ""),
    ] {
        let result = run(arguments).ok();
        assert!(
            result.stdout.contains(shown),
            "{arguments:?}: {}",
            result.stdout
        );
    }
    assert_eq!(files().count(), before, "nothing was made beside the store");
    let refused = run(&["create", "--guest", "bob"]);
    assert!(
        refused.code == 1 && refused.stderr.contains("--state-dir"),
        "{}",
        refused.stderr
    );
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn create_in_read_only_state_directory_names_it_and_sends_nothing() {
    let cli = TestCli::open(&[]);
    let directory = cli.directory.path();
    let state = directory.join("read-only");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o555)).unwrap();
    let mut command = cli.command(&[
        "create",
        "--guest",
        "ann",
        "--state-dir",
        state.to_str().unwrap(),
    ]);
    if nix::unistd::geteuid().is_root() {
        command = as_unprivileged_user(&cli, &command);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let reported = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && reported.contains("read-only"),
        "{reported}"
    );
    assert_eq!(cli.state()["calls"]["token"], 0);
}

#[test]
fn create_on_locked_database_sends_nothing_and_can_be_retried() {
    let cli = TestCli::open(&[]);
    cli.run(&["signing-keys", "list"]).ok();
    let database = cli.directory.path().join(".guestlane/guestlane.db");
    let holder = rusqlite::Connection::open(&database).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = cli.run(&["create", "--guest", "ann", "--idempotency-key", "order-1"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("locked") && refused.stderr.contains("same key"),
        "{}",
        refused.stderr
    );
    assert_eq!(cli.state()["contacts"], 0);
    holder.execute_batch("ROLLBACK").unwrap();
    cli.run(&["create", "--guest", "ann", "--idempotency-key", "order-1"])
        .ok();
    cli.assert_each_guest_once(1);
}

#[test]
fn session_interrupted_by_locked_database_can_be_resumed() {
    // The platform's response takes three seconds, time enough to lock the database.
    let cli = TestCli::open(&["--fault", "conversation:slow:nth=1"]);
    let create = cli
        .command(&["create", "--guest", "ann", "--idempotency-key", "order-1"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while cli.state()["hanging"] == 0 {
        std::thread::yield_now();
    }
    let holder =
        rusqlite::Connection::open(cli.directory.path().join(".guestlane/guestlane.db")).unwrap();
    holder
        .busy_timeout(std::time::Duration::from_secs(2))
        .unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let output = create.wait_with_output().unwrap();
    let reported = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && reported.contains("locked"),
        "{reported}"
    );
    holder.execute_batch("ROLLBACK").unwrap();
    assert_eq!(
        cli.state()["conversations"],
        1,
        "the session was opened, and the store could not record it"
    );
    cli.run(&["sessions", "resume"]).ok();
    cli.assert_each_guest_once(1);
    assert_eq!(
        cli.run(&[
            "create",
            "--guest",
            "ann",
            "--idempotency-key",
            "order-1",
            "--json"
        ])
        .ok()
        .json()["replayed"],
        true
    );
}
