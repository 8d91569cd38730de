//! The trusted time of a store in a file, and the horizon before which retention deletes.

use std::time::Duration;

use async_trait::async_trait;
use guestlane_core::session::SessionId;
use guestlane_runtime::{Clock, Timestamp};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::{Sqlite, prune};
use crate::{
    Pruned, Retention, StoreError, queries,
    trusted_time::{HORIZON, Horizon, MARK, Mark},
};

/// Returns the retention mark of the store, advanced to now if it is stale. A mark that is not
/// stale is not written, so that a process that only reads changes nothing.
pub(super) fn begin(connection: &mut Connection, clock: &Clock) -> Result<Mark, StoreError> {
    match property(connection, MARK)?.and_then(|text| Mark::from_text(&text)) {
        Some(mark) if !mark.is_stale(mark.advanced(clock.now(), clock.boot())) => Ok(mark),
        _ => {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mark = keep_mark(&transaction, clock)?;
            transaction.commit()?;
            Ok(mark)
        }
    }
}

/// Returns the retention mark, advanced to now, without writing it.
pub(super) fn as_it_is(connection: &Connection, clock: &Clock) -> Result<Mark, StoreError> {
    let (wall, boot) = (clock.now(), clock.boot());
    Ok(
        match property(connection, MARK)?.and_then(|text| Mark::from_text(&text)) {
            Some(mark) => mark.advanced(wall, boot),
            None => Mark::first(newest(connection)?, wall, boot),
        },
    )
}

/// Advances the retention mark to now and writes it.
fn keep_mark(connection: &Connection, clock: &Clock) -> Result<Mark, StoreError> {
    let mark = as_it_is(connection, clock)?;
    set_property(connection, MARK, &mark.to_text())?;
    Ok(mark)
}

#[async_trait]
impl Retention for Sqlite {
    async fn advance_retention(
        &self,
        keep: Option<Duration>,
    ) -> Result<Option<Timestamp>, StoreError> {
        let clock = self.clock.clone();
        let advanced = self.writer.run(move |tx| {
            keep_mark(tx, &clock)?;
            let Some(keep) = keep else { return Ok(None) };
            let now = tx.trusted_now();
            let before = property(tx, HORIZON)?.and_then(|text| Horizon::from_text(&text));
            let oldest = oldest(tx)?.unwrap_or(now);
            let horizon = Horizon::advanced(before, oldest, now - keep, now);
            set_property(tx, HORIZON, &horizon.to_text())?;
            Ok(Some(horizon.until()))
        });
        Ok(advanced.await?.value)
    }

    async fn prune(
        &self,
        from: Option<SessionId>,
        until: Timestamp,
        limit: u32,
    ) -> Result<Pruned, StoreError> {
        // Search on the reader connection, so that retained sessions cost no write transaction.
        let found = self
            .reader
            .read(move |connection| prune::find_prunable(connection, from, until, limit))
            .await?;
        let (next, old) = found;
        if old.is_empty() {
            return Ok(Pruned {
                next,
                ..Pruned::default()
            });
        }
        let pruned = self.writer.run(move |tx| {
            let mut pruned = Pruned {
                next,
                ..Pruned::default()
            };
            for id in old {
                prune::delete(tx, id, until, &mut pruned)?;
            }
            Ok(pruned)
        });
        Ok(pruned.await?.value)
    }
}

fn newest(connection: &Connection) -> Result<Option<Timestamp>, StoreError> {
    time(
        connection,
        "SELECT admitted_at FROM session ORDER BY id DESC LIMIT 1",
    )
}

fn oldest(connection: &Connection) -> Result<Option<Timestamp>, StoreError> {
    time(connection, queries::SELECT_OLDEST_SESSION)
}

fn time(connection: &Connection, sql: &str) -> Result<Option<Timestamp>, StoreError> {
    let found = connection
        .prepare_cached(sql)?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(found.map(Timestamp::from_unix_micros))
}

pub(super) fn property(connection: &Connection, name: &str) -> Result<Option<String>, StoreError> {
    let mut select = connection.prepare_cached("SELECT value FROM property WHERE name = ?1")?;
    Ok(select.query_row([name], |row| row.get(0)).optional()?)
}

fn set_property(connection: &Connection, name: &str, value: &str) -> Result<(), StoreError> {
    let set = "INSERT INTO property (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    connection.prepare_cached(set)?.execute([name, value])?;
    Ok(())
}
