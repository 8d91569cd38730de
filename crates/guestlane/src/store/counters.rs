//! Counts that outlive the process (R12), and what the ledger says of latency (R13).

use std::{collections::BTreeMap, time::Duration};

use guestlane_genesys::ErrorCounts;
use rusqlite::{Connection, params};
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

/// How long sessions took, exactly, over those in the ledger. Milliseconds.
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
                Ok(Summary {
                    sessions: by_state(connection, "SELECT state, count(*) FROM session GROUP BY state")?,
                    events: by_state(connection, "SELECT state, count(*) FROM outbox GROUP BY state")?,
                    errors: errors(connection)?,
                    latency: latency(connection)?,
                })
            })
            .await
    }
}

fn by_state(connection: &Connection, sql: &str) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let counts = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(counts.collect::<Result<_, _>>()?)
}

fn latency(connection: &Connection) -> Result<LatencySummary, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT latency_us FROM session WHERE latency_us IS NOT NULL ORDER BY latency_us")?;
    let sorted: Vec<u64> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let Some(max) = sorted.last() else { return Ok(LatencySummary::default()) };
    let ms = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1000.0;
    // The nearest rank: the smallest value that at least this share does not exceed.
    let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
    Ok(LatencySummary {
        count: sorted.len() as u64,
        mean: ms(sorted.iter().sum()) / sorted.len() as f64,
        p50: ms(rank(50)),
        p90: ms(rank(90)),
        p99: ms(rank(99)),
        max: ms(*max),
    })
}
