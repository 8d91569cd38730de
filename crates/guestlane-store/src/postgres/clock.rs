//! The database's clock. All times that nodes compare (leases, schedules, retention) are this
//! clock's time.

use guestlane_runtime::{Clock, ReferenceClock};

use super::{
    Postgres,
    connection::{Connection, DbResult},
};
use crate::StoreError;
use guestlane_core::session::MAX_CLOCK_OFFSET;

/// Longest round trip that gives a usable measurement. A slower response does not show precisely
/// when the database read its clock.
const MAX_ROUND_TRIP_MICROS: i64 = 1_000_000;

/// Sets `reference` to the database's time. Ignores a response slower than
/// [`MAX_ROUND_TRIP_MICROS`], unless `reference` was never set.
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

/// Fails if this node's wall clock differs too much from the database's. Such a node would sign
/// tokens that the platform rejects, so it does not start.
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
    /// Returns how far this node's wall clock is ahead of the database's, in microseconds. Returns
    /// `None` where the clocks are not compared.
    pub(super) fn offset_micros(&self) -> Option<i64> {
        self.reference.wall_clock_offset()
    }

    /// Whether this node's wall clock is close enough to the database's to claim sessions, batch
    /// rows and deliveries, and to delete old rows.
    pub(super) fn is_clock_close(&self) -> bool {
        self.offset_micros().is_none_or(is_within_limit)
    }
}
