//! The life of a signing key: a function of what stands in the store and of the time, and of nothing else.
//!
//! ```text
//! next ──▶ active ──▶ retiring ──▶ retired        revoked: from any of them, for ever
//! ```
//!
//! | State | since | published | signs | believed by [`verify`](super::verify()) |
//! |---|---|---|---|---|
//! | next | it was made | yes | no | no |
//! | active | its `active_from` | yes | what is new, and what it signed before | yes |
//! | retiring | its successor's `active_from` | yes | what it signed before | yes |
//! | retired | its last token has expired, and [`SKEW`] | no | what it signed before | no |
//! | revoked | somebody said so | no | see below | no |
//!
//! Nobody has to do anything for a key to go from one state to the next, and every process comes to the same answer at the same moment.
//!
//! «What it signed before» is the token of a session that was begun with it: the platform refuses an idempotency key that comes back with
//! another body, so the same bytes under the same key are how nothing is made twice. They are signed again by a key of any state. A
//! revoked key is left as soon as that is safe: a session whose present step surely was not done gets a fresh token by the active key,
//! and one whose present step the platform *may* have done sends the same bytes to find out (`SessionEngine::drive`).

use std::time::Duration;

use guestlane_genesys::Timestamp;
use serde::Serialize;

use super::{TOKEN_TTL, schedule::RotationPolicy};

/// How far clocks may differ.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Where a key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// Published, so that whoever verifies knows it before it signs.
    Next,
    /// It signs.
    Active,
    /// Another one signs, and its own tokens are still good.
    Retiring,
    /// Its last token has expired.
    Retired,
    /// Nobody may believe it any more.
    Revoked,
}

impl KeyState {
    /// The name on screens.
    pub fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Retiring => "retiring",
            Self::Retired => "retired",
            Self::Revoked => "revoked",
        }
    }
}

/// The moments that a key's life is made of. A new one comes into being only in ways that let it sign when it may: nobody outside can
/// make a key that signs before it was published long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyLifecycle {
    created_at: Timestamp,
    active_from: Timestamp,
    revoked_at: Option<Timestamp>,
}

impl KeyLifecycle {
    /// Of the first key of a store, and of the one that takes the place of a revoked one: nothing else can sign, so it signs at once.
    pub(super) fn active_now(now: Timestamp) -> Self {
        Self { created_at: now, active_from: now, revoked_at: None }
    }

    /// Of the key that comes next: published from now on, it signs when it was published long enough.
    pub(crate) fn next(schedule: &RotationPolicy, now: Timestamp) -> Self {
        Self { created_at: now, active_from: schedule.signs_from(now), revoked_at: None }
    }

    /// As the store has it.
    pub(crate) fn stored(created_at: Timestamp, active_from: Timestamp, revoked_at: Option<Timestamp>) -> Self {
        Self { created_at, active_from, revoked_at }
    }

    /// Since when it is published.
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// From when on it signs.
    pub fn active_from(&self) -> Timestamp {
        self.active_from
    }

    /// Since when nobody believes it.
    pub fn revoked_at(&self) -> Option<Timestamp> {
        self.revoked_at
    }

    /// Whether it is revoked. A clock that is set back makes no revoked key good again.
    pub fn is_revoked(&self) -> bool {
        self.revoked_at.is_some()
    }

    /// Whether it signed ever, or will if nobody revokes it.
    fn can_activate(&self) -> bool {
        self.revoked_at.is_none_or(|revoked_at| revoked_at > self.active_from)
    }
}

/// Which of these keys, in the order in which they sign, is the active one: the last that signs by now and is not revoked. Before the first
/// of them (a clock that was set back) it is the first. `None` only where every key is revoked.
pub(super) fn active(lives: &[KeyLifecycle], now: Timestamp) -> Option<usize> {
    let good = |(_, life): &(usize, &KeyLifecycle)| !life.is_revoked();
    let begun = lives.iter().enumerate().filter(good).filter(|(_, life)| life.active_from <= now).map(|(at, _)| at).next_back();
    begun.or_else(|| lives.iter().position(|life| !life.is_revoked()))
}

/// Until when a key's tokens can be good: its successor's `active_from`, the life of a token, and [`SKEW`]. `None` where nobody follows it yet.
pub(super) fn until(lives: &[KeyLifecycle], at: usize) -> Option<Timestamp> {
    let successor = lives.iter().skip(at + 1).find(|life| life.can_activate())?;
    Some(successor.active_from + TOKEN_TTL + CLOCK_SKEW)
}

/// Where a key is in its life, when `active` is the one that signs.
pub(super) fn state(lives: &[KeyLifecycle], at: usize, active: Option<usize>, now: Timestamp) -> KeyState {
    match lives.get(at) {
        Some(life) if life.is_revoked() => KeyState::Revoked,
        Some(_) if active == Some(at) => KeyState::Active,
        Some(life) if life.active_from > now => KeyState::Next,
        Some(_) if until(lives, at).is_some_and(|until| now < until) => KeyState::Retiring,
        Some(_) | None => KeyState::Retired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_micros(seconds * 1_000_000)
    }

    fn life(created: i64, from: i64) -> KeyLifecycle {
        KeyLifecycle::stored(at(created), at(from), None)
    }

    fn revoked(created: i64, from: i64, revoked: i64) -> KeyLifecycle {
        KeyLifecycle::stored(at(created), at(from), Some(at(revoked)))
    }

    fn states(lives: &[KeyLifecycle], now: i64) -> Vec<&'static str> {
        (0..lives.len()).map(|key| state(lives, key, active(lives, at(now)), at(now)).name()).collect()
    }

    #[test]
    fn a_key_is_next_then_active_then_retiring_then_retired_by_time_alone() {
        let lives = [life(0, 0), life(1000, 5000)];
        assert_eq!(states(&lives, 1000), ["active", "next"]);
        assert_eq!(states(&lives, 4999), ["active", "next"]);
        assert_eq!(states(&lives, 5000), ["retiring", "active"]);
        assert_eq!(states(&lives, 5359), ["retiring", "active"], "300 s of a token's life, 60 s of skew");
        assert_eq!(states(&lives, 5360), ["retired", "active"]);
    }

    #[test]
    fn a_clock_that_was_set_back_finds_a_key_that_signs() {
        assert_eq!(states(&[life(1000, 1000)], 0), ["active"]);
        assert_eq!(states(&[life(1000, 1000), life(2000, 3000)], 0), ["active", "next"]);
        assert_eq!(states(&[revoked(1000, 1000, 1500), life(1500, 1500)], 0), ["revoked", "active"], "and revoked stays revoked");
    }

    #[test]
    fn a_revoked_key_is_nothing_else_and_what_never_signed_retires_nobody() {
        assert_eq!(states(&[life(0, 0), revoked(100, 5000, 200)], 6000), ["active", "revoked"]);
        let lives = [life(0, 0), revoked(100, 1000, 1100), life(1100, 1100)];
        assert_eq!(states(&lives, 1100), ["retiring", "revoked", "active"]);
        assert_eq!(states(&lives, 1359), ["retiring", "revoked", "active"], "the revoked one took over at 1000");
        assert_eq!(states(&lives, 1360), ["retired", "revoked", "active"]);
    }
}
