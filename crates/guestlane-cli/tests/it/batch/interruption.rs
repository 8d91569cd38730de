//! A batch that is interrupted, or whose platform fails.

use super::*;

/// A batch in its own process, so that the test can send signals and read its output.
struct BatchProcess(
    std::process::Child,
    std::io::BufReader<std::process::ChildStderr>,
);

impl BatchProcess {
    fn start(cli: &TestCli, arguments: &[&str]) -> Self {
        let mut command = cli.command(&[&["batch"], arguments].concat());
        let mut child = command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = std::io::BufReader::new(child.stderr.take().unwrap());
        Self(child, stderr)
    }

    fn interrupt(&self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    }

    fn wait_for(&mut self, part: &str) {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            assert_ne!(
                std::io::BufRead::read_line(&mut self.1, &mut line).unwrap(),
                0,
                "it ended without: {part}"
            );
        }
    }

    fn end(mut self) -> (i32, String, String) {
        use std::io::Read;
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.1.read_to_string(&mut stderr).unwrap();
        self.0
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut stdout)
            .unwrap();
        (self.0.wait().unwrap().code().unwrap(), stdout, stderr)
    }
}

fn wait_until(mut done: impl FnMut() -> bool) {
    while !done() {
        std::thread::yield_now();
    }
}

#[test]
fn first_ctrl_c_finishes_rows_in_flight_and_rerun_completes_batch() {
    let cli = TestCli::open(&["--rate-limit", "100/s"]);
    cli.write("guests.csv", &rows(300));
    let mut batch = BatchProcess::start(&cli, &["guests.csv", "--output", "out.jsonl"]);
    wait_until(|| cli.state()["conversations"].as_u64() > Some(5));
    batch.interrupt();
    batch.wait_for("Finishing ");
    let (code, stdout, stderr) = batch.end();
    assert_eq!(code, 3, "{stdout}{stderr}");
    assert!(
        stderr.contains(
            "Interrupted. To continue, run the same command again; no session is created twice."
        ),
        "{stderr}"
    );
    assert!(stdout.contains(" 0 failed"), "{stdout}");
    let state = cli.state();
    assert_eq!(
        state["contacts"], state["conversations"],
        "nothing was left half way"
    );
    let (code, second) = summary(&cli, &["guests.csv", "--output", "out.jsonl"]);
    assert_eq!(
        (
            code,
            second["opened"].as_u64().unwrap() + second["replayed"].as_u64().unwrap()
        ),
        (0, 300)
    );
    cli.assert_each_guest_once(300);
    assert_eq!(cli.read("out.jsonl").lines().count(), 300);
}

#[test]
fn second_ctrl_c_stops_at_once_and_rerun_creates_no_duplicates() {
    let cli = TestCli::open(&[]);
    cli.write("guests.csv", &rows(50));
    cli.faults(&["conversation:hang"]);
    let mut batch = BatchProcess::start(&cli, &["guests.csv"]);
    wait_until(|| cli.state()["hanging"].as_u64() > Some(3));
    batch.interrupt();
    batch.wait_for("Finishing ");
    batch.interrupt();
    let (code, _, stderr) = batch.end();
    assert_eq!(code, 3);
    assert!(
        stderr.contains(" in flight; their progress is recorded."),
        "{stderr}"
    );
    cli.faults(&[]);
    let (code, second) = summary(&cli, &["guests.csv"]);
    assert_eq!((code, &second["failed"]), (0, &json!(0)), "{second}");
    cli.assert_each_guest_once(50);
}

#[test]
fn batch_stops_early_during_platform_outage() {
    let cli = TestCli::open(&[]);
    cli.write("guests.csv", &rows(2000));
    let mut command = cli.command(&["batch", "guests.csv", "--json"]);
    cli.faults(&["any:500"]);
    command
        .env("GUESTLANE_RETRY_INITIAL_BACKOFF", "10ms")
        .env("GUESTLANE_RETRY_MAX_BACKOFF", "20ms");
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(
        stderr.contains("the other rows were not started"),
        "{stderr}"
    );
    let summary: Value = serde_json::from_str(
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .last()
            .unwrap(),
    )
    .unwrap();
    assert_eq!(summary["stopped"], "outage");
    assert!(
        stderr.contains("HTTP 500"),
        "the reason is printed: {stderr}"
    );
    assert!(
        summary["rows"].as_u64() < Some(2000) && summary["rows"].as_u64() >= Some(10),
        "{summary}"
    );
    assert_eq!(summary["rows"], summary["failed"]);
    // Once the platform recovers, the same command completes all rows.
    cli.faults(&[]);
    let (code, second) = self::summary(&cli, &["guests.csv"]);
    assert_eq!((code, &second["opened"]), (0, &json!(2000)));
    cli.assert_each_guest_once(2000);
}

#[test]
fn batch_retries_rows_once_after_server_errors() {
    let cli = TestCli::open(&[]);
    cli.write("guests.csv", &rows(20));
    cli.faults(&["contact:500:first=8"]);
    let mut command = cli.command(&["batch", "guests.csv"]);
    let output = command.env("GUESTLANE_MAX_RETRIES", "0").output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(stderr.contains("retrying once"), "{stderr}");
    assert!(
        stdout.starts_with("20 rows: 20 opened, 0 replayed, 0 failed"),
        "{stdout}"
    );
    cli.assert_each_guest_once(20);
}
