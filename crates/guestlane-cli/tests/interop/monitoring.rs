//! Prometheus reads the metrics, the alerts and the dashboard; `interop/README.md` lists the
//! requirements.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::Value;

use guestlane_testkit::{
    cli::{Exited, TestCli},
    repository,
    serve::{TestServe, get, pause},
};

#[test]
fn promtool_accepts_the_alert_rules_and_their_tests() {
    let promtool = |arguments: &[&str]| {
        Exited::of(
            Command::new("promtool")
                .args(arguments)
                .current_dir(repository().join("ops").join("prometheus"))
                .output()
                .unwrap(),
        )
    };
    promtool(&["check", "config", "prometheus.yml"]).ok();
    promtool(&["test", "rules", "alerts_test.yml"]).ok();
}

/// A Prometheus process with a temporary data directory.
struct Prometheus {
    process: Child,
    host: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    /// Starts Prometheus with the repository's own settings, but with a scrape interval of one
    /// second, and with `target` as its only target.
    fn start(directory: &Path, target: &str) -> Self {
        let settings =
            fs::read_to_string(repository().join("ops").join("prometheus/prometheus.yml")).unwrap();
        assert!(settings.contains("127.0.0.1:8972") && settings.contains("interval: 15s"));
        let settings = settings
            .replace("127.0.0.1:8972", target)
            .replace("interval: 15s", "interval: 1s");
        let file = directory.join("prometheus.yml");
        fs::write(&file, settings).unwrap();
        fs::copy(
            repository().join("ops").join("prometheus/alerts.yml"),
            directory.join("alerts.yml"),
        )
        .unwrap();
        let host = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={host}"))
            .args(["--log.level=error"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, host }
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = get(&self.host, path).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Returns the current values of an expression, without NaN.
    fn values(&self, expression: &str) -> Vec<f64> {
        let plain = |byte: u8| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        };
        let answer = self.get(&format!(
            "/api/v1/query?query={}",
            expression.bytes().map(plain).collect::<String>()
        ));
        let samples = answer["data"]["result"].as_array().unwrap();
        let value = |sample: &Value| sample["value"][1].as_str()?.parse::<f64>().ok();
        samples
            .iter()
            .filter_map(value)
            .filter(|value| !value.is_nan())
            .collect()
    }
}

#[test]
fn prometheus_returns_data_for_every_dashboard_panel() {
    // A low rate limit, lost calls, refusals, responses 429, and a webhook receiver that fails.
    let faults = [
        "contact:502:p=0.1",
        "conversation:400:p=0.1",
        "conversation:429:p=0.1",
        "crm:500:nth=2",
    ];
    let faults = faults.iter().flat_map(|fault| ["--fault", fault]);
    let cli = TestCli::open(
        &["--rate-limit", "20/s", "--seed", "7"]
            .into_iter()
            .chain(faults)
            .collect::<Vec<_>>(),
    );
    let service = TestServe::start(
        &cli,
        "state",
        &[("GUESTLANE_SIGNING_KEY_ROTATION_INTERVAL", "30d")],
    );
    // This creates the next key.
    cli.run(&["signing-keys", "rotate", "--state-dir", "state"])
        .ok();
    let prometheus = Prometheus::start(cli.directory.path(), service.metrics());
    let dashboard: Value = serde_json::from_str(
        &fs::read_to_string(repository().join("ops").join("grafana/guestlane.json")).unwrap(),
    )
    .unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let expression = |target: &Value| {
        let text = target["expr"]
            .as_str()
            .unwrap()
            .replace("$__rate_interval", "15s")
            .replace("$instance", ".*");
        assert!(!text.contains('$'), "{text}: what is this variable?");
        text
    };
    // The metrics must show these faults, not those of an idle service.
    let happened = [
        "guestlane_platform_rate_limited_total",
        "guestlane_platform_retries_total{attempt=\"2\"}",
        "guestlane_session_failures_total{code=\"platform_rejected\"}",
        "guestlane_outbox_events{state=\"pending\"}",
        "guestlane_platform_rate_limit_used_ratio",
        "guestlane_signing_key_next_activation_seconds",
    ];
    let queries: Vec<(&str, String)> = panels
        .iter()
        .flat_map(|panel| {
            panel["targets"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|target| (panel["title"].as_str().unwrap(), target))
        })
        .map(|(title, target)| (title, expression(target)))
        .chain(happened.map(|metric| ("it happened", format!("sum({metric}) > 0"))))
        .collect();
    assert!(queries.len() > 30);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for caller in 0..6 {
            let (service, done) = (&service, &done);
            scope.spawn(move || {
                for number in 0.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    service.create(
                        &format!("guest-{caller}-{number}"),
                        &format!("key-{caller}-{number}"),
                    );
                }
            });
        }
        // On drop, so that the threads also stop when an assertion fails.
        struct Ending<'a>(&'a AtomicBool);
        impl Drop for Ending<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _ending = Ending(&done);
        while get(&prometheus.host, "/-/ready").is_none_or(|(status, _)| status != 200) {
            pause(50);
        }
        let mut pending = queries.clone();
        for _ in 0..60 {
            pending.retain(|(_, query)| prometheus.values(query).is_empty());
            if pending.is_empty() {
                break;
            }
            pause(500);
        }
        assert!(pending.is_empty(), "panels without an answer: {pending:#?}");
        assert_eq!(prometheus.values("up{job=\"guestlane\"}"), [1.0]);
        assert_eq!(prometheus.values("guestlane_audit_lag_records").len(), 1);
        let groups = prometheus.get("/api/v1/rules");
        let rules = groups["data"]["groups"][0]["rules"].as_array().unwrap();
        assert!(rules.len() > 10);
        for rule in rules {
            assert_eq!(rule["health"], "ok", "{rule}");
            assert_ne!(rule["state"], "firing", "{rule}");
        }
    });
    // A client that does not accept OpenMetrics receives the older format, which Prometheus' own
    // checker accepts.
    let page = service.scrape();
    assert!(
        page.contains("le=\"+Inf\"") && !page.contains("# EOF"),
        "{page}"
    );
    let mut check = Command::new("promtool");
    let mut check = check
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    check
        .stdin
        .take()
        .unwrap()
        .write_all(page.as_bytes())
        .unwrap();
    let checked = Exited::of(check.wait_with_output().unwrap()).ok();
    assert_eq!(checked.stdout + &checked.stderr, "");
}
