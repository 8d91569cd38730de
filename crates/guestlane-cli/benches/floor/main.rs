//! Compares guestlane with a floor program: a program that signs and verifies a token and sends the
//! same three requests for each session, and keeps nothing.
//!
//! `cargo bench -p guestlane-cli --bench floor` runs both in turns against a simulator each, on the
//! same machine, and prints the medians and their ratios; `-- --json` prints them as JSON.
//! `GUESTLANE_BENCH_SESSIONS` sets the sessions of a run (6000), `GUESTLANE_BENCH_ROUNDS` the number
//! of rounds (5). A machine that others share changes both alike, so only the ratios are results.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a benchmark may"
)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it measures the real clock, and prints"
)]

mod figures;
mod floor;

use std::{
    io::Write,
    process::{Command, Stdio},
};

use guestlane_testkit::simulator_process::SimulatorProcess;
use serde_json::Value;

use figures::{Figures, Pair};

/// The argument by which this program runs as the floor program.
const FLOOR: &str = "--floor";

/// How many sessions are in flight: as many as `guestlane bench` has.
const CONCURRENCY: usize = 64;

fn main() {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    if has(FLOOR) {
        return floor::main();
    }
    // `cargo test` starts this program without `--bench`; then there is nothing to measure.
    if !has("--bench") {
        return;
    }
    let number =
        |name, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let sessions = number("GUESTLANE_BENCH_SESSIONS", 6000);
    let rounds = number("GUESTLANE_BENCH_ROUNDS", 5);
    let mut pair = Pair::default();
    for round in 1..=rounds {
        // Each program is first in every other round.
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            if which == 0 {
                pair.floor.push(run_floor(sessions));
            } else {
                pair.guestlane.push(run_guestlane(sessions));
            }
        }
        eprintln!("round {round} of {rounds}");
    }
    if has("--json") {
        println!("{}", serde_json::to_string_pretty(&pair.report()).unwrap());
    } else {
        print!("{}", pair.table());
    }
}

fn run_floor(sessions: u64) -> Figures {
    let executable = Command::new(env!("CARGO_BIN_EXE_guestlane"));
    let simulator = SimulatorProcess::start(executable, &["--rate-limit", "off"]);
    let mut platform = simulator.startup.clone();
    platform["sessions"] = sessions.into();
    let mut floor = Command::new(std::env::current_exe().unwrap())
        .arg(FLOOR)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = floor.stdin.take().unwrap();
    stdin.write_all(platform.to_string().as_bytes()).unwrap();
    drop(stdin);
    let ended = floor.wait_with_output().unwrap();
    assert!(ended.status.success(), "the floor program failed");
    serde_json::from_slice(&ended.stdout).unwrap()
}

fn run_guestlane(sessions: u64) -> Figures {
    let ended = Command::new(env!("CARGO_BIN_EXE_guestlane"))
        .args(["bench", "--runs", "1", "--rate-limit", "off", "--json"])
        .args(["--sessions", &sessions.to_string()])
        .args(["--concurrency", &CONCURRENCY.to_string()])
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(ended.status.success(), "guestlane bench failed");
    let reports: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(reports[0]["median"]["failed"], 0, "{reports}");
    serde_json::from_value(reports[0]["median"].clone()).unwrap()
}
