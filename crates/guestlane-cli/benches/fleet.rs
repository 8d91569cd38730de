//! Compares several processes on one PostgreSQL database with one process on a SQLite file:
//! throughput, CPU time, load on the database, and round trips.
//!
//! Run it with `cargo bench -p guestlane-cli --bench fleet`. `GUESTLANE_BENCH_ROWS` sets the number
//! of rows (6000). Simulator, database and processes share the processors of this machine. The
//! database syncs to the disk of the directory for temporary files.
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
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use guestlane_testkit::{Proxy, Server, column, schema_in, simulator_process::SimulatorProcess};
use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use tokio::runtime::Runtime;

struct Stand {
    simulator: SimulatorProcess,
    directory: tempfile::TempDir,
}

impl Stand {
    fn new(rows: u64) -> Self {
        let mut executable = Command::new(env!("CARGO_BIN_EXE_guestlane"));
        executable.env_clear();
        let simulator = SimulatorProcess::start(executable, &["--rate-limit", "off"]);
        let directory = tempfile::tempdir().unwrap();
        let text: String = (0..rows)
            .map(|row| format!("guest-{row},web-portal\n"))
            .collect();
        std::fs::write(
            directory.path().join("rows.csv"),
            format!("guest_id,attr.source\n{text}"),
        )
        .unwrap();
        Self {
            simulator,
            directory,
        }
    }

    fn command(&self, database: Option<&str>, home: &str) -> Command {
        let text = |name: &str| self.simulator.startup[name].as_str().unwrap().to_owned();
        let mut command = Command::new(env!("CARGO_BIN_EXE_guestlane"));
        command
            .env_clear()
            .current_dir(self.directory.path())
            .env("GENESYS_BASE_URL", text("baseUrl"))
            .env("GENESYS_CLIENT_ID", text("clientId"))
            .env("GENESYS_CLIENT_SECRET", text("clientSecret"))
            .env(
                "GENESYS_QUEUE_ID",
                self.simulator.startup["queueIds"][0].as_str().unwrap(),
            )
            .env("CRM_WEBHOOK_URL", text("crmUrl"))
            .env("CRM_ALLOW_PRIVATE_NETWORKS", "true")
            .env("GUESTLANE_PLATFORM_RATE_LIMIT", "off")
            .env(
                "GUESTLANE_MASTER_KEY",
                "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            )
            .env("GUESTLANE_STATE_DIR", self.directory.path().join(home));
        if let Some(database) = database {
            command.env("GUESTLANE_DATABASE_URL", database);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

/// CPU time of child processes that have exited, in seconds.
fn children() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// CPU time of a process and of its exited children, in seconds.
fn with_children(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(|n| n.parse().unwrap())
        .collect();
    fields.iter().sum::<f64>() / 100.0
}

/// Measures one process on a SQLite file.
fn on_a_file(rows: u64) {
    let stand = Stand::new(rows);
    assert!(
        stand
            .command(None, "state")
            .args(["sessions", "resume"])
            .status()
            .unwrap()
            .success()
    );
    let before = children();
    let started = Instant::now();
    let batch = stand
        .command(None, "state")
        .args(["batch", "rows.csv", "--json"])
        .status()
        .unwrap();
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), children() - before);
    assert!(batch.success());
    println!(
        "| a file | 1 | {:.0} | {:.2} | – | – | – | – |",
        rows as f64 / seconds,
        cpu * 1000.0 / rows as f64
    );
}

/// Measures `processes` processes on one database.
fn on_postgres(
    server: &Server,
    runtime: &Runtime,
    rows: u64,
    processes: usize,
    concurrency: Option<&str>,
) {
    let stand = Stand::new(rows);
    let schema = schema_in(&server.url());
    let proxy = runtime.block_on(Proxy::to(server.port()));
    let (counted, direct) = (proxy.url(&schema, server.port()), schema.clone());
    let enqueue = stand
        .command(Some(&direct), "state")
        .args(["batch", "enqueue", "rows.csv"])
        .status()
        .unwrap();
    assert!(enqueue.success());
    let number = |sql: &str| column(&schema, sql)[0].parse::<f64>().unwrap();
    let commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    let log = "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn";
    column(&schema, "SELECT pg_stat_clear_snapshot()");
    std::thread::sleep(Duration::from_secs(1));
    let (commits_before, log_before, database_before, cpu_before) = (
        number(commits),
        number(log),
        with_children(server.pid()),
        children(),
    );
    let database = if concurrency.is_some() {
        &counted
    } else {
        &direct
    };
    let started = Instant::now();
    let workers: Vec<Child> = (0..processes)
        .map(|n| {
            let mut work = stand.command(Some(database), &format!("machine-{n}"));
            work.arg("worker");
            if let Some(concurrency) = concurrency {
                work.args(["--max-concurrency", concurrency]);
            }
            work.spawn().unwrap()
        })
        .collect();
    while number("SELECT count(*) FROM batch_row WHERE state = 'open'") < rows as f64 {
        std::thread::sleep(Duration::from_millis(100));
    }
    let seconds = started.elapsed().as_secs_f64();
    while number("SELECT count(*) FROM outbox WHERE state = 'pending'") > 0.0 {
        std::thread::sleep(Duration::from_millis(100));
    }
    let round_trips = proxy.round_trips() as f64;
    for mut worker in workers {
        kill(
            Pid::from_raw(worker.id().try_into().unwrap()),
            Signal::SIGTERM,
        )
        .unwrap();
        assert!(worker.wait().unwrap().success());
    }
    let cpu = children() - cpu_before;
    // The server's processes exit, and report their CPU time to their parent.
    std::thread::sleep(Duration::from_millis(1500));
    let per = |value: f64| value / rows as f64;
    println!(
        "| PostgreSQL{} | {processes} | {:.0} | {:.2} | {:.2} | {:.1} | {:.1} | {} |",
        concurrency
            .map(|n| format!(", {n} at once"))
            .unwrap_or_default(),
        rows as f64 / seconds,
        per(cpu * 1000.0),
        per((with_children(server.pid()) - database_before) * 1000.0),
        per(number(commits) - commits_before),
        per(number(log) - log_before) / 1024.0,
        if concurrency.is_some() {
            format!("{:.1}", per(round_trips))
        } else {
            "–".to_owned()
        },
    );
    assert_eq!(
        number("SELECT count(*) FROM session WHERE state = 'open'"),
        rows as f64
    );
}

fn main() {
    let rows = std::env::var("GUESTLANE_BENCH_ROWS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(6000);
    let (server, runtime) = (
        Server::start_in(Path::new(&std::env::temp_dir()), &[]),
        Runtime::new().unwrap(),
    );
    println!("{rows} sessions of `rest`, durable, audited, each with one CRM event\n");
    println!(
        "| store | processes | sessions/s | CPU of guestlane, ms a session | CPU of PostgreSQL, ms a session | transactions a session | WAL, KiB a session | round trips a session |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for _ in 0..2 {
        on_a_file(rows);
        for processes in [1, 2, 4] {
            on_postgres(&server, &runtime, rows, processes, None);
        }
    }
    on_postgres(&server, &runtime, rows / 20, 1, Some("1"));
    on_postgres(&server, &runtime, rows, 1, Some("256"));
}
