//! Measures the service under load, with the service and the simulator in processes of their own.
//! Requests arrive at a fixed rate, whether or not earlier ones are answered.
//!
//! Run it with `cargo bench -p guestlane-cli --bench service`. It measures the normal load, ten
//! times that load, and the normal load beside thousands of idle connections. The settings are
//! `GUESTLANE_BENCH_RATE` (500 per second), `GUESTLANE_BENCH_SECONDS` (60), `GUESTLANE_BENCH_IDLE`
//! (10000) and `GUESTLANE_MAX_CONCURRENT_SESSIONS`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a measurement"
)]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use guestlane_runtime::{Clock, TlsRoots, http_client::HttpClient};
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::net::TcpStream;

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn guestlane(arguments: &[&str], settings: &[(&str, &str)]) -> (Process, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_guestlane"));
    command
        .args(arguments)
        .env_clear()
        .envs(settings.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    (
        Process(child),
        serde_json::from_str(&line).unwrap_or(Value::Null),
    )
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Resident memory of a process, in MiB.
fn resident(process: &Process) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?
            .trim()
            .strip_suffix(" kB")?
            .trim()
            .parse::<u64>()
            .ok()
    });
    kilobytes.unwrap_or(0) / 1024
}

struct Load {
    client: HttpClient,
    address: String,
    key: String,
    next: u64,
}

impl Load {
    /// Sends `rate` requests per second for `seconds`. Returns latencies by status, in
    /// milliseconds.
    async fn run(&mut self, rate: u64, seconds: u64) -> BTreeMap<u16, Vec<f64>> {
        let answers: Arc<Mutex<BTreeMap<u16, Vec<f64>>>> = Arc::default();
        let (started, clock) = (Instant::now(), Clock::system());
        let mut callers = tokio::task::JoinSet::new();
        for number in 0..rate * seconds {
            let due = started + Duration::from_secs_f64(number as f64 / rate as f64);
            if let Some(wait) = due
                .checked_duration_since(Instant::now())
                .filter(|wait| *wait > Duration::from_millis(1))
            {
                clock.sleep(wait).await;
            }
            self.next += 1;
            let body = json!({"guestId": format!("guest-{}", self.next)}).to_string();
            let request = Request::post(format!("{}/v1/sessions", self.address))
                .header("authorization", format!("Bearer {}", self.key))
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from(body)))
                .unwrap();
            let (client, answers, clock) =
                (self.client.clone(), Arc::clone(&answers), clock.clone());
            callers.spawn(async move {
                // The latency counts from the scheduled arrival, so that it includes the wait of a
                // delayed request.
                let answer = client
                    .send(request, clock.now() + Duration::from_secs(60))
                    .await;
                let status = answer.map_or(0, |answer| answer.status.as_u16());
                answers
                    .lock()
                    .unwrap()
                    .entry(status)
                    .or_default()
                    .push(due.elapsed().as_secs_f64() * 1000.0);
            });
            while callers.try_join_next().is_some() {}
        }
        while callers.join_next().await.is_some() {}
        std::mem::take(&mut *answers.lock().unwrap())
    }
}

fn print_row(name: &str, answers: &mut BTreeMap<u16, Vec<f64>>, memory: u64) {
    for (status, took) in answers {
        took.sort_by(f64::total_cmp);
        let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
        println!(
            "{name:<28} {status:>4} {:>8} answers, p50 {:>7.1} ms, p99 {:>7.1} ms; {memory} MiB",
            took.len(),
            at(50),
            at(99)
        );
    }
}

#[tokio::main]
async fn main() {
    let (rate, seconds) = (
        setting("GUESTLANE_BENCH_RATE", 500),
        setting("GUESTLANE_BENCH_SECONDS", 60),
    );
    let idle = setting("GUESTLANE_BENCH_IDLE", 10_000);
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (soft, hard) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    let _ = (
        soft,
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard),
    );

    let (_simulator, says) = guestlane(
        &[
            "simulate",
            "--json",
            "--listen",
            "127.0.0.1:0",
            "--rate-limit",
            "off",
        ],
        &[],
    );
    let directory = tempfile::tempdir().unwrap();
    let text = |name: &str| says[name].as_str().unwrap().to_owned();
    let (base, id, secret, queue, crm) = (
        text("baseUrl"),
        text("clientId"),
        text("clientSecret"),
        says["queueIds"][0].as_str().unwrap().to_owned(),
        text("crmUrl"),
    );
    let state = directory.path().display().to_string();
    let most = setting("GUESTLANE_MAX_CONCURRENT_SESSIONS", 1024).to_string();
    let settings = [
        ("GENESYS_BASE_URL", base.as_str()),
        ("GENESYS_CLIENT_ID", &id),
        ("GENESYS_CLIENT_SECRET", &secret),
        ("GENESYS_QUEUE_ID", &queue),
        ("CRM_WEBHOOK_URL", &crm),
        ("CRM_ALLOW_PRIVATE_NETWORKS", "true"),
        ("GUESTLANE_STATE_DIR", &state),
        ("GUESTLANE_PLATFORM_RATE_LIMIT", "off"),
        ("GUESTLANE_API_KEY_RATE_LIMIT", "off"),
        ("GUESTLANE_LOG_LEVEL", "warn"),
        ("GUESTLANE_MAX_CONCURRENT_SESSIONS", &most),
    ];
    let (_made, key) = guestlane(
        &[
            "api-keys",
            "create",
            "--name",
            "bench",
            "--scope",
            "sessions:write",
            "--json",
        ],
        &settings,
    );
    let client =
        HttpClient::new(Clock::system(), Duration::from_secs(60), &TlsRoots::System).unwrap();
    let keys = Command::new(env!("CARGO_BIN_EXE_guestlane"))
        .args(["signing-keys", "export", "--format", "jwks"])
        .env_clear()
        .envs(settings)
        .output()
        .unwrap();
    let register = Request::put(format!("{}/_sim/guest-keys", text("baseUrl")))
        .body(Full::new(Bytes::from(keys.stdout)))
        .unwrap();
    client
        .send(register, Clock::system().now() + Duration::from_secs(5))
        .await
        .unwrap();
    let (served, says) = guestlane(
        &[
            "serve",
            "--json",
            "--listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "off",
        ],
        &settings,
    );
    let address = says["address"].as_str().unwrap().to_owned();
    let mut load = Load {
        client,
        address: address.clone(),
        key: key["key"].as_str().unwrap().to_owned(),
        next: 0,
    };

    let mut warm = load.run(rate, 5).await;
    print_row("to warm up", &mut warm, resident(&served));
    let half = seconds.div_ceil(2);
    for part in ["first half", "second half"] {
        let mut answers = load.run(rate, half).await;
        print_row(
            &format!("{rate}/s, {part}"),
            &mut answers,
            resident(&served),
        );
    }
    let mut answers = load.run(rate * 10, seconds.div_ceil(4)).await;
    print_row(
        &format!("{}/s: ten times as much", rate * 10),
        &mut answers,
        resident(&served),
    );

    let host = address.strip_prefix("http://").unwrap();
    let mut connections = Vec::new();
    while (connections.len() as u64) < idle {
        let Ok(stream) = TcpStream::connect(host).await else {
            break;
        };
        // Each connection sends one request, because the service closes a silent one after 30 s.
        let _ = stream.try_write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
        connections.push(stream);
    }
    let mut answers = load.run(rate, seconds.div_ceil(4)).await;
    print_row(
        &format!("{rate}/s beside {} idle ones", connections.len()),
        &mut answers,
        resident(&served),
    );
}
