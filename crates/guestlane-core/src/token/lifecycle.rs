//! The lifecycle of a signing key: a pure function of the key's row in the store and the time.
//!
//! ```text
//! next ──▶ active ──▶ retiring ──▶ retired        revoked: from any state, permanent
//! ```
//!
//! | State | since | published | signs | trusted by [`verify`](super::verify()) |
//! |---|---|---|---|---|
//! | next | its creation | yes | no | no |
//! | active | its `active_from` | yes | new tokens, and earlier ones again | yes |
//! | retiring | its successor's `active_from` | yes | earlier tokens again | yes |
//! | retired | its last token's expiry and [`CLOCK_SKEW`] | no | earlier tokens again | no |
//! | revoked | its revocation | no | see below | no |
//!
//! No process has to act for a key to change its state, and all processes compute the same state at
//! the same time.
//!
//! An earlier token belongs to a session that began with the key. The platform refuses a repeated
//! idempotency key with another body, so repeating the same bytes is how no step takes effect
//! twice. A key of any state signs such a token again.
//!
//! A session abandons a revoked key as soon as that is safe. If the present step was surely not
//! done, the session gets a fresh token of the active key. If its outcome is unknown, the session
//! sends the same bytes to learn it (`SessionEngine::run_saga`).

use std::time::Duration;

use guestlane_runtime::Timestamp;
use serde::Serialize;

use super::{TOKEN_TTL, schedule::RotationPolicy};

/// Largest tolerated difference between two clocks.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// State of a signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// The key is published, so that verifiers know it before it signs.
    Next,
    /// The key signs new tokens.
    Active,
    /// Another key signs, but tokens of this key are still valid.
    Retiring,
    /// The last token of the key has expired.
    Retired,
    /// The key was revoked, and its tokens are no longer trusted.
    Revoked,
}

impl KeyState {
    /// Returns the state's name in output.
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

/// The times that determine a key's state.
///
/// Other crates cannot choose these times, so no key signs before it was published long enough.
/// Exceptions are the first key and a replacement of a revoked one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyLifecycle {
    created_at: Timestamp,
    active_from: Timestamp,
    revoked_at: Option<Timestamp>,
}

impl KeyLifecycle {
    /// Returns the lifecycle of a store's first key, or of the replacement of a revoked key. It
    /// signs at once, because no other key can.
    pub(super) fn active_now(now: Timestamp) -> Self {
        Self {
            created_at: now,
            active_from: now,
            revoked_at: None,
        }
    }

    /// Returns the lifecycle of the next key, published now and active after the publish lead time.
    pub fn next(schedule: &RotationPolicy, now: Timestamp) -> Self {
        Self {
            created_at: now,
            active_from: schedule.signs_from(now),
            revoked_at: None,
        }
    }

    /// Restores a lifecycle from the store.
    pub fn stored(
        created_at: Timestamp,
        active_from: Timestamp,
        revoked_at: Option<Timestamp>,
    ) -> Self {
        Self {
            created_at,
            active_from,
            revoked_at,
        }
    }

    /// Returns when the key was created and published.
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// Returns when the key starts to sign.
    pub fn active_from(&self) -> Timestamp {
        self.active_from
    }

    /// Returns when the key was revoked.
    pub fn revoked_at(&self) -> Option<Timestamp> {
        self.revoked_at
    }

    /// Whether the key is revoked. A wall clock that moves backwards does not make a revoked key
    /// valid again.
    pub fn is_revoked(&self) -> bool {
        self.revoked_at.is_some()
    }

    /// Whether the key was ever active, or will be unless it is revoked.
    fn can_activate(&self) -> bool {
        self.revoked_at
            .is_none_or(|revoked_at| revoked_at > self.active_from)
    }
}

/// Returns the index of the active key. `lives` must be in the order in which keys sign.
///
/// The active key is the last one that is not revoked and whose `active_from` has passed. If the
/// wall clock moved backwards before all of these, the first key that is not revoked is active.
/// Returns `None` if all keys are revoked.
pub(super) fn active(lives: &[KeyLifecycle], now: Timestamp) -> Option<usize> {
    let good = |(_, life): &(usize, &KeyLifecycle)| !life.is_revoked();
    let begun = lives
        .iter()
        .enumerate()
        .filter(good)
        .filter(|(_, life)| life.active_from <= now)
        .map(|(at, _)| at)
        .next_back();
    begun.or_else(|| lives.iter().position(|life| !life.is_revoked()))
}

/// Returns until when a key's tokens can be valid: its successor's `active_from`, a token's
/// lifetime, and [`CLOCK_SKEW`].
///
/// Returns `None` if the key has no successor yet.
pub(super) fn until(lives: &[KeyLifecycle], at: usize) -> Option<Timestamp> {
    let successor = lives.iter().skip(at + 1).find(|life| life.can_activate())?;
    Some(successor.active_from + TOKEN_TTL + CLOCK_SKEW)
}

/// Returns the state of the key at index `at`, if `active` is the index of the active key.
pub(super) fn state(
    lives: &[KeyLifecycle],
    at: usize,
    active: Option<usize>,
    now: Timestamp,
) -> KeyState {
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
        (0..lives.len())
            .map(|key| state(lives, key, active(lives, at(now)), at(now)).name())
            .collect()
    }

    #[test]
    fn key_state_advances_with_time_alone() {
        let lives = [life(0, 0), life(1000, 5000)];
        assert_eq!(states(&lives, 1000), ["active", "next"]);
        assert_eq!(states(&lives, 4999), ["active", "next"]);
        assert_eq!(states(&lives, 5000), ["retiring", "active"]);
        assert_eq!(
            states(&lives, 5359),
            ["retiring", "active"],
            "300 s of a token's life, 60 s of skew"
        );
        assert_eq!(states(&lives, 5360), ["retired", "active"]);
    }

    #[test]
    fn clock_set_back_still_finds_an_active_key() {
        assert_eq!(states(&[life(1000, 1000)], 0), ["active"]);
        assert_eq!(
            states(&[life(1000, 1000), life(2000, 3000)], 0),
            ["active", "next"]
        );
        assert_eq!(
            states(&[revoked(1000, 1000, 1500), life(1500, 1500)], 0),
            ["revoked", "active"],
            "and revoked stays revoked"
        );
    }

    #[test]
    fn revoked_key_retires_its_predecessor_only_if_it_signed() {
        assert_eq!(
            states(&[life(0, 0), revoked(100, 5000, 200)], 6000),
            ["active", "revoked"]
        );
        let lives = [life(0, 0), revoked(100, 1000, 1100), life(1100, 1100)];
        assert_eq!(states(&lives, 1100), ["retiring", "revoked", "active"]);
        assert_eq!(
            states(&lives, 1359),
            ["retiring", "revoked", "active"],
            "the revoked one took over at 1000"
        );
        assert_eq!(states(&lives, 1360), ["retired", "revoked", "active"]);
    }
}
