//! A database with locked tables: reads for callers and verifications of the audit log have to
//! wait.

use std::{collections::HashSet, io::Write, net::TcpStream, sync::mpsc, thread};

use guestlane_testkit::{Server, TableLock, column, schema_in};
use guestlane_testkit::{
    cli::{Exited, TestCli},
    serve::pause,
    service_process::{Response, ServiceProcess},
};
use serde_json::json;

/// A service with its own database.
struct PostgresService {
    service: ServiceProcess,
    /// An API key with the scope that the test needs.
    key: String,
    url: String,
    _cli: TestCli,
    _server: Server,
}

impl PostgresService {
    fn start(scope: &str) -> Self {
        let server = Server::start();
        let url = schema_in(&server.url());
        let cli = TestCli::open(&["--rate-limit", "off"]);
        let settings = [("GUESTLANE_DATABASE_URL", url.as_str())];
        let create = [
            "api-keys", "create", "--name", "test", "--scope", scope, "--json",
        ];
        let made = Exited::of(cli.command(&create).envs(settings).output().unwrap())
            .ok()
            .json();
        let service = cli.serve(&[], &settings);
        Self {
            service,
            key: made["key"].as_str().unwrap().to_owned(),
            url,
            _cli: cli,
            _server: server,
        }
    }

    /// Returns the number of statements that wait for a lock on the table.
    fn waiting(&self, table: &str) -> usize {
        let waiting = format!(
            "SELECT pid FROM pg_locks WHERE relation = '{table}'::regclass AND NOT granted"
        );
        column(&self.url, &waiting).len()
    }
}

/// The general advice for a failing store (repeat the request) would increase the load in both
/// cases.
#[test]
fn refused_and_timed_out_store_reads_have_specific_advice() {
    let postgres_service = PostgresService::start("sessions:read");
    let lock = TableLock::hold(&postgres_service.url, "session");
    let (answered, answers) = mpsc::channel::<Response>();
    thread::scope(|scope| {
        // The service queues 64 reads, and three are in flight.
        for _ in 0..100 {
            let (answered, postgres_service) = (answered.clone(), &postgres_service);
            scope.spawn(move || {
                answered
                    .send(postgres_service.service.send_request(
                        "GET",
                        "/v1/sessions",
                        &postgres_service.key,
                        "",
                        "",
                    ))
                    .unwrap();
            });
        }
        let advice = |answer: &Response| {
            let problem = answer.json();
            assert_eq!(
                (answer.status, &problem["code"]),
                (503, &json!("store_failed")),
                "{problem}"
            );
            assert_eq!(
                (
                    answer.headers["retry-after"].as_str(),
                    &problem["retryAfter"]
                ),
                ("1", &json!(1))
            );
            (
                problem["detail"].as_str().unwrap().to_owned(),
                problem["fix"].as_str().unwrap().to_owned(),
            )
        };
        let is = |detail: &str, fix: &str| (detail.to_owned(), fix.to_owned());
        let refused = is(
            "the store is busy with other reads",
            "retry later, with fewer concurrent reads",
        );
        let too_slow = is(
            "the read took longer than 5 s and was cancelled",
            "narrow the filter or lower the limit; docs/scaling.md names the reads that use an index",
        );
        let mut seen = HashSet::new();
        while seen.len() < 2 {
            let advice = advice(&answers.recv().unwrap());
            assert!(advice == refused || advice == too_slow, "{advice:?}");
            seen.insert(advice);
        }
        drop(lock);
    });
    drop(answered);
    assert!(
        answers.iter().any(|answer| answer.status == 200),
        "reads that waited meanwhile are answered"
    );
    let log = postgres_service.service.log.lock().unwrap().clone();
    assert!(!log.contains("the store failed"), "{log}");
}

/// A verification uses a whole processor and reads the whole log. A client that disconnects and
/// retries must not start a second one in parallel.
#[test]
fn audit_verifications_run_one_at_a_time_despite_disconnects() {
    let postgres_service = PostgresService::start("admin");
    let lock = TableLock::hold(&postgres_service.url, "audit_record");
    let host = postgres_service
        .service
        .address
        .strip_prefix("http://")
        .unwrap();
    let mut disconnecting = TcpStream::connect(host).unwrap();
    let key = &postgres_service.key;
    write!(disconnecting, "POST /v1/audit:verify HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: 0\r\n\r\n")
        .unwrap();
    while postgres_service.waiting("audit_record") != 1 {
        pause(20);
    }
    drop(disconnecting);
    thread::scope(|scope| {
        let verify = || {
            postgres_service
                .service
                .send_request("POST", "/v1/audit:verify", key, "", "")
        };
        let others = [scope.spawn(verify), scope.spawn(verify)];
        for _ in 0..40 {
            assert_eq!(
                postgres_service.waiting("audit_record"),
                1,
                "verifications at once"
            );
            pause(20);
        }
        assert!(
            others.iter().all(|other| !other.is_finished()),
            "the others wait for their turn"
        );
        drop(lock);
        for other in others {
            let answer = other.join().unwrap();
            assert_eq!(
                (answer.status, &answer.json()["verified"]),
                (200, &json!(true)),
                "{}",
                answer.body
            );
        }
    });
}
