//! The service as a process that a test starts, sends requests to, and signals.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::cli::TestCli;

/// A running `guestlane serve` or `guestlane worker`, which is killed when it is dropped.
pub struct ServiceProcess {
    /// The process.
    pub child: Child,
    /// The URL of the service, without a path.
    pub address: String,
    /// The URL of the metrics.
    pub metrics: String,
    /// The standard error so far.
    pub log: Arc<Mutex<String>>,
}

impl Drop for ServiceProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A complete response.
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers, with names in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: String,
}

impl Response {
    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }
}

impl TestCli {
    /// Creates an API key with one scope.
    pub fn api_key(&self, scope: &str) -> String {
        let made = self
            .run(&[
                "api-keys", "create", "--name", "test", "--scope", scope, "--json",
            ])
            .ok()
            .json();
        made["key"].as_str().unwrap().to_owned()
    }

    /// Registers this store's signing keys with the platform.
    pub fn register_keys(&self) {
        let jwks = self
            .run(&["signing-keys", "export", "--format", "jwks"])
            .ok()
            .stdout;
        self.admin("PUT", "/_sim/guest-keys", &jwks);
    }

    /// Starts `guestlane serve` on free ports, with these flags and settings.
    pub fn serve(&self, flags: &[&str], settings: &[(&str, &str)]) -> ServiceProcess {
        let arguments = [
            &[
                "serve",
                "--json",
                "--listen",
                "127.0.0.1:0",
                "--metrics-listen",
                "127.0.0.1:0",
            ],
            flags,
        ]
        .concat();
        let mut command = self.command(&arguments);
        // Without load balancers there is no need to drain before the exit.
        command
            .env("GUESTLANE_DRAIN_PERIOD", "off")
            .envs(settings.iter().copied());
        ServiceProcess::start(command)
    }
}

impl ServiceProcess {
    /// Starts a service. Its first line of output has its addresses.
    pub fn start(mut command: std::process::Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&log);
        thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|read| read > 0) {
                written.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        let Ok(startup) = serde_json::from_str::<Value>(&line) else {
            let _ = child.wait();
            panic!("it did not start: {}", log.lock().unwrap());
        };
        let text = |name: &str| startup[name].as_str().unwrap_or_default().to_owned();
        ServiceProcess {
            child,
            address: text("address"),
            metrics: text("metrics"),
            log,
        }
    }
}

impl ServiceProcess {
    /// Sends one request on a separate connection.
    pub fn send_request(
        &self,
        method: &str,
        path: &str,
        key: &str,
        headers: &str,
        body: &str,
    ) -> Response {
        self.try_send_request(method, path, key, headers, body)
            .unwrap()
    }

    /// Sends one request on a separate connection. Returns `None` if there is no complete response.
    pub fn try_send_request(
        &self,
        method: &str,
        path: &str,
        key: &str,
        headers: &str,
        body: &str,
    ) -> Option<Response> {
        let authorization = if key.is_empty() {
            String::new()
        } else {
            format!("authorization: Bearer {key}\r\n")
        };
        send_request(
            &self.address,
            &format!("{method} {path}"),
            &format!("{authorization}{headers}"),
            body,
        )
    }

    /// Creates a session.
    pub fn create(&self, key: &str, body: &Value) -> Response {
        self.send_request(
            "POST",
            "/v1/sessions",
            key,
            "content-type: application/json\r\n",
            &body.to_string(),
        )
    }

    /// Returns the metrics in the text format.
    pub fn scrape(&self) -> String {
        send_request(
            self.metrics.trim_end_matches("/metrics"),
            "GET /metrics",
            "",
            "",
        )
        .unwrap()
        .body
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let process = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(process, signal).unwrap();
    }

    /// Waits until the process exits, and returns its exit code.
    pub fn wait_for_exit(mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    /// Waits until the log contains `text`.
    pub fn wait_for_log(&self, text: &str) {
        while !self.log.lock().unwrap().contains(text) {
            thread::park_timeout(Duration::from_millis(10));
        }
    }
}

/// Sends a request over HTTP/1.0, whose response ends with the connection.
pub fn send_request(address: &str, line: &str, headers: &str, body: &str) -> Option<Response> {
    let host = address.strip_prefix("http://")?;
    let mut stream = TcpStream::connect(host).ok()?;
    let request = format!(
        "{line} HTTP/1.0\r\nhost: {host}\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    Some(Response {
        status,
        headers: headers.collect(),
        body: body.to_owned(),
    })
}
