//! The real executable, killed repeatedly at random times.

use std::{process::Stdio, time::Duration};

use guestlane_testkit::cli::{Exited, TestCli};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// Reads a setting of this test. `GUESTLANE_TEST_KILLS=2000 GUESTLANE_TEST_SEED=8` kills more often
/// and at other times.
#[expect(clippy::disallowed_methods, reason = "a test's own settings")]
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[test]
fn batch_killed_200_times_opens_each_session_once() {
    kill_batches("rest", setting("GUESTLANE_TEST_KILLS", 200), 600, 300);
}

#[test]
fn web_messaging_batch_killed_60_times_opens_each_session_once() {
    kill_batches(
        "web-messaging",
        setting("GUESTLANE_TEST_KILLS", 200) * 3 / 10,
        300,
        500,
    );
}

/// Runs batches of `rows_in_a_batch` rows, and kills each within `within` milliseconds.
fn kill_batches(surface: &str, kills: u64, rows_in_a_batch: u64, within: u64) {
    let seed = setting("GUESTLANE_TEST_SEED", 7);
    let mut chance = fastrand::Rng::with_seed(seed);
    let cli = TestCli::open(&[
        "--rate-limit",
        "off",
        "--fault",
        "any:answer-lost:p=0.01",
        "--fault",
        "crm:500:p=0.02",
        "--seed",
        &seed.to_string(),
    ]);
    let run = |arguments: &[&str]| {
        Exited::of(
            cli.command(arguments)
                .env("GUESTLANE_SURFACE", surface)
                .output()
                .unwrap(),
        )
    };
    let (mut killed, mut ended_first, mut files) = (0, 0, 0);
    while killed < kills {
        files += 1;
        let file = format!("rows-{files}.csv");
        let rows: String = (0..rows_in_a_batch)
            .map(|row| format!("guest-{files}-{row}\n"))
            .collect();
        cli.write(&file, &format!("guest_id\n{rows}"));
        let arguments = [
            "batch",
            &file,
            "--output",
            &format!("{file}.out"),
            "--max-concurrency",
            "32",
            "--rate-limit",
            "off",
        ];
        while killed < kills {
            let mut batch = cli
                .command(&arguments)
                .env("GUESTLANE_SURFACE", surface)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            pause(chance.u64(0..within));
            if batch.try_wait().unwrap().is_some() {
                ended_first += 1;
                // The batch finished first; continue with the next file.
                break;
            }
            kill(
                Pid::from_raw(batch.id().try_into().unwrap()),
                Signal::SIGKILL,
            )
            .unwrap();
            batch.wait().unwrap();
            killed += 1;
        }
        let exited = run(&arguments);
        assert!(
            exited.code == 0,
            "seed {seed}, kill {killed}: {}{}",
            exited.stdout,
            exited.stderr
        );
    }
    // Complete the sessions and deliveries that the last batches left.
    let _ = run(&["sessions", "resume"]);
    for _ in 0..3 {
        // The receiver refuses some events at first.
        run(&["outbox", "deliver"]);
    }
    let guests = files * rows_in_a_batch;
    cli.assert_each_guest_once(guests);
    let state = cli.state();
    assert_eq!(
        (
            &state["crm"]["events"],
            &state["crm"]["guestsNotifiedTwice"]
        ),
        (&guests.into(), &0.into()),
        "seed {seed}: {state}"
    );
    let verified = cli.run(&["audit", "verify", "--json"]).ok().stdout;
    let logs: Vec<Value> = verified
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    print_line(&format!(
        "{surface}, seed {seed}: {killed} kills, {ended_first} processes ended first; {guests} sessions, {} logs with {} records proven; \
         {} answers lost, {} events told again",
        logs.len(),
        logs.iter()
            .map(|log| log["records"].as_u64().unwrap())
            .sum::<u64>(),
        state["faults"]["answer-lost"],
        state["crm"]["repeated"],
    ));
}

#[expect(
    clippy::disallowed_methods,
    reason = "the moment of a real kill is a moment of real time"
)]
fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

#[expect(
    clippy::disallowed_macros,
    clippy::print_stdout,
    reason = "the line that `--nocapture` shows"
)]
fn print_line(line: &str) {
    println!("{line}");
}
