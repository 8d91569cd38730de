//! Counters that outlive the process (requirement R12, docs/requirements.md), and latencies of the
//! stored sessions (requirement R13, docs/requirements.md).

use std::collections::BTreeMap;

use async_trait::async_trait;
use guestlane_genesys::ErrorCounts;
use guestlane_runtime::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::Sqlite;
use crate::{
    LatencySummary, Statistics, StoreError, StoreGauges, Summary, queries,
    row::UNFINISHED,
    summary::{self, Latencies, PRUNED_EVENTS, PRUNED_LATENCY, PRUNED_SESSIONS, rounded},
};

/// Adds the errors that were counted since the last call.
pub(super) fn add(connection: &Connection, errors: &ErrorCounts) -> Result<(), StoreError> {
    if errors.total == 0 {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(
        "INSERT INTO counter (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
    )?;
    for (name, value) in summary::named(errors) {
        statement.execute(params![name, value])?;
    }
    Ok(())
}

pub(super) fn errors(connection: &Connection) -> Result<ErrorCounts, StoreError> {
    let mut statement = connection.prepare_cached("SELECT name, value FROM counter")?;
    let counts = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?))
    })?;
    let counts: BTreeMap<String, u64> = counts.collect::<Result<_, _>>()?;
    Ok(summary::errors_of(&counts))
}

#[async_trait]
impl Statistics for Sqlite {
    async fn gauges(&self) -> Result<StoreGauges, StoreError> {
        self.reader
            .read(|connection| {
                let counted = |sql: &str| {
                    let row =
                        connection.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?)))?;
                    Ok::<_, StoreError>((row.0, row.1.map(Timestamp::from_unix_micros)))
                };
                // IDs are in the order of admission and part of the index, so finding the oldest
                // session scans no table.
                let (unfinished, _) = counted(&format!("SELECT count(*), NULL FROM session WHERE {UNFINISHED}"))?;
                let oldest =
                    format!("SELECT 0, admitted_at FROM session WHERE id = (SELECT min(id) FROM session WHERE {UNFINISHED})");
                let oldest_unfinished = if unfinished > 0 { counted(&oldest)?.1 } else { None };
                let (failed, _) = counted("SELECT count(*), NULL FROM session WHERE state = 'failed'")?;
                let (needs_attention, _) = counted("SELECT count(*), NULL FROM session WHERE state = 'needs_attention'")?;
                let (pending_events, oldest_event) =
                    counted("SELECT count(*), min(created_at) FROM outbox WHERE state = 'pending'")?;
                let (dead_events, _) = counted("SELECT count(*), NULL FROM outbox WHERE state = 'dead'")?;
                let mut log = connection.prepare_cached("SELECT log, size FROM audit_log ORDER BY log DESC LIMIT 1")?;
                let audit = log.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.next().transpose()?;
                Ok(StoreGauges {
                    unfinished,
                    oldest_unfinished,
                    failed,
                    needs_attention,
                    pending_events,
                    oldest_event,
                    dead_events,
                    audit,
                })
            })
            .await
    }

    async fn error_counts(&self) -> Result<ErrorCounts, StoreError> {
        self.reader.read(errors).await
    }

    async fn add_errors(&self, counts: ErrorCounts) -> Result<(), StoreError> {
        if counts.total == 0 {
            return Ok(());
        }
        self.writer
            .run(move |connection| add(connection, &counts))
            .await
            .map(drop)
    }

    async fn summary(&self) -> Result<Summary, StoreError> {
        self.reader
            .read(|connection| {
                // Read all in one transaction, because retention deletes sessions meanwhile.
                let connection = connection.unchecked_transaction()?;
                let (sessions, latency) = sessions(&connection)?;
                Ok(Summary {
                    sessions,
                    events: events(&connection)?,
                    errors: errors(&connection)?,
                    latency,
                })
            })
            .await
    }
}

/// Adds a pruned session and its events to the counters that `stats` reports.
pub(super) fn keep_pruned(
    connection: &Connection,
    state: &str,
    events: &[String],
    latency: Option<u64>,
) -> Result<(), StoreError> {
    let count = "INSERT INTO counter (name, value) VALUES (?1 || ?2, ?3) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value";
    let mut count = connection.prepare_cached(count)?;
    count.execute(params![PRUNED_SESSIONS, state, 1])?;
    for state in events {
        count.execute(params![PRUNED_EVENTS, state, 1])?;
    }
    if let Some(latency) = latency {
        count.execute(params![PRUNED_LATENCY, "", latency])?;
        let sort = "INSERT INTO pruned_latency (latency_us, sessions) VALUES (?1, 1) ON CONFLICT DO UPDATE SET sessions = sessions + 1";
        connection
            .prepare_cached(sort)?
            .execute([rounded(latency)])?;
    }
    Ok(())
}

/// Returns whether sessions were ever pruned. If so, audit records may belong to sessions that no
/// longer exist.
pub(super) fn has_pruned(connection: &Connection) -> Result<bool, StoreError> {
    Ok(!by_state(connection, PRUNED_SESSIONS)?.is_empty())
}

type ByState = BTreeMap<String, u64>;

/// Returns the number of pruned sessions or events in each state. `prefix` selects the counters.
fn by_state(connection: &Connection, prefix: &str) -> Result<ByState, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT substr(name, length(?1) + 1), value FROM counter WHERE name LIKE ?1 || '%'",
    )?;
    let counts = statement.query_map([prefix], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(counts.collect::<Result<_, _>>()?)
}

/// Counts all sessions and their latencies in one scan, because a store may have millions of
/// sessions.
fn sessions(connection: &Connection) -> Result<(ByState, LatencySummary), StoreError> {
    let mut states = by_state(connection, PRUNED_SESSIONS)?;
    let mut latencies = Latencies::default();
    let mut pruned = connection.prepare_cached(queries::SELECT_PRUNED_LATENCIES)?;
    let mut rows = pruned.query([])?;
    while let Some(row) = rows.next()? {
        latencies.add(row.get(0)?, row.get(1)?);
    }
    let sum = connection
        .prepare_cached("SELECT value FROM counter WHERE name = ?1")?
        .query_row([PRUNED_LATENCY], |row| row.get(0));
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

/// Counts the events in each state. Most are delivered, so that number is the total minus the other
/// states, which have indexes.
fn events(connection: &Connection) -> Result<ByState, StoreError> {
    let count = |sql: &str| {
        connection
            .prepare_cached(sql)?
            .query_row([], |row| row.get::<_, u64>(0))
    };
    let mut left = count(queries::COUNT_EVENTS)?;
    let mut states = by_state(connection, PRUNED_EVENTS)?;
    for (state, sql) in [
        ("pending", queries::COUNT_PENDING_EVENTS),
        ("dead", "SELECT count(*) FROM outbox WHERE state = 'dead'"),
        (
            "erased",
            "SELECT count(*) FROM outbox WHERE state = 'erased'",
        ),
    ] {
        let found = count(sql)?;
        left -= found;
        *states.entry(state.to_owned()).or_default() += found;
    }
    *states.entry("delivered".to_owned()).or_default() += left;
    states.retain(|_, count| *count > 0);
    Ok(states)
}
