//! The test harness: a simulator in its own process, a state directory, and commands that run in
//! it.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

pub use crate::platform::{CRM_SECRET, SALES, SUPPORT};
use crate::simulator_process::SimulatorProcess;

/// A simulator in its own process, and a state directory for commands.
pub struct TestCli {
    _simulator: SimulatorProcess,
    /// What the simulator printed when it started.
    pub startup: Value,
    /// The directory in which commands run.
    pub directory: TempDir,
}

impl TestCli {
    /// Starts a simulator with these flags.
    pub fn open(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut executable = bare();
        executable.current_dir(directory.path());
        let flags = [&["--crm-secret", CRM_SECRET], flags].concat();
        let simulator = SimulatorProcess::start(executable, &flags);
        Self {
            startup: simulator.startup.clone(),
            _simulator: simulator,
            directory,
        }
    }

    /// Returns a command with all required settings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare();
        let text = |name: &str| self.startup[name].as_str().unwrap().to_owned();
        command
            .current_dir(self.directory.path())
            .env("GENESYS_BASE_URL", text("baseUrl"))
            .env("GENESYS_CLIENT_ID", text("clientId"))
            .env("GENESYS_CLIENT_SECRET", text("clientSecret"))
            .env(
                "GENESYS_QUEUE_ID",
                self.startup["queueIds"][0].as_str().unwrap(),
            )
            .env("CRM_WEBHOOK_URL", text("crmUrl"))
            .env("CRM_WEBHOOK_SECRET", CRM_SECRET)
            .env("CRM_ALLOW_PRIVATE_NETWORKS", "true")
            .env("GENESYS_DEPLOYMENT_ID", text("deploymentId"))
            .env("GENESYS_INTEGRATION_ID", text("integrationId"))
            .env("GENESYS_EXTERNAL_SOURCE_ID", text("externalSourceId"))
            .args(arguments);
        if let Some(ca) = self.startup["caFile"].as_str() {
            command.env("GENESYS_CA_FILE", ca).env("CRM_CA_FILE", ca);
        }
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Exited {
        Exited::of(self.command(arguments).output().unwrap())
    }

    /// Writes a file in the directory.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }

    /// Reads a file in the directory.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).unwrap()
    }

    /// Returns the state of the simulator.
    pub fn state(&self) -> Value {
        self.admin("GET", "/_sim/state", "")
    }

    /// Returns the requests on a route.
    pub fn journal(&self, route: &str) -> Vec<Value> {
        let Value::Array(entries) = self.admin("GET", "/_sim/journal", "") else {
            panic!()
        };
        entries
            .into_iter()
            .filter(|entry| entry["route"] == route)
            .collect()
    }

    /// Replaces the faults of the simulator.
    pub fn faults(&self, specs: &[&str]) {
        self.admin(
            "PUT",
            "/_sim/faults",
            &serde_json::json!({"faults": specs}).to_string(),
        );
    }

    /// Sends a request to the simulator's admin API over a plain socket.
    pub fn admin(&self, method: &str, path: &str, body: &str) -> Value {
        let base = self.startup["baseUrl"].as_str().unwrap();
        let host = base.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(host).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 20"), "{head}");
        serde_json::from_str(body).unwrap_or(Value::Null)
    }

    /// Asserts that each guest has one contact and one conversation.
    pub fn assert_each_guest_once(&self, guests: u64) {
        let state = self.state();
        assert_eq!(
            (&state["contacts"], &state["conversations"]),
            (&guests.into(), &guests.into()),
            "{state}"
        );
        assert_eq!(
            state["duplicates"]["guests"],
            serde_json::json!([]),
            "{state}"
        );
    }
}

/// Returns the executable under test: `GUESTLANE_TEST_EXECUTABLE`, such as a release build, or the
/// one that cargo built beside the running test.
#[expect(clippy::disallowed_methods, reason = "a test's own setting")]
fn executable() -> PathBuf {
    if let Some(named) = std::env::var_os("GUESTLANE_TEST_EXECUTABLE") {
        return named.into();
    }
    let test = std::env::current_exe().unwrap(); // target/debug/deps/it-0123456789abcdef
    let built = test.ancestors().nth(2).unwrap().join("guestlane");
    assert!(built.exists(), "{} is not built", built.display());
    built
}

/// Returns a command without settings.
pub fn bare() -> Command {
    let mut command = Command::new(executable());
    command
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Runs a command in a directory, with these environment variables only.
pub fn run_in(directory: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Exited {
    Exited::of(
        bare()
            .current_dir(directory)
            .args(arguments)
            .envs(settings.iter().copied())
            .output()
            .unwrap(),
    )
}

/// Exit code and output of a process.
pub struct Exited {
    /// The exit code; -1 after a signal.
    pub code: i32,
    /// The standard output.
    pub stdout: String,
    /// The standard error.
    pub stderr: String,
}

impl Exited {
    /// Reads the output of a process that has ended.
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Asserts that the process succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Returns the standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        let last = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last)
            .unwrap_or_else(|_| panic!("no JSON: {}\n{}", self.stdout, self.stderr))
    }
}
