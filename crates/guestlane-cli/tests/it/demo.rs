//! `guestlane demo`: its output, its input files, and its interruption.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::Duration,
};

use guestlane_testkit::{cli::bare, service_process::send_request};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

fn demo(arguments: &[&str]) -> (i32, String, String) {
    let output = bare().arg("demo").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn demo_reports_queues_a_lost_response_and_its_audit_log() {
    let (code, stdout, stderr) = demo(&[]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    for part in [
        "user-8842-xyz",
        "Sales",
        "Support",
        "Billing",
        "one response lost",
        "0 duplicate guests",
        "events of 12 sessions",
    ] {
        assert!(stdout.contains(part), "{part}\n{stdout}");
    }
    assert_eq!(stderr, "", "a first look begins without a warning");
    assert!(
        stdout.contains("The audit log has 24 records, as they were written"),
        "{stdout}"
    );
    // The command in the last line of output works.
    let directory = stdout.split_whitespace().last().unwrap();
    let verified = bare()
        .args(["audit", "verify", "--state-dir", directory])
        .output()
        .unwrap();
    assert!(
        verified.status.success()
            && String::from_utf8_lossy(&verified.stdout).contains("24 records"),
        "{verified:?}"
    );
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn demo_rejects_guests_file_that_is_invalid_or_missing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("guests.csv");
    std::fs::write(&path, "guest_id,queue\nann,Sales\nbob,Nowhere\n").unwrap();
    let (code, _, stderr) = demo(&["--guests", path.to_str().unwrap()]);
    assert_eq!(code, 2);
    assert!(
        stderr.contains("line 3: queue `Nowhere` is not a queue of the demo")
            && stderr.contains("Sales, Support, Billing"),
        "{stderr}"
    );
    let (code, _, stderr) = demo(&["--guests", "/nonexistent"]);
    assert!(code == 2 && stderr.contains("--guests"), "{stderr}");
}

/// Every guest on the platform has a conversation, or a session that the demo reports as
/// unfinished.
#[test]
fn an_interrupted_demo_accounts_for_every_guest() {
    let mut demo = bare();
    demo.args(["demo", "--serve", "--listen", "127.0.0.1:0", "--json"])
        .stdout(Stdio::piped());
    let mut demo = demo.spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let begun: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let platform = begun["platform"].as_str().unwrap();
    let state = || -> Value {
        serde_json::from_str(
            &send_request(platform, "GET /_sim/state", "", "")
                .unwrap()
                .body,
        )
        .unwrap()
    };
    while state()["contacts"].as_u64().unwrap() < 12 {
        std::thread::park_timeout(Duration::from_millis(10));
    }
    kill(
        Pid::from_raw(i32::try_from(demo.id()).unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    let counts: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert!(demo.wait().unwrap().success());
    let count = |value: &Value| value.as_u64().unwrap();
    let (platform, unfinished) = (&counts["platform"], count(&counts["unfinished"]));
    assert!(
        count(&platform["conversations"]) + unfinished >= count(&platform["guests"]),
        "{counts}"
    );
    std::fs::remove_dir_all(begun["stateDir"].as_str().unwrap()).unwrap();
}
