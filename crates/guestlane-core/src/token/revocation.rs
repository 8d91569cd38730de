//! Plans the revocation of a signing key, as a pure function of the keys and the time.
//!
//! The plan is made once before the change, and again in the transaction that revokes the key.

use guestlane_runtime::Timestamp;

use super::{
    keyring::SealedSigningKey,
    lifecycle::{self, KeyLifecycle, KeyState},
};

/// What the revocation of a key requires, so that one key can always sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationPlan {
    /// The key does not exist.
    Unknown,
    /// The key was revoked at this time.
    AlreadyRevoked(Timestamp),
    /// The key was not the active one, so the active key continues to sign.
    NoSuccessorNeeded(KeyState),
    /// The active key was revoked; this key, published since this time, becomes active now.
    PromoteNext(String, Timestamp),
    /// The active key was revoked and no published key can follow; a new key with this ID becomes
    /// active now.
    GenerateNew(String),
}

impl RevocationPlan {
    /// Returns a description of the successor for the audit log.
    pub fn successor(&self) -> Option<String> {
        match self {
            Self::PromoteNext(kid, _) | Self::GenerateNew(kid) => {
                Some(format!("{kid} signs from now on"))
            }
            Self::Unknown | Self::AlreadyRevoked(_) | Self::NoSuccessorNeeded(_) => None,
        }
    }

    /// Plans the revocation of the key `kid` among `keys`.
    pub fn of(kid: &str, mut keys: Vec<SealedSigningKey>, now: Timestamp) -> Self {
        keys.sort_by_key(SealedSigningKey::order);
        let lives: Vec<KeyLifecycle> = keys.iter().map(|key| key.life).collect();
        let active = lifecycle::active(&lives, now);
        let Some(at) = keys.iter().position(|key| key.kid == kid) else {
            return Self::Unknown;
        };
        if let Some(since) = lives.get(at).and_then(KeyLifecycle::revoked_at) {
            return Self::AlreadyRevoked(since);
        }
        if active != Some(at) {
            return Self::NoSuccessorNeeded(lifecycle::state(&lives, at, active, now));
        }
        let next = keys
            .iter()
            .skip(at + 1)
            .find(|key| key.life.active_from() > now && !key.life.is_revoked());
        next.map_or_else(
            || Self::GenerateNew(SealedSigningKey::new_kid(&keys)),
            |next| Self::PromoteNext(next.kid.clone(), next.life.created_at()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_micros(seconds * 1_000_000)
    }

    fn key(version: u32, created: i64, from: i64, revoked: Option<i64>) -> SealedSigningKey {
        let life = KeyLifecycle::stored(at(created), at(from), revoked.map(at));
        SealedSigningKey {
            kid: format!("webchat-guest-key-v{version}"),
            sealed: Vec::new(),
            life,
        }
    }

    #[test]
    fn revocation_promotes_the_next_key_or_generates_one() {
        let of = |kid, keys: &[SealedSigningKey]| RevocationPlan::of(kid, keys.to_vec(), at(500));
        let (one, two) = ("webchat-guest-key-v1", "webchat-guest-key-v2");
        assert_eq!(
            of(one, &[key(1, 0, 0, None)]),
            RevocationPlan::GenerateNew(two.to_owned())
        );
        assert_eq!(
            of(one, &[key(1, 0, 0, None), key(2, 100, 900, None)]),
            RevocationPlan::PromoteNext(two.to_owned(), at(100))
        );
        let after_a_revoked_one = [key(1, 0, 0, None), key(2, 100, 900, Some(200))];
        assert_eq!(
            of(one, &after_a_revoked_one),
            RevocationPlan::GenerateNew("webchat-guest-key-v3".to_owned()),
            "no id comes twice"
        );
        assert_eq!(
            of(two, &after_a_revoked_one),
            RevocationPlan::AlreadyRevoked(at(200))
        );
        assert_eq!(
            of(one, &[key(1, 0, 0, None), key(2, 100, 400, None)]),
            RevocationPlan::NoSuccessorNeeded(KeyState::Retiring)
        );
        assert_eq!(
            of(two, &[key(1, 0, 0, None), key(2, 100, 900, None)]),
            RevocationPlan::NoSuccessorNeeded(KeyState::Next)
        );
        assert_eq!(of("other", &[key(1, 0, 0, None)]), RevocationPlan::Unknown);
    }
}
