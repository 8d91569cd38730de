//! Whole runs: `guestlane batch` against `guestlane simulate`, each in a process of its own, on this machine.
//!
//! `cargo bench -p guestlane-cli --bench flow` prints, for each run and as medians: sessions per second, processor time per session of
//! the batch's process alone, and its largest resident memory.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a benchmark may")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::print_stdout,
    reason = "it measures the real clock, and prints"
)]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use serde_json::Value;

const SESSIONS: usize = 10_000;
const RUNS: usize = 5;
const AT_ONCE: &str = "64";

fn guestlane() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_guestlane"));
    command.env_clear();
    command
}

fn simulator() -> (Child, Value) {
    let mut child = guestlane()
        .args(["simulate", "--listen", "127.0.0.1:0", "--quota", "off", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    (child, serde_json::from_str(&line).unwrap())
}

fn with_settings<'a>(command: &'a mut Command, platform: &Value, crm: bool) -> &'a mut Command {
    let text = |name: &str| platform[name].as_str().unwrap().to_owned();
    command
        .env("GENESYS_BASE_URL", text("baseUrl"))
        .env("GENESYS_CLIENT_ID", text("clientId"))
        .env("GENESYS_CLIENT_SECRET", text("clientSecret"))
        .env("GENESYS_QUEUE_ID", platform["queueIds"][0].as_str().unwrap())
        .env("GUESTLANE_QUOTA", "off");
    if crm {
        command.env("CRM_WEBHOOK_URL", text("crmUrl")).env("CRM_ALLOW_PRIVATE_NETWORKS", "true");
    }
    command
}

/// Processor time of the children that have ended.
fn processor_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.try_into().unwrap())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn batches(title: &str, crm: bool) {
    let directory = tempfile::tempdir().unwrap();
    let rows: String = (0..SESSIONS).map(|n| format!("guest-{n},web-portal,premium\n")).collect();
    let file = directory.path().join("guests.csv");
    std::fs::write(&file, format!("guest_id,attr.source,attr.tier\n{rows}")).unwrap();
    println!("{title}: {RUNS} runs of {SESSIONS} sessions, {AT_ONCE} at once");
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        // A fresh platform each time: nothing may be faster because it was there before.
        let (mut child, platform) = simulator();
        let before = processor_time();
        let mut command = guestlane();
        command.args(["batch", "--json", "--concurrency", AT_ONCE, "--out"]);
        command.arg(directory.path().join(format!("out-{title}-{run}.jsonl")));
        command.arg("--state-dir").arg(directory.path().join(format!("state-{title}-{run}"))).arg(&file);
        let output = with_settings(&mut command, &platform, crm).output().unwrap();
        let cost = processor_time() - before;
        // `ru_maxrss` is in KiB, and the largest of all children that have ended: of the first batch, as long as no simulator has.
        let resident = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() / 1024;
        child.kill().unwrap();
        let summary: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(summary["opened"], SESSIONS, "{summary}");
        rates.push(summary["perSecond"].as_f64().unwrap());
        costs.push(cost.as_secs_f64() * 1000.0 / SESSIONS as f64);
        println!("  {:.0} sessions/s, {:.3} ms of processor time per session", rates[run], costs[run]);
        if crm && run == 0 {
            println!("  {resident} MiB resident at the most");
        }
        child.wait().unwrap(); // only now: its own time is not the batch's
    }
    println!("  median: {:.0} sessions/s, {:.3} ms per session\n", median(rates), median(costs));
}

/// From the start of the process to its end, in a state directory that exists.
fn first_session() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, platform) = simulator();
    let create = || {
        let mut command = guestlane();
        command.args(["create", "--guest", "ann", "--state-dir"]).arg(directory.path());
        let started = Instant::now();
        assert!(with_settings(&mut command, &platform, true).output().unwrap().status.success());
        started.elapsed().as_secs_f64() * 1000.0
    };
    create(); // makes the key
    let times: Vec<_> = (0..20).map(|_| create()).collect();
    println!("create: one session and its CRM event, whole process: median {:.1} ms of 20", median(times));
    child.kill().unwrap();
    child.wait().unwrap();
}

fn main() {
    batches("durable, audited, CRM told", true);
    batches("durable, audited, no CRM", false);
    first_session();
}
