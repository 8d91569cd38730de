//! `guestlane serve` with a state directory and an API key of its own.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    harness::Office,
    service_process::{Served, ask},
};

pub(crate) struct Serving {
    served: Served,
    key: String,
}

impl Serving {
    /// On free ports, with its state in that directory of the office.
    pub(crate) fn start(office: &Office, state: &str, settings: &[(&str, &str)]) -> Self {
        // The key of a later start goes on with the sessions of the one before.
        let known = office.run(&["api-keys", "list", "--json", "--state-dir", state]).ok().stdout;
        let known: Option<Value> = known.lines().last().map(|line| serde_json::from_str(line).unwrap());
        let id = known.as_ref().map(|key| key["id"].as_str().unwrap());
        let mut create =
            vec!["api-keys", "create", "--name", "test", "--scope", "sessions:write", "--json", "--state-dir", state];
        create.extend(id.iter().flat_map(|id| ["--replaces", id]));
        let key = office.run(&create).ok().json()["key"].as_str().unwrap().to_owned();
        Self { served: office.serve(&["--state-dir", state], settings), key }
    }

    /// Asks for a session: the status, and what was answered.
    pub(crate) fn create(&self, guest: &str, key: &str) -> (u16, Value) {
        let headers = format!("content-type: application/json\r\nidempotency-key: {key}\r\n");
        let answer = self.served.ask("POST", "/v1/sessions", &self.key, &headers, &json!({"guestId": guest}).to_string());
        (answer.status, answer.json())
    }

    /// Where its metrics are: an address and a port.
    pub(crate) fn metrics(&self) -> &str {
        self.served.metrics.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap()
    }

    /// The metrics, as who does not ask for OpenMetrics gets them.
    pub(crate) fn scrape(&self) -> String {
        self.served.scrape()
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(self) {
        self.served.signal(Signal::SIGTERM);
        assert_eq!(self.served.ended(), 0);
    }
}

/// `GET`: the status, and what was answered; `None` where nobody is there.
pub(crate) fn get(host: &str, path: &str) -> Option<(u16, String)> {
    ask(&format!("http://{host}"), &format!("GET {path}"), "", "").map(|answer| (answer.status, answer.body))
}

#[expect(clippy::disallowed_methods, reason = "other processes go by real time")]
pub(crate) fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}
