//! Benchmark of a store that has grown. It writes the same sessions, as the product writes them,
//! into an empty store and into a full one, in turns.
//!
//! `cargo bench -p guestlane --bench ledger` fills a store with a million sessions.
//! `GUESTLANE_BENCH_SESSIONS=10000000` sets ten million. The store is in its own directory below
//! the temporary directory, and is deleted afterwards. With `GUESTLANE_BENCH_KEEP=DIR` it stays in
//! DIR and is used again. `GUESTLANE_BENCH_FRESH` sets how many sessions are timed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a benchmark may"
)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::print_stdout,
    reason = "it measures the real clock, and prints"
)]

mod fill;
mod reads;

use std::{
    fs::{self, File},
    future::Future,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use guestlane::{ErrorCounts, StorageConfig, Workspace};
use guestlane_core::{
    audit::{AuditRecord, Status},
    event::Event,
    request::{Attributes, ContactDetails, IdempotencyKey, SessionRequest},
    session::{self, SessionRecord, SurfaceBinding},
    token::TokenIdentity,
};
use guestlane_runtime::{Clock, Timestamp};
use guestlane_store::{
    BeginOutcome, CommitRequest, DeliveryOutcome, DeliveryState, Pruned, RecordFilter,
    SessionFilter, Store,
};
use guestlane_tlog::{Frontier, leaf_hash};
use rusqlite::{Connection, params};
use rustix::fs::{Advice, fadvise};
use uuid::{Builder, Uuid};

use fill::fill;
use reads::{cold, look, prune, resident};

/// The number of sessions that are written before the other store takes its turn.
const ROUND: usize = 500;

/// The time between two sessions of the full store: two sessions per second.
const APART: Duration = Duration::from_millis(500);

/// The rotation size of an audit log, which is the product's default.
const ROTATE_AT: u64 = 64 << 20;

fn main() {
    // `cargo test` starts this program without `--bench`; then there is nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let sessions = number("GUESTLANE_BENCH_SESSIONS", 1_000_000);
    let fresh = usize::try_from(number("GUESTLANE_BENCH_FRESH", 10_000)).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let full = std::env::var("GUESTLANE_BENCH_KEEP")
        .map_or_else(|_| scratch.path().join("full"), PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let known = sessions_in(&full);
        if known == 0 {
            let started = Instant::now();
            write(&open(&full).await.store, Instant::now()).await;
            fill(&database(&full), sessions);
            println!(
                "filled with {sessions} sessions in {:.0} s\n",
                started.elapsed().as_secs_f64()
            );
        }
        sizes(&database(&full), sessions);

        let opening = Instant::now();
        let full_state = open(&full).await;
        println!("\n| on the full store | ms |\n|---|---|");
        row("open it", opening.elapsed());
        look(&full_state.store, &database(&full)).await;

        let empty_state = open(&scratch.path().join("empty")).await;
        compare(&empty_state.store, &full_state.store, fresh).await;
        cold(&full_state.store, &database(&full)).await;
        prune(&full_state.store, &database(&full)).await;
        println!("\nresident at the most: {}", resident());
    });
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn database(directory: &Path) -> PathBuf {
    directory.join("guestlane.db")
}

async fn open(directory: &Path) -> Workspace {
    let mut places = StorageConfig::in_directory(directory);
    places.audit.rotate_at = Some(ROTATE_AT);
    Workspace::open(&places, &Clock::system()).await.unwrap()
}

fn sessions_in(directory: &Path) -> u64 {
    let Ok(connection) = Connection::open_with_flags(
        database(directory),
        rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
    ) else {
        return 0;
    };
    connection
        .query_row("SELECT count(*) FROM session", [], |row| row.get(0))
        .unwrap_or(0)
}

fn row(what: &str, took: Duration) {
    println!("| {what} | {:.2} |", took.as_secs_f64() * 1000.0);
}

// What the product does for a session.

/// The latency of each write of a session.
struct Writes {
    admit: Duration,
    whole: Duration,
}

/// Writes a session to the store as the saga does. The platform and the webhook endpoint respond at
/// once.
async fn write(store: &Store, asked: Instant) -> Writes {
    let clock = Clock::system();
    let now = clock.now();
    let request = SessionRequest {
        guest: Uuid::new_v4().to_string().parse().unwrap(),
        contact_details: ContactDetails::default(),
        queue: "5e0c0000-0000-4000-8000-000000000001".parse().unwrap(),
        attributes: Attributes::from_pairs([("source", "web-portal"), ("tier", "premium")])
            .unwrap(),
        key: IdempotencyKey::generate(),
    };
    let rates = ErrorCounts::default();
    let token = TokenIdentity::new("webchat-guest-key-v1", now);
    let new = SessionRecord::new(request, SurfaceBinding::Rest.into(), token, now);
    let BeginOutcome::Acquired(session) = store.begin(new, rates).await.unwrap().value else {
        panic!("a fresh key is taken")
    };
    let admit = asked.elapsed();
    let step = |before: &SessionRecord, after, audit, events| CommitRequest {
        epoch: before.epoch,
        after,
        audit,
        events,
        errors: rates,
        calls: Vec::new(),
    };
    let after = session
        .clone()
        .contact_ready(Some(Uuid::new_v4().into()), 1, clock.now())
        .unwrap();
    let session = store
        .commit_transition(step(&session, after, None, Vec::new()))
        .await
        .unwrap()
        .value
        .session;
    let after = session
        .clone()
        .completed(Uuid::new_v4().into(), 1, now, clock.now())
        .unwrap();
    let record = AuditRecord::for_session(&after, Status::Success, rates, clock.now());
    let event = Event::session_created(&after, 1, clock.now());
    let advanced = store
        .commit_transition(step(&session, after, Some(record), vec![event]))
        .await
        .unwrap()
        .value;
    let whole = asked.elapsed(); // the caller gets its response here
    for event in advanced.first {
        store
            .record_delivery(event, DeliveryOutcome::Delivered, clock.now())
            .await
            .unwrap();
    }
    Writes { admit, whole }
}

async fn grow(store: &Store, count: usize, at_once: usize) -> (Vec<Writes>, Duration) {
    let started = Instant::now();
    let writes = stream::iter(0..count).map(|_| async { write(store, Instant::now()).await });
    let writes = writes.buffer_unordered(at_once).collect().await;
    (writes, started.elapsed())
}

// Measuring.

fn sizes(path: &Path, sessions: u64) {
    let connection = Connection::open(path).unwrap();
    let sql = "SELECT name, pgsize, payload FROM dbstat WHERE aggregate = TRUE ORDER BY pgsize DESC LIMIT 14";
    let mut select = connection.prepare(sql).unwrap();
    let mut rows = select.query([]).unwrap();
    println!("| table or index | MB | bytes per session |\n|---|---|---|");
    while let Some(row) = rows.next().unwrap() {
        let (name, size): (String, u64) = (row.get(0).unwrap(), row.get(1).unwrap());
        println!(
            "| `{name}` | {:.1} | {:.0} |",
            size as f64 / 1e6,
            size as f64 / sessions as f64
        );
    }
    let size = fs::metadata(path).unwrap().len();
    println!(
        "| the whole file | {:.1} | {:.0} |",
        size as f64 / 1e6,
        size as f64 / sessions as f64
    );
    let lines = "SELECT CAST(2 * avg(length(line) + 1 + 32) AS INTEGER) FROM (SELECT line FROM audit_record LIMIT 1000)";
    let lines: u64 = connection.query_row(lines, [], |row| row.get(0)).unwrap();
    println!(
        "| besides, `session-audit*.jsonl*` | {:.1} | {lines} |",
        (lines * sessions) as f64 / 1e6
    );
}

async fn compare(empty: &Store, full: &Store, fresh: usize) {
    for at_once in [1, 64] {
        let (mut of_empty, mut of_full) = (Measured::default(), Measured::default());
        for _ in 0..fresh.div_ceil(ROUND) {
            of_empty.add(grow(empty, ROUND, at_once).await);
            of_full.add(grow(full, ROUND, at_once).await);
        }
        println!(
            "\n| {at_once} at once, {fresh} sessions each | empty | full | ratio |\n|---|---|---|---|"
        );
        of_empty.beside(&mut of_full);
    }
}

#[derive(Default)]
struct Measured {
    admit: Vec<Duration>,
    whole: Vec<Duration>,
    took: Duration,
}

impl Measured {
    fn add(&mut self, (writes, took): (Vec<Writes>, Duration)) {
        self.admit.extend(writes.iter().map(|writes| writes.admit));
        self.whole.extend(writes.iter().map(|writes| writes.whole));
        self.took += took;
    }

    fn values(&mut self) -> [(&'static str, f64); 5] {
        self.admit.sort();
        self.whole.sort();
        let ms = |sorted: &[Duration], percent: usize| {
            sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)].as_secs_f64() * 1000.0
        };
        [
            ("admission, median, ms", ms(&self.admit, 50)),
            ("admission, 99 of 100 below, ms", ms(&self.admit, 99)),
            ("admission to open, median, ms", ms(&self.whole, 50)),
            (
                "admission to open, 99 of 100 below, ms",
                ms(&self.whole, 99),
            ),
            (
                "a session with all its writes, ms",
                self.took.as_secs_f64() * 1000.0 / self.whole.len() as f64,
            ),
        ]
    }

    fn beside(&mut self, other: &mut Self) {
        for ((what, empty), (_, full)) in self.values().into_iter().zip(other.values()) {
            println!("| {what} | {empty:.3} | {full:.3} | {:.2} |", full / empty);
        }
    }

    fn alone(&mut self) {
        for (what, value) in self.values() {
            println!("| {what} | {value:.3} |");
        }
    }
}
