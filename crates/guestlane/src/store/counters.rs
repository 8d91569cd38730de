//! Counts that outlive the process (R12), and what the ledger says of latency (R13).

use std::{collections::BTreeMap, time::Duration};

use guestlane_genesys::ErrorCounts;
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;

use super::{Store, StoreError};

const NAMES: [&str; 5] = ["total", "tokenValidation", "rateLimit", "auth", "network"];

/// Adds what has come since the last time.
pub(super) fn add(connection: &Connection, errors: &ErrorCounts) -> Result<(), StoreError> {
    if errors.total == 0 {
        return Ok(());
    }
    let values = [errors.total, errors.token_validation, errors.rate_limit, errors.auth, errors.network];
    let mut statement = connection.prepare_cached(
        "INSERT INTO counter (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
    )?;
    for (name, value) in NAMES.iter().zip(values).filter(|(_, value)| *value > 0) {
        statement.execute(params![name, value])?;
    }
    Ok(())
}

pub(super) fn errors(connection: &Connection) -> Result<ErrorCounts, StoreError> {
    let mut statement = connection.prepare_cached("SELECT name, value FROM counter")?;
    let counts = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?)))?;
    let counts: BTreeMap<String, u64> = counts.collect::<Result<_, _>>()?;
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    Ok(ErrorCounts {
        total: count("total"),
        token_validation: count("tokenValidation"),
        rate_limit: count("rateLimit"),
        auth: count("auth"),
        network: count("network"),
    })
}

/// How long sessions took, those that are forgotten included. Milliseconds; percentiles and the maximum to a thousandth, the rest exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencySummary {
    /// Sessions that were opened.
    pub count: u64,
    /// The mean.
    pub mean: f64,
    /// Half were quicker.
    pub p50: f64,
    /// 90 of 100 were quicker.
    pub p90: f64,
    /// 99 of 100 were quicker.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// What the store knows of how it goes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Sessions by state.
    pub sessions: BTreeMap<String, u64>,
    /// CRM events by state.
    pub events: BTreeMap<String, u64>,
    /// Errors by category.
    pub errors: ErrorCounts,
    /// R13.
    pub latency: LatencySummary,
}

impl Store {
    /// Error counts of all processes that used this store.
    pub async fn error_counts(&self) -> Result<ErrorCounts, StoreError> {
        self.reader.ask(errors).await
    }

    /// Adds error counts that no transition will carry any more.
    pub async fn add_errors(&self, counts: ErrorCounts) -> Result<(), StoreError> {
        if counts.total == 0 {
            return Ok(());
        }
        self.writer.run(move |connection| add(connection, &counts)).await.map(drop)
    }

    /// All counts and the latency.
    pub async fn summary(&self) -> Result<Summary, StoreError> {
        self.reader
            .ask(|connection| {
                let connection = connection.unchecked_transaction()?; // one moment for all: sessions are forgotten meanwhile
                let (sessions, latency) = sessions(&connection)?;
                Ok(Summary { sessions, events: events(&connection)?, errors: errors(&connection)?, latency })
            })
            .await
    }
}

/// What `metrics` says of a session that is forgotten, and of its events.
pub(super) fn keep_pruned(
    connection: &Connection,
    state: &str,
    events: &[String],
    latency: Option<u64>,
) -> Result<(), StoreError> {
    let count =
        "INSERT INTO counter (name, value) VALUES (?1 || ?2, ?3) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value";
    let mut count = connection.prepare_cached(count)?;
    count.execute(params![PRUNED_SESSIONS, state, 1])?;
    for state in events {
        count.execute(params![PRUNED_EVENTS, state, 1])?;
    }
    if let Some(latency) = latency {
        count.execute(params![PRUNED_LATENCY, "", latency])?;
        let sort =
            "INSERT INTO pruned_latency (latency_us, sessions) VALUES (?1, 1) ON CONFLICT DO UPDATE SET sessions = sessions + 1";
        connection.prepare_cached(sort)?.execute([rounded(latency)])?;
    }
    Ok(())
}

/// Whether sessions were ever forgotten: then records may be of sessions that are not there.
pub(super) fn has_pruned(connection: &Connection) -> Result<bool, StoreError> {
    Ok(!by_state(connection, PRUNED_SESSIONS)?.is_empty())
}

const PRUNED_SESSIONS: &str = "pruned sessions ";
const PRUNED_EVENTS: &str = "pruned events ";
/// The sum, in microseconds.
const PRUNED_LATENCY: &str = "pruned latency";

type ByState = BTreeMap<String, u64>;

/// Counts of what is forgotten.
fn by_state(connection: &Connection, prefix: &str) -> Result<ByState, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT substr(name, length(?1) + 1), value FROM counter WHERE name LIKE ?1 || '%'")?;
    let counts = statement.query_map([prefix], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(counts.collect::<Result<_, _>>()?)
}

/// All sessions, looked at once: a ledger may have millions.
fn sessions(connection: &Connection) -> Result<(ByState, LatencySummary), StoreError> {
    let mut states = by_state(connection, PRUNED_SESSIONS)?;
    let mut latencies = Latencies::default();
    let mut pruned = connection.prepare_cached("SELECT latency_us, sessions FROM pruned_latency")?;
    let mut rows = pruned.query([])?;
    while let Some(row) = rows.next()? {
        latencies.add(row.get(0)?, row.get(1)?);
    }
    let sum =
        connection.prepare_cached("SELECT value FROM counter WHERE name = ?1")?.query_row([PRUNED_LATENCY], |row| row.get(0));
    latencies.sum = sum.optional()?.unwrap_or(0);
    let mut kept = connection.prepare_cached("SELECT state, latency_us FROM session")?;
    let mut rows = kept.query([])?;
    while let Some(row) = rows.next()? {
        let state = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        match states.get_mut(state) {
            Some(count) => *count += 1,
            None => drop(states.insert(state.to_owned(), 1)),
        }
        if let Some(latency) = row.get(1)? {
            latencies.sum += latency;
            latencies.add(latency, 1);
        }
    }
    Ok((states, latencies.summary()))
}

/// Most are delivered: they are what is left when the others, for which there are indexes, are counted.
fn events(connection: &Connection) -> Result<ByState, StoreError> {
    let count = |sql: &str| connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, u64>(0));
    let mut left = count("SELECT count(*) FROM outbox")?;
    let mut states = by_state(connection, PRUNED_EVENTS)?;
    for (state, sql) in [
        ("pending", "SELECT count(*) FROM outbox WHERE state = 'pending'"),
        ("dead", "SELECT count(*) FROM outbox WHERE state = 'dead'"),
        ("erased", "SELECT count(*) FROM outbox WHERE state = 'erased'"),
    ] {
        let found = count(sql)?;
        left -= found;
        *states.entry(state.to_owned()).or_default() += found;
    }
    *states.entry("delivered".to_owned()).or_default() += left;
    states.retain(|_, count| *count > 0);
    Ok(states)
}

/// Up, by less than a thousandth: however many latencies there are, there are some ten thousand values of them.
fn rounded(micros: u64) -> u64 {
    let low = (u64::BITS - micros.leading_zeros()).saturating_sub(11);
    micros | ((1 << low) - 1)
}

#[derive(Default)]
struct Latencies {
    sessions: BTreeMap<u64, u64>,
    sum: u64,
}

impl Latencies {
    fn add(&mut self, micros: u64, sessions: u64) {
        *self.sessions.entry(rounded(micros)).or_default() += sessions;
    }

    fn summary(&self) -> LatencySummary {
        let count: u64 = self.sessions.values().sum();
        let Some((max, _)) = self.sessions.last_key_value() else { return LatencySummary::default() };
        let ms = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1000.0;
        // The nearest rank: the smallest value that at least this share does not exceed.
        let rank = |percent: u64| {
            let mut left = (count * percent).div_ceil(100).max(1);
            let value = self.sessions.iter().find(|(_, sessions)| {
                let found = left <= **sessions;
                left = left.saturating_sub(**sessions);
                found
            });
            ms(*value.map_or(max, |(value, _)| value))
        };
        LatencySummary { count, mean: ms(self.sum) / count as f64, p50: rank(50), p90: rank(90), p99: rank(99), max: ms(*max) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_rounded_up_by_less_than_a_thousandth_and_only_once() {
        for micros in [0, 1, 2047, 2048, 2049, 123_456, 60_000_000, u64::MAX] {
            let up = rounded(micros);
            assert!(up >= micros && up - micros <= micros / 1000 && rounded(up) == up, "{micros} {up}");
        }
    }

    #[test]
    fn a_rank_is_the_smallest_value_that_so_many_do_not_exceed() {
        let mut latencies = Latencies::default();
        for ms in 1..=200_u64 {
            latencies.add(ms * 1000, 1);
            latencies.sum += ms * 1000;
        }
        let LatencySummary { count, mean, p50, p90, p99, max } = latencies.summary();
        assert_eq!((count, mean), (200, 100.5));
        for (found, exact) in [(p50, 100.0), (p90, 180.0), (p99, 198.0), (max, 200.0)] {
            assert!(found >= exact && found < exact * 1.001, "{found} {exact}");
        }
    }
}
