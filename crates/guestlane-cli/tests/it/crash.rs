//! A process that is killed in the middle of a session.

use std::process::Stdio;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::harness::Office;

#[test]
fn killed_after_the_contact_and_before_the_conversation_the_next_start_finishes_with_the_same_contact()
 {
    let office = Office::open(&["--fault", "conversation:hang:first=1"]);
    let mut create = office
        .command(&["create", "--guest", "ann", "--idempotency-key", "order-1"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while office.state()["hanging"] == 0 {
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
            office.state()["contacts"].as_u64(),
            office.state()["conversations"].as_u64()
        ),
        (Some(1), Some(0))
    );

    let resumed = office.run(&["sessions", "resume"]).ok();
    assert!(
        resumed.stdout.contains("open  ann"),
        "{}{}",
        resumed.stdout,
        resumed.stderr
    );
    office.assert_each_guest_once(1);
    assert_eq!(office.journal("contact").len(), 1, "the same contact");
    let again = office
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
    assert_eq!(office.state()["crm"]["events"], 1);
}
