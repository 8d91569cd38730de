//! The database's clock: what nodes compare (leases, schedules, retention) is this one clock's time.

use guestlane_runtime::{Clock, ReferenceClock};

use super::{
    Postgres,
    connection::{Connection, DbResult},
};
use crate::StoreError;
use guestlane_core::session::MAX_CLOCK_OFFSET;

/// An answer that took longer says too little of the moment at which it was given.
const MAX_ROUND_TRIP_MICROS: i64 = 1_000_000;

/// Sets `reference` to the database's time. A slow answer leaves it as it is, unless it was never set.
pub(super) fn measure(
    connection: &mut Connection,
    base: &Clock,
    reference: &ReferenceClock,
) -> DbResult<()> {
    let sent = base.monotonic().unix_micros();
    let there: i64 = connection.query_one("SELECT now_us()", &[])?.try_get(0)?;
    let round_trip = base.monotonic().unix_micros() - sent;
    if round_trip > MAX_ROUND_TRIP_MICROS && reference.wall_clock_offset().is_some() {
        return Ok(());
    }
    let time = guestlane_runtime::Timestamp::from_unix_micros;
    reference.set(time(there), time(sent + round_trip / 2));
    Ok(())
}

/// A node whose wall clock is wrong would sign tokens that the platform refuses: it does not start.
pub(super) fn is_close_enough(reference: &ReferenceClock) -> DbResult<()> {
    match reference.wall_clock_offset() {
        Some(offset) if !is_within_limit(offset) => Err(StoreError::ClockSkew(offset as f64 / 1e6)),
        Some(_) | None => Ok(()),
    }
}

fn is_within_limit(offset: i64) -> bool {
    u128::from(offset.unsigned_abs()) <= MAX_CLOCK_OFFSET.as_micros()
}

impl Postgres {
    /// Compares the clocks once more.
    pub(crate) async fn measure_clock(&self) -> Result<(), StoreError> {
        if !self.base.is_comparable() {
            return Ok(());
        }
        let (base, reference) = (self.base.clone(), self.reference.clone());
        self.urgent
            .ask(move |connection| measure(connection, &base, &reference))
            .await
    }

    /// How far this node's wall clock is ahead of the database's, in microseconds. `None` where they are not compared.
    pub(crate) fn clock_offset(&self) -> Option<i64> {
        self.reference.wall_clock_offset()
    }

    /// Whether this node may claim sessions, rows and deliveries, and delete what is old: its wall clock agrees with the database's.
    pub(crate) fn may_claim(&self) -> bool {
        self.clock_offset().is_none_or(is_within_limit)
    }
}
