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

/// The number of sessions that are written before the other store takes its turn.
const ROUND: usize = 500;

/// The time between two sessions of the full store: two sessions per second.
const APART: Duration = Duration::from_millis(500);

/// Sessions of the full store that are not open or not delivered: one in this many.
const FAILED: u64 = 1_000;
const NEEDS_ATTENTION: u64 = 1_000_003;
const DEAD_LETTER: u64 = 100_003;

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
        before: before.clone(),
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

async fn crowd(store: &Store, count: usize, at_once: usize) -> (Vec<Writes>, Duration) {
    let started = Instant::now();
    let writes = stream::iter(0..count).map(|_| async { write(store, Instant::now()).await });
    let writes = writes.buffer_unordered(at_once).collect().await;
    (writes, started.elapsed())
}

// Filling.

/// The values that differ between sessions.
struct Names {
    session: Uuid,
    guest: String,
    contact: String,
    conversation: String,
}

impl Names {
    fn fresh(at: Timestamp) -> Self {
        let random = || Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid();
        let millis = u64::try_from(at.unix_micros() / 1000).unwrap();
        let bytes = fastrand::u128(..).to_be_bytes();
        let session =
            Builder::from_unix_timestamp_millis(millis, bytes.first_chunk().unwrap()).into_uuid();
        let text = || random().to_string();
        Self {
            session,
            guest: text(),
            contact: text(),
            conversation: text(),
        }
    }

    /// Replaces the template's values in a text by those of this session.
    fn put_into(&self, text: &str, template: &Self) -> String {
        text.replace(&template.session.to_string(), &self.session.to_string())
            .replace(&template.guest, &self.guest)
            .replace(&template.contact, &self.contact)
            .replace(&template.conversation, &self.conversation)
    }
}

/// Copies the template session, which the product wrote, `sessions` times. Row sizes are the
/// product's, and keys are as random.
fn fill(path: &Path, sessions: u64) {
    let mut connection = Connection::open(path).unwrap();
    connection
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    // If the process ends here, no data is lost.
    for pragma in [
        "journal_mode = off",
        "synchronous = off",
        "locking_mode = exclusive",
        "cache_size = -3000000",
    ] {
        connection
            .execute_batch(&format!("PRAGMA {pragma}"))
            .unwrap();
    }
    let text = "SELECT id, guest_id, contact_id, conversation_id, admitted_at FROM session";
    let (template, last) = connection
        .query_row(text, [], |row| {
            let session = Uuid::from_bytes(row.get(0)?);
            let names = Names {
                session,
                guest: row.get(1)?,
                contact: row.get(2)?,
                conversation: row.get(3)?,
            };
            Ok((names, Timestamp::from_unix_micros(row.get(4)?)))
        })
        .unwrap();
    let lines: Vec<String> = {
        let mut select = connection
            .prepare("SELECT line FROM audit_record WHERE session_id IS NOT NULL ORDER BY idx")
            .unwrap();
        select
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    };
    let body: String = connection
        .query_row("SELECT body FROM outbox", [], |row| row.get(0))
        .unwrap();
    // The first log is the template's. The others were full long ago and are no longer on this
    // disk.
    let (mut log, mut tree, mut bytes) = (2_u32, Frontier::default(), 0);
    let mut at = last - APART * u32::try_from(sessions).unwrap();
    let columns = columns_of(&connection, "session");
    let session_sql = format!(
        "INSERT INTO session ({columns}) SELECT {} FROM session WHERE id = ?1",
        with(
            &columns,
            &[
                ("id", "?2"),
                ("idempotency_key", "?3"),
                ("fingerprint", "randomblob(32)"),
                ("guest_id", "?4"),
                ("token_jti", "randomblob(16)"),
                ("token_iat", "?5 / 1000000"),
                ("contact_id", "?6"),
                ("conversation_id", "?7"),
                ("admitted_at", "?5"),
                ("step_started_at", "?5"),
                ("lease_expires_at", "NULL"),
                ("next_attempt_at", "NULL"),
                ("ended_at", "?5"),
                ("latency_us", "iif(?8 = 'open', ?9, NULL)"),
                ("state", "?8"),
                ("failure_code", "iif(?8 = 'open', NULL, 'refused')"),
            ]
        )
    );
    let columns = columns_of(&connection, "outbox").replace("seq, ", "");
    let event_sql = format!(
        "INSERT INTO outbox ({columns}) SELECT {} FROM outbox WHERE session_id = ?1 AND seq = 1",
        with(
            &columns,
            &[
                ("id", "'msg_' || lower(hex(?2))"),
                ("session_id", "?2"),
                ("guest_id", "?3"),
                ("body", "?4"),
                ("state", "?5"),
                ("created_at", "?6"),
                ("due_at", "?6"),
                ("ended_at", "?6"),
            ]
        )
    );
    let mut done = 0;
    while done < sessions {
        let transaction = connection.transaction().unwrap();
        {
            let mut session = transaction.prepare(&session_sql).unwrap();
            let mut event = transaction.prepare(&event_sql).unwrap();
            let mut record = transaction
                .prepare(
                    "INSERT INTO audit_record (log, idx, session_id, line) VALUES (?1, ?2, ?3, ?4)",
                )
                .unwrap();
            for number in done..sessions.min(done + 50_000) {
                at = at + APART;
                let (names, micros) = (Names::fresh(at), at.unix_micros());
                let id = names.session.into_bytes();
                let state = match number {
                    n if n % NEEDS_ATTENTION == 1 => "needs_attention",
                    n if n % FAILED == 1 => "failed",
                    _ => "open",
                };
                let key = format!(
                    "webchat-session-{}",
                    Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid()
                );
                let latency = fastrand::i64(20_000..400_000);
                let template_id = template.session.into_bytes();
                session
                    .execute(params![
                        template_id,
                        id,
                        key,
                        names.guest,
                        micros,
                        names.contact,
                        names.conversation,
                        state,
                        latency
                    ])
                    .unwrap();
                for line in &lines {
                    let line = names.put_into(line, &template);
                    let (_, rest) = line.split_once(',').unwrap();
                    let line = format!(r#"{{"index":{},{rest}"#, tree.size());
                    record.execute(params![log, tree.size(), id, line]).unwrap();
                    tree.push(leaf_hash(line.as_bytes()));
                    bytes += line.len() as u64 + 1;
                }
                if bytes >= ROTATE_AT {
                    end_log(&transaction, log, &tree, micros);
                    (log, tree, bytes) = (log + 1, Frontier::default(), 0);
                }
                if state == "open" {
                    let delivery = if number % DEAD_LETTER == 7 {
                        "dead"
                    } else {
                        "delivered"
                    };
                    let body = names.put_into(&body, &template);
                    event
                        .execute(params![
                            template_id,
                            id,
                            names.guest,
                            body,
                            delivery,
                            micros
                        ])
                        .unwrap();
                }
            }
        }
        transaction.commit().unwrap();
        done = sessions.min(done + 50_000);
        if done % 1_000_000 == 0 {
            println!("… {done}");
        }
    }
    end_log(&connection, log, &tree, at.unix_micros());
    connection
        .execute_batch("PRAGMA locking_mode = normal; PRAGMA journal_mode = wal")
        .unwrap();
    drop(connection);
    File::open(path).unwrap().sync_all().unwrap();
}

fn end_log(connection: &Connection, log: u32, tree: &Frontier, at: i64) {
    let insert = "INSERT INTO audit_log (log, size, frontier, closed_at) VALUES (?1, ?2, ?3, ?4)";
    connection
        .execute(insert, params![log, tree.size(), tree.to_bytes(), at])
        .unwrap();
}

fn columns_of(connection: &Connection, table: &str) -> String {
    let sql = "SELECT group_concat(name, ', ') FROM pragma_table_info(?1)";
    connection
        .query_row(sql, [table], |row| row.get(0))
        .unwrap()
}

/// Returns the columns with the values in which the copy differs from the template.
fn with(columns: &str, values: &[(&str, &str)]) -> String {
    let value = |column| {
        values
            .iter()
            .find(|value| value.0 == column)
            .map_or(column, |value| value.1)
    };
    columns
        .split(", ")
        .map(value)
        .collect::<Vec<_>>()
        .join(", ")
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

async fn timed<T>(what: &str, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let value = work.await;
    row(what, started.elapsed());
    value
}

/// Times the queries of the workers, and those of operators.
async fn look(store: &Store, path: &Path) {
    let (keys, guest, id) = samples(path);
    let now = Clock::system().now();
    timed("`recover`: how many are unfinished", store.unfinished())
        .await
        .unwrap();
    timed("`recover`: taking up", store.claim_due(32, now))
        .await
        .unwrap();
    let mut took = Vec::new();
    for key in keys {
        let started = Instant::now();
        assert!(store.find_by_key(key).await.unwrap().is_some());
        took.push(started.elapsed());
    }
    took.sort();
    row(
        "a replay's look-up by key, median of 1,000",
        took[took.len() / 2],
    );
    row("the same, 99 of 100 below", took[took.len() * 99 / 100]);
    let sessions = |guest: Option<String>, state| {
        store.sessions(SessionFilter {
            guest,
            state,
            limit: 50,
            ..SessionFilter::default()
        })
    };
    timed("`sessions list`", sessions(None, None))
        .await
        .unwrap();
    timed(
        "`sessions list --guest`",
        sessions(Some(guest.clone()), None),
    )
    .await
    .unwrap();
    timed(
        "`sessions list --state parked` (none)",
        sessions(None, Some(session::SessionState::Parked)),
    )
    .await
    .unwrap();
    timed(
        "`sessions list --state failed`",
        sessions(None, Some(session::SessionState::Failed)),
    )
    .await
    .unwrap();
    timed(
        "`sessions list --state needs_attention`",
        sessions(None, Some(session::SessionState::NeedsAttention)),
    )
    .await
    .unwrap();
    timed("`outbox list`", store.events(None, None, 50))
        .await
        .unwrap();
    timed(
        "`outbox list --state dead`",
        store.events(Some(DeliveryState::Dead), None, 50),
    )
    .await
    .unwrap();
    timed("how many events wait", store.pending_events())
        .await
        .unwrap();
    let of_session = RecordFilter {
        session: Some(session::SessionId(id)),
        guest: None,
        limit: 50,
    };
    timed("`audit show --session`", store.records(of_session))
        .await
        .unwrap();
    let of_guest = RecordFilter {
        session: None,
        guest: Some(guest.parse().unwrap()),
        limit: 50,
    };
    timed("`audit show --guest`", store.records(of_guest))
        .await
        .unwrap();
    timed("`stats`", store.summary()).await.unwrap();
}

fn samples(path: &Path) -> (Vec<IdempotencyKey>, String, Uuid) {
    let connection = Connection::open(path).unwrap();
    // A random UUID of version 7 rarely exists; the next larger one does.
    let range = "SELECT min(id), max(id) FROM session";
    let edge = |bytes: [u8; 16]| u128::from_be_bytes(bytes);
    let (first, last) = connection
        .query_row(range, [], |row| Ok((edge(row.get(0)?), edge(row.get(1)?))))
        .unwrap();
    let next = "SELECT idempotency_key, guest_id, id FROM session WHERE id >= ?1 LIMIT 1";
    let mut next = connection.prepare(next).unwrap();
    let mut sample = || {
        let from = fastrand::u128(first..=last).to_be_bytes();
        next.query_row([from], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get(1)?,
                Uuid::from_bytes(row.get(2)?),
            ))
        })
        .unwrap()
    };
    let keys = (0..1000).map(|_| sample().0.parse().unwrap()).collect();
    let (_, guest, id) = sample();
    (keys, guest, id)
}

async fn compare(empty: &Store, full: &Store, fresh: usize) {
    for at_once in [1, 64] {
        let (mut of_empty, mut of_full) = (Measured::default(), Measured::default());
        for _ in 0..fresh.div_ceil(ROUND) {
            of_empty.add(crowd(empty, ROUND, at_once).await);
            of_full.add(crowd(full, ROUND, at_once).await);
        }
        println!(
            "\n| {at_once} at once, {fresh} sessions each | empty | full | ratio |\n|---|---|---|---|"
        );
        of_empty.beside(&mut of_full);
    }
}

/// Measures with an empty page cache, as on a machine with less memory than the size of the store.
async fn cold(full: &Store, path: &Path) {
    let mut measured = Measured::default();
    for _ in 0..10 {
        fadvise(File::open(path).unwrap(), 0, None, Advice::DontNeed).unwrap();
        measured.add(crowd(full, 50, 1).await);
    }
    println!(
        "\n| the system has forgotten the store's file, one at a time, 500 sessions | full |\n|---|---|"
    );
    measured.alone();
}

/// Deletes the oldest sessions in the chunk size of the product.
async fn prune(full: &Store, path: &Path) {
    let oldest =
        "SELECT min(admitted_at) FROM (SELECT admitted_at FROM session ORDER BY id LIMIT 1)";
    let oldest: i64 = Connection::open(path)
        .unwrap()
        .query_row(oldest, [], |row| row.get(0))
        .unwrap();
    let until = Timestamp::from_unix_micros(oldest) + APART * 5000;
    let (mut took, mut sum) = (Vec::new(), Pruned::default());
    for _ in 0..40 {
        let started = Instant::now();
        sum += full.prune(sum.next, until, 100).await.unwrap();
        took.push(started.elapsed());
    }
    took.sort();
    println!(
        "\n| {} sessions forgotten, 100 in a step | ms |\n|---|---|",
        sum.sessions
    );
    row("a step, median", took[took.len() / 2]);
    row("the longest step", took[took.len() - 1]);
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

fn resident() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap_or("not known here");
    line.trim().to_owned()
}
