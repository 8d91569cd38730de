//! The time that retention trusts. A wall clock that is wrong for a moment must not delete the
//! records of idempotency keys.
//!
//! A store in a file keeps a [`Mark`]. It advances with the machine's time since boot, which cannot
//! be set. Time that passed while the machine was off is caught up at twice the speed of time,
//! while the wall clock is ahead. Rows are stamped with the time that the mark will have caught up
//! to. A row that was written since boot therefore never appears older than it is.
//!
//! On PostgreSQL the database's clock is trusted, but only while the node's own clock agrees with
//! it.
//!
//! In both stores the [`Horizon`], before which sessions are deleted, moves at most
//! [`Horizon::SPEED`] times as fast as that time.
#![cfg_attr(
    not(feature = "sqlite"),
    expect(dead_code, reason = "only a file needs the mark")
)]

use std::time::Duration;

use guestlane_runtime::{Boot, Timestamp};

/// The property in which a store in a file keeps its [`Mark`].
pub(super) const MARK: &str = "retention_mark";

/// The property in which a store keeps its [`Horizon`].
pub(super) const HORIZON: &str = "retention_horizon";

/// A point of trusted time, and the machine's time since boot at that point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    time: Timestamp,
    boot: Boot,
    /// How far the wall clock was ahead at boot: time that passed while the machine was off, or an
    /// error of the clock.
    owed: Duration,
}

impl Mark {
    /// Maximum age of a mark before it is written again.
    const LONGEST_KEPT: Duration = Duration::from_secs(300);

    /// Returns the first mark of a store. `newest` is the newest time in the store; a wall clock
    /// that is later is not trusted.
    pub(super) fn first(newest: Option<Timestamp>, wall: Timestamp, boot: Boot) -> Self {
        let time = newest.map_or(wall, |newest| newest.min(wall));
        Self {
            time,
            boot,
            owed: wall.since(time),
        }
    }

    /// Returns the mark, advanced to now.
    pub(super) fn advanced(self, wall: Timestamp, boot: Boot) -> Self {
        if boot.id != self.boot.id {
            return Self {
                time: self.time,
                boot,
                owed: wall.since(self.time),
            };
        }
        let passed = boot.elapsed.saturating_sub(self.boot.elapsed);
        // A wall clock that was wrong at boot and is right now leaves nothing to catch up.
        let owed = self.owed.min(wall.since(self.time + passed));
        let paid = owed.min(passed);
        Self {
            time: self.time + passed + paid,
            boot,
            owed: owed - paid,
        }
    }

    /// Returns the trusted time, from which the retention period is counted back.
    pub(super) fn time(self) -> Timestamp {
        self.time
    }

    /// Returns the stamp of a row that is written now. It includes the time that is still to be
    /// caught up; otherwise the row would age at twice the speed.
    pub(super) fn stamp(self) -> Timestamp {
        self.time + self.owed
    }

    /// Whether the mark must be written. Without a recent mark, time that passed while the machine
    /// ran would count as time that it was off.
    pub(super) fn is_stale(self, now: Self) -> bool {
        self.boot.id != now.boot.id
            || now.boot.elapsed.saturating_sub(self.boot.elapsed) >= Self::LONGEST_KEPT
    }

    pub(super) fn to_text(self) -> String {
        let elapsed = self.boot.elapsed.as_micros();
        format!(
            "{} {:032x} {elapsed} {}",
            self.time.unix_micros(),
            self.boot.id,
            self.owed.as_micros()
        )
    }

    pub(super) fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let time = Timestamp::from_unix_micros(parts.next()?.parse().ok()?);
        let id = u128::from_str_radix(parts.next()?, 16).ok()?;
        let elapsed = Duration::from_micros(parts.next()?.parse().ok()?);
        let owed = Duration::from_micros(parts.next()?.parse().ok()?);
        Some(Self {
            time,
            boot: Boot { id, elapsed },
            owed,
        })
    }
}

/// The time before which retention deletes, and when the horizon reached it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Horizon {
    until: Timestamp,
    advanced_at: Timestamp,
}

impl Horizon {
    /// Speed of the horizon relative to time: one hour deletes at most the sessions of one day.
    const SPEED: u32 = 24;

    /// Maximum length of one step, however long ago the last one was.
    const LONGEST_STEP: Duration = Duration::from_secs(48 * 3600);

    /// Returns the horizon after one more step toward `target`, at the trusted time `now`. The
    /// first horizon starts at the `oldest` session.
    pub(super) fn advanced(
        before: Option<Self>,
        oldest: Timestamp,
        target: Timestamp,
        now: Timestamp,
    ) -> Self {
        let (from, step) = match before {
            Some(before) => {
                let passed = now.since(before.advanced_at);
                (
                    before.until,
                    passed.saturating_mul(Self::SPEED).min(Self::LONGEST_STEP),
                )
            }
            None => (oldest, Self::LONGEST_STEP),
        };
        Self {
            until: target.min(from + step),
            advanced_at: now,
        }
    }

    pub(super) fn until(self) -> Timestamp {
        self.until
    }

    pub(super) fn to_text(self) -> String {
        format!(
            "{} {}",
            self.until.unix_micros(),
            self.advanced_at.unix_micros()
        )
    }

    pub(super) fn from_text(text: &str) -> Option<Self> {
        let (until, advanced_at) = text.split_once(' ')?;
        let time = |text: &str| text.parse().ok().map(Timestamp::from_unix_micros);
        Some(Self {
            until: time(until)?,
            advanced_at: time(advanced_at)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: i64 = 86_400_000_000;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_unix_micros(1_795_361_029_000_000 + micros)
    }

    fn boot(id: u128, hours: u32) -> Boot {
        Boot {
            id,
            elapsed: HOUR * hours,
        }
    }

    #[test]
    fn clock_jumps_do_not_move_trusted_time() {
        let mark = Mark::first(Some(at(0)), at(0), boot(1, 5));
        for wall in [at(40 * DAY), at(DAY / 24)] {
            assert_eq!(mark.advanced(wall, boot(1, 6)).time(), at(DAY / 24));
        }
        let back = at(-50 * DAY);
        assert_eq!(mark.advanced(back, boot(1, 6)).time(), at(DAY / 24));
    }

    #[test]
    fn downtime_is_caught_up_at_twice_the_speed() {
        let mark = Mark::first(Some(at(0)), at(0), boot(1, 500));
        let wall = at(3 * DAY);
        let started = mark.advanced(wall, boot(2, 0));
        assert_eq!(started.time(), at(0));
        let wall = at(4 * DAY);
        assert_eq!(started.advanced(wall, boot(2, 24)).time(), at(2 * DAY));
        let wall = at(7 * DAY);
        assert_eq!(started.advanced(wall, boot(2, 96)).time(), wall);
    }

    #[test]
    fn clock_wrong_at_boot_is_not_caught_up_once_corrected() {
        let mark = Mark::first(Some(at(0)), at(0), boot(1, 5));
        let started = mark.advanced(at(40 * DAY), boot(2, 0));
        let right = started.advanced(at(DAY / 24), boot(2, 1));
        assert_eq!((right.time(), right.stamp()), (at(DAY / 24), at(DAY / 24)));
    }

    #[test]
    fn first_mark_starts_at_the_newest_row_time_of_the_store() {
        let wall = at(40 * DAY);
        let mark = Mark::first(Some(at(0)), wall, boot(1, 0));
        assert_eq!(mark.time(), at(0));
        assert_eq!(Mark::first(None, wall, boot(1, 0)).time(), wall);
    }

    #[test]
    fn horizon_advances_by_at_most_a_day_per_hour() {
        let first = Horizon::advanced(None, at(0), at(100 * DAY), at(130 * DAY));
        assert_eq!(first.until(), at(2 * DAY));
        let next = Horizon::advanced(Some(first), at(0), at(100 * DAY), at(130 * DAY + DAY / 24));
        assert_eq!(next.until(), at(3 * DAY));
        let last = Horizon::advanced(Some(first), at(0), at(DAY), at(131 * DAY));
        assert_eq!(last.until(), at(DAY), "not past its target");
    }

    #[test]
    fn marks_and_horizons_round_trip_as_text() {
        let mark = Mark::first(Some(at(0)), at(DAY), boot(7, 3));
        assert_eq!(Mark::from_text(&mark.to_text()), Some(mark));
        let horizon = Horizon::advanced(None, at(0), at(DAY), at(DAY));
        assert_eq!(Horizon::from_text(&horizon.to_text()), Some(horizon));
        assert_eq!(
            (Mark::from_text("1 2"), Horizon::from_text("x y")),
            (None, None)
        );
    }

    proptest! {
        /// Whatever the wall clock shows, the trusted time advances as time does between two boots.
        #[test]
        fn trusted_time_equals_elapsed_time_between_boots(steps in prop::collection::vec((0_u32..100, -50_i64..50), 1..40)) {
            let (mut hours, mut mark) = (0, Mark::first(None, at(0), boot(1, 0)));
            for (passed, off) in steps {
                hours += passed;
                let truth = at(0) + HOUR * hours;
                let wall = Timestamp::from_unix_micros(truth.unix_micros() + off * DAY);
                mark = mark.advanced(wall, boot(1, hours));
                prop_assert_eq!(mark.time(), truth);
            }
        }

        /// Whatever the wall clock shows, a row that was written since boot never appears older
        /// than it is. A row from before ages at most at twice the speed of time.
        #[test]
        fn no_row_ages_faster_than_twice_real_time(steps in prop::collection::vec((0_u32..100, -50_i64..50, any::<bool>()), 1..60)) {
            let (mut hours, mut since_boot, mut id) = (0, 0, 1);
            let mut mark = Mark::first(None, at(0), boot(1, 0));
            let mut rows: Vec<(Timestamp, u32, u128)> = Vec::new();
            for (passed, off, restarts) in steps {
                hours += passed;
                since_boot += passed;
                if restarts {
                    (id, since_boot) = (id + 1, 0);
                }
                let truth = at(0) + HOUR * hours;
                let wall = Timestamp::from_unix_micros(truth.unix_micros() + off * DAY);
                mark = mark.advanced(wall, boot(id, since_boot));
                for (stamp, written, start) in &rows {
                    let speed = if *start == id { 1 } else { 2 };
                    prop_assert!(mark.time().since(*stamp) <= HOUR * (hours - written) * speed);
                }
                rows.push((mark.stamp(), hours, id));
            }
        }
    }
}
