//! A database with locked tables: reads for callers and verifications of the audit log have to
//! wait.

use std::{collections::HashSet, io::Write, net::TcpStream, sync::mpsc, thread};

use guestlane_testkit::{Server, TableLock, column, schema_in};
use serde_json::json;

use crate::{
    harness::{Ended, Office},
    service_harness::pause,
    service_process::{Answer, Served},
};

/// A service with its own database.
struct Contended {
    served: Served,
    /// An API key with the scope that the test needs.
    key: String,
    url: String,
    _office: Office,
    _server: Server,
}

impl Contended {
    fn start(scope: &str) -> Self {
        let server = Server::start();
        let url = schema_in(&server.url());
        let office = Office::open(&["--rate-limit", "off"]);
        let settings = [("GUESTLANE_DATABASE_URL", url.as_str())];
        let create = [
            "api-keys", "create", "--name", "test", "--scope", scope, "--json",
        ];
        let made = Ended::of(office.command(&create).envs(settings).output().unwrap())
            .ok()
            .json();
        let served = office.serve(&[], &settings);
        Self {
            served,
            key: made["key"].as_str().unwrap().to_owned(),
            url,
            _office: office,
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
fn reads_that_are_refused_or_too_slow_have_advice_of_their_own() {
    let contended = Contended::start("sessions:read");
    let lock = TableLock::hold(&contended.url, "session");
    let (answered, answers) = mpsc::channel::<Answer>();
    thread::scope(|scope| {
        // The service queues 64 reads, and three are in flight.
        for _ in 0..100 {
            let (answered, contended) = (answered.clone(), &contended);
            scope.spawn(move || {
                answered
                    .send(
                        contended
                            .served
                            .ask("GET", "/v1/sessions", &contended.key, "", ""),
                    )
                    .unwrap();
            });
        }
        let advice = |answer: &Answer| {
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
    let log = contended.served.log.lock().unwrap().clone();
    assert!(!log.contains("the store failed"), "{log}");
}

/// A verification uses a whole processor and reads the whole log. A client that disconnects and
/// retries must not start a second one in parallel.
#[test]
fn the_audit_log_is_verified_by_one_request_at_a_time_also_when_callers_hang_up() {
    let contended = Contended::start("admin");
    let lock = TableLock::hold(&contended.url, "audit_record");
    let host = contended.served.address.strip_prefix("http://").unwrap();
    let mut hangs_up = TcpStream::connect(host).unwrap();
    let key = &contended.key;
    write!(hangs_up, "POST /v1/audit:verify HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: 0\r\n\r\n")
        .unwrap();
    while contended.waiting("audit_record") != 1 {
        pause(20);
    }
    drop(hangs_up);
    thread::scope(|scope| {
        let verify = || {
            contended
                .served
                .ask("POST", "/v1/audit:verify", key, "", "")
        };
        let others = [scope.spawn(verify), scope.spawn(verify)];
        for _ in 0..40 {
            assert_eq!(
                contended.waiting("audit_record"),
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
