//! Measures whole processes on this machine. For `guestlane batch` it measures memory, and whether
//! the rate is constant over many rows. For `guestlane create` it measures the time from start to
//! exit. `guestlane bench` measures the cost of sessions.
//!
//! Run it with `cargo bench -p guestlane-cli --bench flow`. `GUESTLANE_BENCH_ROWS=1000000` selects
//! the large run.
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
    reason = "it measures the real clock, and prints"
)]

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    time::Instant,
};

use guestlane_testkit::simulator_process::SimulatorProcess;
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::Value;

fn guestlane() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_guestlane"));
    command.env_clear();
    command
}

fn simulator() -> SimulatorProcess {
    SimulatorProcess::start(guestlane(), &["--rate-limit", "off"])
}

fn with_settings<'a>(command: &'a mut Command, platform: &Value, crm: bool) -> &'a mut Command {
    let text = |name: &str| platform[name].as_str().unwrap().to_owned();
    command
        .env("GENESYS_BASE_URL", text("baseUrl"))
        .env("GENESYS_CLIENT_ID", text("clientId"))
        .env("GENESYS_CLIENT_SECRET", text("clientSecret"))
        .env(
            "GENESYS_QUEUE_ID",
            platform["queueIds"][0].as_str().unwrap(),
        )
        .env("GUESTLANE_PLATFORM_RATE_LIMIT", "off");
    if crm {
        command
            .env("CRM_WEBHOOK_URL", text("crmUrl"))
            .env("CRM_ALLOW_PRIVATE_NETWORKS", "true");
    }
    command
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Measures a batch by the progress line that it writes every ten seconds.
fn rows(number: usize) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("guests.csv");
    let mut text = std::io::BufWriter::new(std::fs::File::create(&file).unwrap());
    writeln!(text, "guest_id,attr.source,attr.tier").unwrap();
    (0..number).for_each(|n| writeln!(text, "guest-{n},web-portal,premium").unwrap());
    text.into_inner().unwrap();
    let simulator = simulator();
    let platform = &simulator.startup;
    let mut command = guestlane();
    command
        .args(["batch", "--json", "--output"])
        .arg(directory.path().join("out.jsonl"));
    command
        .arg("--state-dir")
        .arg(directory.path().join("state"))
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut batch = with_settings(&mut command, platform, true).spawn().unwrap();
    let started = Instant::now();
    let mut seen = vec![(0.0, 0.0)];
    for line in BufReader::new(batch.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok)
    {
        match line
            .split_once(" rows: ")
            .and_then(|(rows, _)| rows.parse::<f64>().ok())
        {
            Some(rows) => seen.push((started.elapsed().as_secs_f64(), rows)),
            None => println!("{line}"),
        }
    }
    let output = batch.wait_with_output().unwrap();
    seen.push((started.elapsed().as_secs_f64(), number as f64));
    // `ru_maxrss` is in KiB, and the maximum over all exited children. That is the batch, because
    // the simulator has not exited yet.
    let resident = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() as f64 / 1024.0;
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    // A session whose lease expired on a busy machine was finished by recovery. It was created
    // once, and counts as replayed.
    assert_eq!(
        summary["opened"].as_u64().unwrap() + summary["replayed"].as_u64().unwrap(),
        number as u64,
        "{summary}"
    );
    println!(
        "batch of {number} rows: {:.0} rows/s, {resident:.0} MiB resident at the most",
        summary["perSecond"].as_f64().unwrap()
    );
    let rate = |from: f64, to: f64| {
        let at = |rows: f64| {
            let after = seen
                .iter()
                .position(|(_, seen)| *seen >= rows)
                .unwrap()
                .max(1);
            let ((t0, r0), (t1, r1)) = (seen[after - 1], seen[after]);
            t0 + (t1 - t0) * (rows - r0) / (r1 - r0)
        };
        (to - from) / (at(to) - at(from))
    };
    let (all, part) = (number as f64, number as f64 / 10.0);
    println!(
        "  first tenth {:.0} rows/s, last tenth {:.0} rows/s\n",
        rate(0.0, part),
        rate(all - part, all)
    );
}

/// Measures the time from start to exit of a process whose state directory exists.
fn first_session() {
    let directory = tempfile::tempdir().unwrap();
    let simulator = simulator();
    let platform = &simulator.startup;
    let create = || {
        let mut command = guestlane();
        command
            .args(["create", "--guest", "ann", "--state-dir"])
            .arg(directory.path());
        let started = Instant::now();
        assert!(
            with_settings(&mut command, platform, true)
                .output()
                .unwrap()
                .status
                .success()
        );
        started.elapsed().as_secs_f64() * 1000.0
    };
    // The first run creates the keys.
    create();
    let times: Vec<_> = (0..20).map(|_| create()).collect();
    println!(
        "create: one session and its CRM event, whole process: median {:.1} ms of 20",
        median(times)
    );
}

fn main() {
    rows(std::env::var("GUESTLANE_BENCH_ROWS").map_or(100_000, |rows| rows.parse().unwrap()));
    first_session();
}
