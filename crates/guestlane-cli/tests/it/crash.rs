//! A process that is killed in the middle of a session.

use std::process::Stdio;

use guestlane_testkit::cli::TestCli;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

#[test]
fn resume_after_kill_between_contact_and_conversation_reuses_contact() {
    let cli = TestCli::open(&["--fault", "conversation:hang:first=1"]);
    let mut create = cli
        .command(&["create", "--guest", "ann", "--idempotency-key", "order-1"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while cli.state()["hanging"] == 0 {
        std::thread::yield_now();
    }
    kill(
        Pid::from_raw(create.id().try_into().unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    create.wait().unwrap();
    assert_eq!(
        (
            cli.state()["contacts"].as_u64(),
            cli.state()["conversations"].as_u64()
        ),
        (Some(1), Some(0))
    );

    let resumed = cli.run(&["sessions", "resume"]).ok();
    assert!(
        resumed.stdout.contains("open  ann"),
        "{}{}",
        resumed.stdout,
        resumed.stderr
    );
    cli.assert_each_guest_once(1);
    assert_eq!(cli.journal("contact").len(), 1, "the same contact");
    let again = cli
        .run(&[
            "create",
            "--guest",
            "ann",
            "--idempotency-key",
            "order-1",
            "--json",
        ])
        .ok()
        .json();
    assert_eq!(again["replayed"], true);
    assert_eq!(cli.state()["crm"]["events"], 1);
}
