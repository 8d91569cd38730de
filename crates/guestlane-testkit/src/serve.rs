//! A service that runs as `guestlane serve` with its own state directory and API key.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    cli::TestCli,
    service_process::{ServiceProcess, send_request},
};

/// A service with its own state directory and an API key that creates sessions.
pub struct TestServe {
    service: ServiceProcess,
    key: String,
}

impl TestServe {
    /// Starts the service on free ports, with its state in the directory `state` of the cli.
    pub fn start(cli: &TestCli, state: &str, settings: &[(&str, &str)]) -> Self {
        // The new API key replaces the one of an earlier start, and so keeps access to its
        // sessions.
        let known = cli
            .run(&["api-keys", "list", "--json", "--state-dir", state])
            .ok()
            .stdout;
        let known: Option<Value> = known
            .lines()
            .last()
            .map(|line| serde_json::from_str(line).unwrap());
        let id = known.as_ref().map(|key| key["id"].as_str().unwrap());
        let mut create = vec![
            "api-keys",
            "create",
            "--name",
            "test",
            "--scope",
            "sessions:write",
            "--json",
            "--state-dir",
            state,
        ];
        create.extend(id.iter().flat_map(|id| ["--replaces", id]));
        let key = cli.run(&create).ok().json()["key"]
            .as_str()
            .unwrap()
            .to_owned();
        Self {
            service: cli.serve(&["--state-dir", state], settings),
            key,
        }
    }

    /// Creates a session, and returns the status and the body.
    pub fn create(&self, guest: &str, key: &str) -> (u16, Value) {
        let headers = format!("content-type: application/json\r\nidempotency-key: {key}\r\n");
        let answer = self.service.send_request(
            "POST",
            "/v1/sessions",
            &self.key,
            &headers,
            &json!({"guestId": guest}).to_string(),
        );
        (answer.status, answer.json())
    }

    /// Returns address and port of the metrics listener.
    pub fn metrics(&self) -> &str {
        self.service
            .metrics
            .strip_prefix("http://")
            .unwrap()
            .strip_suffix("/metrics")
            .unwrap()
    }

    /// Returns the metrics in the format for clients that do not accept OpenMetrics.
    pub fn scrape(&self) -> String {
        self.service.scrape()
    }

    /// Sends SIGTERM, and waits until the service has exited.
    pub fn end(self) {
        self.service.signal(Signal::SIGTERM);
        assert_eq!(self.service.wait_for_exit(), 0);
    }
}

/// Sends a `GET`, and returns the status and the body. Returns `None` if there is no response.
pub fn get(host: &str, path: &str) -> Option<(u16, String)> {
    send_request(&format!("http://{host}"), &format!("GET {path}"), "", "")
        .map(|answer| (answer.status, answer.body))
}

/// Waits, because other processes go by real time.
#[expect(clippy::disallowed_methods, reason = "other processes go by real time")]
pub fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}
