//! A full disk, a read-only disk, and a database that another process has locked.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::{Command, Stdio},
};

use crate::harness::Office;

/// Runs a command whose files cannot grow beyond `kilobytes`, which looks like a full disk to the
/// process.
fn with_small_files(office: &Office, kilobytes: u32, arguments: &[&str]) -> std::process::Output {
    let inner = office.command(arguments);
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
        .current_dir(office.directory.path())
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
fn on_a_full_disk_rows_fail_with_the_reason_and_are_opened_once_when_there_is_room() {
    let office = Office::open(&["--rate-limit", "off"]);
    office.run(&["signing-keys", "list"]).ok();
    office.write("rows.csv", &rows(400));
    let mut failed_at_first = 0;
    for kilobytes in [200, 400, 800] {
        let full = with_small_files(
            &office,
            kilobytes,
            &["batch", "rows.csv", "--rate-limit", "off"],
        );
        let told = String::from_utf8_lossy(&full.stderr);
        if full.status.code() != Some(0) {
            failed_at_first += 1;
            assert!(
                ["disk", "file too large", "full", "I/O"]
                    .iter()
                    .any(|word| told.to_lowercase().contains(&word.to_lowercase())),
                "{told}"
            );
            assert!(!told.contains("panicked"), "{told}");
        }
    }
    assert!(failed_at_first > 0, "the disk was never full");
    office
        .run(&["batch", "rows.csv", "--rate-limit", "off"])
        .ok();
    office.run(&["outbox", "deliver"]);
    office.assert_each_guest_once(400);
    assert_eq!(office.state()["crm"]["events"], 400);
    office.run(&["audit", "verify"]).ok();
}

#[test]
fn when_the_audit_log_cannot_be_written_nothing_is_created() {
    let office = Office::open(&[]);
    // A file in place of the directory: no user, not even root, can write below it.
    fs::write(office.directory.path().join("audit"), "in the way").unwrap();
    let refused = office.run(&["create", "--guest", "ann", "--idempotency-key", "order-1"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("nothing was created") && refused.stderr.contains("audit"),
        "{}",
        refused.stderr
    );
    assert_eq!(
        (
            &office.state()["contacts"],
            &office.state()["conversations"]
        ),
        (&0.into(), &0.into())
    );
    fs::remove_file(office.directory.path().join("audit")).unwrap();
    office
        .run(&["create", "--guest", "ann", "--idempotency-key", "order-1"])
        .ok();
    office.assert_each_guest_once(1);
    office.run(&["audit", "verify"]).ok();
}

/// Root can write anywhere. So the command runs as another user, with a copy of the executable that
/// this user can access.
fn as_nobody(office: &Office, command: &Command) -> Command {
    let directory = office.directory.path();
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
fn a_store_that_cannot_be_written_can_be_looked_at() {
    for checkpoint in [false, true] {
        let office = Office::open(&[]);
        office
            .run(&["create", "--guest", "ann", "--idempotency-key", "order-1"])
            .ok();
        office.run(&["outbox", "deliver"]).ok();
        if checkpoint {
            let database =
                rusqlite::Connection::open(office.directory.path().join(".guestlane/guestlane.db"))
                    .unwrap();
            database
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
                .unwrap();
        }
        look_at_read_only(&office, checkpoint);
        office.assert_each_guest_once(1);
    }
}

fn look_at_read_only(office: &Office, checkpoint: bool) {
    let state = office.directory.path().join(".guestlane");
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
        let command = office.command(arguments);
        let mut command = if is_root {
            as_nobody(office, &command)
        } else {
            command
        };
        crate::harness::Ended::of(command.stdin(Stdio::null()).output().unwrap())
    };
    let before = files().count();
    for (arguments, shown) in [
        (&["sessions", "list"] as &[&str], "ann"),
        (&["audit", "show"], "ann"),
        (&["outbox", "list", "--state", "delivered"], "delivered"),
        (&["stats"], ""),
    ] {
        let looked = run(arguments).ok();
        assert!(
            looked.stdout.contains(shown),
            "{arguments:?}: {}",
            looked.stdout
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
fn in_a_directory_that_cannot_be_written_nothing_is_sent_and_the_directory_is_named() {
    let office = Office::open(&[]);
    let directory = office.directory.path();
    let state = directory.join("read-only");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o555)).unwrap();
    let mut command = office.command(&[
        "create",
        "--guest",
        "ann",
        "--state-dir",
        state.to_str().unwrap(),
    ]);
    if nix::unistd::geteuid().is_root() {
        command = as_nobody(&office, &command);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && told.contains("read-only"),
        "{told}"
    );
    assert_eq!(office.state()["calls"]["token"], 0);
}

#[test]
fn while_another_process_holds_the_database_nothing_is_sent_and_afterwards_the_same_key_works() {
    let office = Office::open(&[]);
    office.run(&["signing-keys", "list"]).ok();
    let database = office.directory.path().join(".guestlane/guestlane.db");
    let holder = rusqlite::Connection::open(&database).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = office.run(&["create", "--guest", "ann", "--idempotency-key", "order-1"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("locked") && refused.stderr.contains("same key"),
        "{}",
        refused.stderr
    );
    assert_eq!(office.state()["contacts"], 0);
    holder.execute_batch("ROLLBACK").unwrap();
    office
        .run(&["create", "--guest", "ann", "--idempotency-key", "order-1"])
        .ok();
    office.assert_each_guest_once(1);
}

#[test]
fn a_database_that_is_locked_in_the_middle_of_a_session_leaves_it_to_be_completed() {
    // The platform's response takes three seconds, time enough to lock the database.
    let office = Office::open(&["--fault", "conversation:slow:nth=1"]);
    let create = office
        .command(&["create", "--guest", "ann", "--idempotency-key", "order-1"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while office.state()["hanging"] == 0 {
        std::thread::yield_now();
    }
    let holder =
        rusqlite::Connection::open(office.directory.path().join(".guestlane/guestlane.db"))
            .unwrap();
    holder
        .busy_timeout(std::time::Duration::from_secs(2))
        .unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let output = create.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && told.contains("locked"),
        "{told}"
    );
    holder.execute_batch("ROLLBACK").unwrap();
    assert_eq!(
        office.state()["conversations"],
        1,
        "it was opened, and the ledger could not be told"
    );
    office.run(&["sessions", "resume"]).ok();
    office.assert_each_guest_once(1);
    assert_eq!(
        office
            .run(&[
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
