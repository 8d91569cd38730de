//! Four processes on one PostgreSQL database and one rate-limited platform. Processes are killed,
//! stopped and disconnected, and the database restarts.
//!
//! The long run uses a release build:
//!
//! ```text
//! GUESTLANE_TEST_EXECUTABLE=$PWD/target/release/guestlane GUESTLANE_TEST_FLEET_ROWS=10000 \
//!     GUESTLANE_TEST_FLEET_STOP=30 GUESTLANE_TEST_FLEET_ROUNDS=2 \
//!     cargo test -p guestlane-cli --test it fleet -- --nocapture
//! ```

use std::{
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use guestlane_runtime::{Clock, Timestamp};
use guestlane_testkit::{Proxy, Server, column, schema_in};
use guestlane_testkit::{
    cli::{Exited, TestCli},
    serve::pause,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::runtime::Runtime;

#[expect(clippy::disallowed_methods, reason = "a test's own settings")]
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[expect(
    clippy::disallowed_macros,
    clippy::print_stdout,
    reason = "the lines that `--nocapture` shows"
)]
fn print_line(line: &str) {
    println!("{line}");
}

/// Other processes use the real clock, so the test does as well.
fn now() -> Timestamp {
    Clock::system().monotonic()
}

/// One machine of the fleet: a state directory, and a network connection to the database.
struct Machine {
    home: PathBuf,
    url: String,
    proxy: Proxy,
    process: Option<Child>,
}

struct Fleet {
    cli: TestCli,
    server: Server,
    schema: String,
    master_key: String,
    machines: Vec<Machine>,
    _runtime: Runtime,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for process in self
            .machines
            .iter_mut()
            .filter_map(|machine| machine.process.as_mut())
        {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Fleet {
    fn of(machines: usize, quota: &str) -> Self {
        let cli = TestCli::open(&["--rate-limit", quota]);
        let server =
            Server::start_with(&["fsync=off", "full_page_writes=off", "track_functions=pl"]);
        let schema = schema_in(&server.url());
        let runtime = Runtime::new().unwrap();
        let machines = (0..machines).map(|n| {
            let proxy = runtime.block_on(Proxy::to(server.port()));
            let home = cli.directory.path().join(format!("machine-{n}"));
            Machine {
                home,
                url: proxy.url(&schema, server.port()),
                proxy,
                process: None,
            }
        });
        let machines = machines.collect();
        let mut fleet = Self {
            cli,
            server,
            schema,
            master_key: String::new(),
            machines,
            _runtime: runtime,
        };
        let first = fleet.run(&["sessions", "resume"]);
        assert_eq!(first.code, 0, "{}", first.stderr);
        fleet.master_key = fleet.cli.read(".guestlane/master.key").trim().to_owned();
        fleet
    }

    fn run(&self, arguments: &[&str]) -> Exited {
        let mut command = self.cli.command(arguments);
        command.env("GUESTLANE_DATABASE_URL", &self.schema);
        if !self.master_key.is_empty() {
            command.env("GUESTLANE_MASTER_KEY", &self.master_key);
        }
        Exited::of(command.output().unwrap())
    }

    fn start(&mut self, machine: usize, quota: &str) {
        let Machine { home, url, .. } = &self.machines[machine];
        std::fs::create_dir_all(home).unwrap();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(home.join("stderr"))
            .unwrap();
        let mut command = self
            .cli
            .command(&["worker", "--rate-limit", quota, "--state-dir"]);
        command
            .arg(home)
            .env("GUESTLANE_DATABASE_URL", url)
            .env("GUESTLANE_MASTER_KEY", &self.master_key);
        self.machines[machine].process =
            Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    fn signal(&self, machine: usize, signal: Signal) {
        let process = self.machines[machine].process.as_ref().unwrap();
        kill(Pid::from_raw(process.id().try_into().unwrap()), signal).unwrap();
    }

    fn kill(&mut self, machine: usize) {
        self.signal(machine, Signal::SIGKILL);
        self.machines[machine]
            .process
            .take()
            .unwrap()
            .wait()
            .unwrap();
    }

    fn status(&self, batch: &str) -> Value {
        self.run(&["batch", "status", batch, "--json"]).ok().json()
    }

    fn left(&self, batch: &str) -> u64 {
        let status = self.status(batch);
        status["waiting"].as_u64().unwrap() + status["running"].as_u64().unwrap()
    }

    /// Returns the number of rate-limit leases that were requested.
    fn rate_limit_leases(&self) -> u64 {
        let asked = "SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE funcname = 'lease_rate_limit'";
        column(&self.schema, asked)[0].parse().unwrap()
    }

    /// Returns the number of calls to the platform.
    fn calls(&self) -> u64 {
        let Value::Object(calls) = &self.cli.state()["calls"] else {
            panic!()
        };
        calls
            .iter()
            .filter(|(route, _)| *route != "crm" && *route != "token")
            .filter_map(|(_, count)| count.as_u64())
            .sum()
    }

    fn verify_logs(&self) {
        for Machine { home, .. } in &self.machines {
            let log = home.join("audit/session-audit.jsonl");
            let arguments = ["audit", "verify", "--state-dir"].map(Path::new);
            let mut command = self.cli.command(&[]);
            command
                .args(arguments)
                .arg(home)
                .env("GUESTLANE_DATABASE_URL", &self.schema);
            let verified = Exited::of(
                command
                    .env("GUESTLANE_MASTER_KEY", &self.master_key)
                    .output()
                    .unwrap(),
            );
            assert_eq!(
                verified.code,
                0,
                "{}: {}{}",
                log.display(),
                verified.stdout,
                verified.stderr
            );
        }
    }
}

#[test]
fn fleet_faults_neither_lose_nor_duplicate_sessions() {
    let rows = setting("GUESTLANE_TEST_FLEET_ROWS", 1500);
    let stopped_for = setting("GUESTLANE_TEST_FLEET_STOP", 7) * 1000;
    let rounds = setting("GUESTLANE_TEST_FLEET_ROUNDS", 1);
    const QUOTA: &str = "100/s";
    let mut fleet = Fleet::of(4, QUOTA);
    fleet.cli.write(
        "rows.csv",
        &format!(
            "guest_id\n{}",
            (0..rows)
                .map(|row| format!("guest-{row}\n"))
                .collect::<String>()
        ),
    );
    let batch = fleet
        .run(&["batch", "enqueue", "rows.csv", "--json"])
        .ok()
        .json()["batchId"]
        .as_str()
        .unwrap()
        .to_owned();
    for machine in 0..4 {
        fleet.start(machine, QUOTA);
    }
    // Measure the used part of the rate limit while all processes run.
    pause(3000);
    let (before, since, rate_limit_leases) = (fleet.calls(), now(), fleet.rate_limit_leases());
    pause(if rows > 5000 { 60_000 } else { 4000 });
    let (calls, seconds) = (fleet.calls() - before, now().since(since).as_secs_f64());
    let rate_limit_leases = fleet.rate_limit_leases() - rate_limit_leases;
    let used = calls as f64 / seconds;
    print_line(&format!(
        "while nothing is down: {calls} calls in {seconds:.1} s, {used:.1} % of the rate limit, {rate_limit_leases} leases requested"
    ));
    assert!(
        rate_limit_leases * 20 <= calls + 10 * 20,
        "one round trip for 20 calls; and a few, while each makes room for the others"
    );
    for round in 0..rounds {
        fleet.kill(0);
        pause(2000);
        fleet.start(0, QUOTA);
        fleet.signal(1, Signal::SIGSTOP);
        pause(1000);
        fleet.machines[2].proxy.disconnect();
        pause(2000);
        fleet.machines[3].proxy.blackhole();
        pause(1000);
        fleet.machines[2].proxy.restore();
        fleet.server.stop();
        pause(500);
        fleet.server.restart();
        pause(stopped_for.saturating_sub(4500));
        fleet.signal(1, Signal::SIGCONT);
        fleet.machines[3].proxy.restore();
        fleet
            .machines
            .iter()
            .for_each(|machine| machine.proxy.break_all());
        fleet.kill(3);
        fleet.start(3, QUOTA);
        pause(2000);
        print_line(&format!("round {round}: {} rows left", fleet.left(&batch)));
    }
    let deadline = now() + Duration::from_secs(60 + rows / 20);
    while fleet.left(&batch) > 0 {
        assert!(now() < deadline, "{}", fleet.status(&batch));
        pause(500);
    }
    // Other processes deliver the last events of killed processes, after their leases expire.
    let deadline = now() + Duration::from_secs(60);
    while fleet.cli.state()["crm"]["events"] != rows {
        assert!(now() < deadline, "{}", fleet.cli.state()["crm"]);
        pause(500);
    }
    for machine in 0..4 {
        fleet.signal(machine, Signal::SIGTERM);
    }
    for machine in 0..4 {
        assert!(
            fleet.machines[machine]
                .process
                .take()
                .unwrap()
                .wait()
                .unwrap()
                .success(),
            "machine {machine}"
        );
    }
    let status = fleet.status(&batch);
    assert_eq!(
        (&status["open"], &status["failed"]),
        (&rows.into(), &0.into()),
        "{status}"
    );
    fleet.cli.assert_each_guest_once(rows);
    let state = fleet.cli.state();
    assert_eq!(
        (
            &state["crm"]["events"],
            &state["crm"]["guestsNotifiedTwice"]
        ),
        (&rows.into(), &0.into()),
        "{state}"
    );
    let counted = |sql: &str| column(&fleet.schema, sql)[0].parse::<u64>().unwrap();
    assert_eq!(
        counted("SELECT count(*) FROM session WHERE state = 'open'"),
        rows
    );
    assert_eq!(
        counted(r#"SELECT count(*) FROM audit_record WHERE line LIKE '%"status":"success"%'"#),
        rows
    );
    fleet.verify_logs();
    let calls = fleet.calls();
    print_line(&format!(
        "{rows} sessions, {calls} calls, {} answered 429, {} tokens requested, {} logs",
        state["throttled"],
        state["tokensIssued"],
        counted("SELECT count(*) FROM audit_log")
    ));
    assert!(
        state["throttled"].as_u64().unwrap() * 100 <= calls,
        "{state}"
    );
}
