//! Counts that outlive the process (requirement R12, docs/requirements.md), and the latency summary
//! of sessions (requirement R13, docs/requirements.md).

use std::collections::BTreeMap;

use async_trait::async_trait;
use guestlane_genesys::ErrorCounts;
use guestlane_runtime::Timestamp;

use super::{
    Postgres,
    connection::{Connection, DbResult},
    log::number_of,
    rows::as_i64,
    sessions::count,
    writer::WriteOp,
};
use crate::{
    LatencySummary, Statistics, StoreError, StoreGauges, Summary, queries,
    row::UNFINISHED,
    summary::{self, Latencies, PRUNED_EVENTS, PRUNED_LATENCY, PRUNED_SESSIONS, rounded},
};

type ByState = BTreeMap<String, u64>;

#[async_trait]
impl Statistics for Postgres {
    async fn gauges(&self) -> Result<StoreGauges, StoreError> {
        // One round trip. IDs are in the order of admission.
        let sql = format!(
            "SELECT (SELECT count(*) FROM session WHERE {UNFINISHED}), \
             (SELECT admitted_at FROM session WHERE {UNFINISHED} ORDER BY admitted_at LIMIT 1), \
             (SELECT count(*) FROM session WHERE state = 'failed'), (SELECT count(*) FROM session WHERE state = 'needs_attention'), \
             (SELECT count(*) FROM outbox WHERE state = 'pending'), (SELECT min(created_at) FROM outbox WHERE state = 'pending'), \
             (SELECT count(*) FROM outbox WHERE state = 'dead')"
        );
        let home = self.home.id;
        self.workers
            .read(move |connection| {
                let row = connection.query_one(&sql, &[])?;
                let count =
                    |index| Ok::<_, StoreError>(row.try_get::<_, i64>(index)?.unsigned_abs());
                let moment = |index| {
                    Ok::<_, StoreError>(
                        row.try_get::<_, Option<i64>>(index)?
                            .map(Timestamp::from_unix_micros),
                    )
                };
                let log =
                    "SELECT log, size FROM audit_log WHERE home = $1 ORDER BY log DESC LIMIT 1";
                let audit = connection.query_opt(log, &[&home])?;
                let audit = audit
                    .map(|row| {
                        Ok::<_, StoreError>((
                            number_of(row.try_get(0)?)?,
                            row.try_get::<_, i64>(1)?.unsigned_abs(),
                        ))
                    })
                    .transpose()?;
                Ok(StoreGauges {
                    unfinished: count(0)?,
                    oldest_unfinished: moment(1)?,
                    failed: count(2)?,
                    needs_attention: count(3)?,
                    pending_events: count(4)?,
                    oldest_event: moment(5)?,
                    dead_events: count(6)?,
                    audit,
                })
            })
            .await
    }

    async fn error_counts(&self) -> Result<ErrorCounts, StoreError> {
        self.workers.read(errors).await
    }

    async fn add_errors(&self, counts: ErrorCounts) -> Result<(), StoreError> {
        if counts.total == 0 {
            return Ok(());
        }
        self.writer
            .write(WriteOp::AppendRecord(None, counts))
            .await
            .map(drop)
    }

    async fn summary(&self) -> Result<Summary, StoreError> {
        self.workers
            .read(|connection| {
                // Use one snapshot for all queries, because retention deletes sessions meanwhile.
                connection.within(
                    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
                    |connection| {
                        let (sessions, latency) = sessions(connection)?;
                        let summary = Summary {
                            sessions,
                            events: events(connection)?,
                            errors: errors(connection)?,
                            latency,
                        };
                        connection.batch("COMMIT")?;
                        Ok(summary)
                    },
                )
            })
            .await
    }
}

fn errors(connection: &mut Connection) -> DbResult<ErrorCounts> {
    let counts = by_name(
        connection,
        "SELECT name, sum(value)::bigint FROM counter GROUP BY name",
    )?;
    Ok(summary::errors_of(&counts))
}

fn by_name(connection: &mut Connection, sql: &str) -> DbResult<ByState> {
    let rows = connection.query(sql, &[])?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get::<_, i64>(1)?.unsigned_abs())))
        .collect()
}

/// Adds deleted sessions and their events to the counts that `stats` reports. These counts belong
/// to no audit log, so their `log` is 0.
pub(super) fn keep_pruned(
    tx: &mut Connection,
    sessions: &ByState,
    events: &ByState,
    latencies: &[u64],
) -> DbResult<()> {
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    let of = |prefix: &str, by_state: &ByState| -> Vec<_> {
        by_state
            .iter()
            .map(|(state, count)| (format!("{prefix}{state}"), as_i64(*count)))
            .collect()
    };
    counts.extend(of(PRUNED_SESSIONS, sessions));
    counts.extend(of(PRUNED_EVENTS, events));
    let sum: u64 = latencies.iter().sum();
    if sum > 0 {
        counts.insert(PRUNED_LATENCY.to_owned(), as_i64(sum));
    }
    let (names, values): (Vec<String>, Vec<i64>) = counts.into_iter().unzip();
    let add = "INSERT INTO counter (log, name, value) SELECT 0, name, value FROM unnest($1::text[], $2::bigint[]) AS t (name, value) \
         ON CONFLICT (log, name) DO UPDATE SET value = counter.value + excluded.value";
    tx.execute(add, &[&names, &values])?;
    let rounded: Vec<i64> = latencies
        .iter()
        .map(|latency| as_i64(rounded(*latency)))
        .collect();
    let add = "INSERT INTO pruned_latency (latency_us, sessions) SELECT latency, count(*) FROM unnest($1::bigint[]) AS t (latency) \
         GROUP BY latency ORDER BY latency ON CONFLICT (latency_us) DO UPDATE SET sessions = pruned_latency.sessions + excluded.sessions";
    tx.execute(add, &[&rounded]).map(drop)
}

/// Whether sessions were ever pruned, so that a record's session may be missing.
pub(super) fn has_pruned(connection: &mut Connection) -> DbResult<bool> {
    Ok(!by_state(connection, PRUNED_SESSIONS)?.is_empty())
}

/// Returns the counts whose names begin with `prefix`, by the rest of the name.
fn by_state(connection: &mut Connection, prefix: &str) -> DbResult<ByState> {
    let counts = by_name(
        connection,
        "SELECT name, sum(value)::bigint FROM counter GROUP BY name",
    )?;
    Ok(counts
        .into_iter()
        .filter_map(|(name, count)| Some((name.strip_prefix(prefix)?.to_owned(), count)))
        .collect())
}

/// Counts all sessions in the database, because a store may have millions.
fn sessions(connection: &mut Connection) -> DbResult<(ByState, LatencySummary)> {
    let mut states = by_state(connection, PRUNED_SESSIONS)?;
    for (state, found) in by_name(
        connection,
        "SELECT state, count(*) FROM session GROUP BY state",
    )? {
        *states.entry(state).or_default() += found;
    }
    let mut latencies = Latencies::default();
    let sum = connection.query_one(
        "SELECT coalesce(sum(value), 0)::bigint FROM counter WHERE name = $1",
        &[&PRUNED_LATENCY],
    )?;
    latencies.sum = sum.try_get::<_, i64>(0)?.unsigned_abs();
    for row in connection.query(queries::SELECT_PRUNED_LATENCIES, &[])? {
        latencies.add(
            row.try_get::<_, i64>(0)?.unsigned_abs(),
            row.try_get::<_, i64>(1)?.unsigned_abs(),
        );
    }
    let kept = "SELECT latency_us, count(*), sum(latency_us)::bigint FROM session WHERE latency_us IS NOT NULL GROUP BY latency_us";
    for row in connection.query(kept, &[])? {
        latencies.sum += row.try_get::<_, i64>(2)?.unsigned_abs();
        latencies.add(
            row.try_get::<_, i64>(0)?.unsigned_abs(),
            row.try_get::<_, i64>(1)?.unsigned_abs(),
        );
    }
    Ok((states, latencies.summary()))
}

/// Counts the events by state. Most are delivered and no index covers them. Their number is the
/// total minus the others, which have indexes.
fn events(connection: &mut Connection) -> DbResult<ByState> {
    let mut left = count(connection, queries::COUNT_EVENTS, &[])?;
    let mut states = by_state(connection, PRUNED_EVENTS)?;
    for state in ["pending", "dead", "erased"] {
        let found = count(
            connection,
            &format!("SELECT count(*) FROM outbox WHERE state = '{state}'"),
            &[],
        )?;
        left -= found;
        *states.entry(state.to_owned()).or_default() += found;
    }
    *states.entry("delivered".to_owned()).or_default() += left;
    states.retain(|_, count| *count > 0);
    Ok(states)
}
