//! Reads of a store, warm and cold, and pruning.

use super::*;

pub(super) async fn timed<T>(what: &str, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let value = work.await;
    row(what, started.elapsed());
    value
}

/// Times the queries of the workers, and those of operators.
pub(super) async fn look(store: &Store, path: &Path) {
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

/// Measures with an empty page cache, as on a machine with less memory than the size of the store.
pub(super) async fn cold(full: &Store, path: &Path) {
    let mut measured = Measured::default();
    for _ in 0..10 {
        fadvise(File::open(path).unwrap(), 0, None, Advice::DontNeed).unwrap();
        measured.add(grow(full, 50, 1).await);
    }
    println!(
        "\n| the system has forgotten the store's file, one at a time, 500 sessions | full |\n|---|---|"
    );
    measured.alone();
}

/// Deletes the oldest sessions in the chunk size of the product.
pub(super) async fn prune(full: &Store, path: &Path) {
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

pub(super) fn resident() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap_or("not known here");
    line.trim().to_owned()
}
