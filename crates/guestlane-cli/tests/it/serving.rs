//! `guestlane serve` in a process of its own.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::office::{Ended, Office};

pub(crate) struct Serving {
    process: Child,
    address: String,
    pub(crate) metrics: String,
    key: String,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Serving {
    /// On free ports, with its state in that directory of the office.
    pub(crate) fn start(office: &Office, state: &str, settings: &[(&str, &str)]) -> Self {
        let settings = [settings, &[("GUESTLANE_STATE_DIR", state), ("GUESTLANE_LOG_LEVEL", "error")]].concat();
        let mut create = office.command(&["api-keys", "create", "--name", "test", "--scope", "sessions:write", "--json"]);
        let key = Ended::of(create.envs(settings.iter().copied()).output().unwrap()).ok().json();
        let mut process = office
            .command(&["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--json"])
            .envs(settings)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let says: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("it does not listen: {line}"));
        let host = |name: &str| says[name].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
        let metrics = host("metrics").strip_suffix("/metrics").unwrap().to_owned();
        Self { process, address: host("address"), metrics, key: key["key"].as_str().unwrap().to_owned() }
    }

    /// Asks for a session: the status, and what was answered.
    pub(crate) fn create(&self, guest: &str, key: &str) -> (u16, Value) {
        let headers =
            format!("authorization: Bearer {}\r\ncontent-type: application/json\r\nidempotency-key: {key}\r\n", self.key);
        let (status, body) = ask(&self.address, "POST", "/v1/sessions", &headers, &json!({"guestId": guest}).to_string());
        (status, serde_json::from_str(&body).unwrap_or_default())
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(mut self) {
        kill(Pid::from_raw(self.process.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

/// One request of HTTP/1.0, whose answers come in one piece.
pub(crate) fn ask(host: &str, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.0\r\nhost: {host}\r\ncontent-length: {length}\r\n{headers}\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {path}: {answer}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[expect(clippy::disallowed_methods, reason = "other processes go by real time")]
pub(crate) fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}
