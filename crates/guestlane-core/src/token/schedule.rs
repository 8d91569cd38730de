//! The rotation policy of signing keys.

use std::time::Duration;

use guestlane_runtime::Timestamp;

use super::{CLOCK_SKEW, TOKEN_TTL};

/// How long a key is published before it signs, and after which age it is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotationPolicy {
    publication_period: Duration,
    rotation_interval_seconds: Option<Duration>,
}

/// Why a rotation policy is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRotationPolicy {
    /// Running processes, or verifiers whose clocks differ, would not know the key in time.
    #[error("is shorter than 1min: a key would sign before other processes and verifiers know it")]
    PublishLeadTooShort,
    /// Before another rotation, the next key must be published and the tokens of the previous key
    /// expired.
    #[error("is not longer than the publish lead time plus the lifetime of a token (5min)")]
    RotationTooFrequent,
}

/// Time until every running process serves a new key. Processes read the store every second. A
/// verifier that fetched the key set just before caches it from then on.
const PROPAGATION_DELAY: Duration = Duration::from_secs(10);

impl Default for RotationPolicy {
    /// Publishes a key for a day before it signs, without automatic rotation.
    fn default() -> Self {
        Self {
            publication_period: Duration::from_secs(24 * 3600),
            rotation_interval_seconds: None,
        }
    }
}

impl RotationPolicy {
    /// Creates a policy.
    ///
    /// `publish_before` must be at least as long as verifiers cache the key set. Without
    /// `rotate_every`, keys rotate only on an operator's command.
    ///
    /// # Errors
    /// Returns [`InvalidRotationPolicy`] if the durations cannot be kept.
    pub fn new(
        publish_before: Duration,
        rotate_every: Option<Duration>,
    ) -> Result<Self, InvalidRotationPolicy> {
        if publish_before < CLOCK_SKEW {
            return Err(InvalidRotationPolicy::PublishLeadTooShort);
        }
        if rotate_every.is_some_and(|every| every <= publish_before + TOKEN_TTL) {
            return Err(InvalidRotationPolicy::RotationTooFrequent);
        }
        Ok(Self {
            publication_period: publish_before,
            rotation_interval_seconds: rotate_every,
        })
    }

    /// Returns how long a key is published before it signs.
    pub fn publish_lead_time(&self) -> Duration {
        self.publication_period
    }

    /// Returns the age at which the active key is replaced, or `None` if keys rotate only on
    /// command.
    pub fn rotation_interval(&self) -> Option<Duration> {
        self.rotation_interval_seconds
    }

    /// Whether the successor of a key that is active since `active_since` must be created by now.
    pub fn is_due(&self, active_since: Timestamp, now: Timestamp) -> bool {
        self.rotation_interval_seconds.is_some_and(|every| {
            now >= active_since + (every - self.publication_period - PROPAGATION_DELAY)
        })
    }

    /// Returns when a key created at `now` starts to sign, after it was published long enough.
    ///
    /// A key that is created as soon as it [is due](Self::is_due) becomes active when the active
    /// key reaches the rotation interval.
    pub(super) fn signs_from(&self, now: Timestamp) -> Timestamp {
        now + self.publication_period + PROPAGATION_DELAY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_micros(seconds * 1_000_000)
    }

    #[test]
    fn unworkable_rotation_policy_is_rejected() {
        assert_eq!(
            RotationPolicy::new(Duration::from_secs(59), None),
            Err(InvalidRotationPolicy::PublishLeadTooShort)
        );
        assert_eq!(
            RotationPolicy::new(24 * HOUR, Some(24 * HOUR + TOKEN_TTL)),
            Err(InvalidRotationPolicy::RotationTooFrequent)
        );
        assert!(
            RotationPolicy::new(
                24 * HOUR,
                Some(24 * HOUR + TOKEN_TTL + Duration::from_secs(1))
            )
            .is_ok()
        );
    }

    #[test]
    fn next_key_is_created_on_time_and_signs_after_lead_time() {
        let schedule = RotationPolicy::new(HOUR, Some(10 * HOUR)).unwrap();
        assert!(
            !schedule.is_due(at(0), at(9 * 3600 - 11)) && schedule.is_due(at(0), at(9 * 3600 - 10))
        );
        assert_eq!(schedule.signs_from(at(9 * 3600 - 10)), at(10 * 3600));
        assert_eq!(
            schedule.signs_from(at(50 * 3600)),
            at(51 * 3600 + 10),
            "no process ran at the time"
        );
        assert!(!RotationPolicy::default().is_due(at(0), at(i64::from(u32::MAX))));
    }
}
