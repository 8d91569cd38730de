//! What revoking a key comes to: a function of the keys and of the time, asked before, and again in the transaction that does it.

use guestlane_genesys::Timestamp;

use super::{
    keyring::SealedSigningKey,
    lifecycle::{self, KeyLifecycle, KeyState},
};

/// What revoking a key comes to. There must always be one that signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationPlan {
    /// There is no such key.
    Unknown,
    /// It is revoked since then.
    AlreadyRevoked(Timestamp),
    /// It did not sign: the key that signs goes on.
    NoSuccessorNeeded(KeyState),
    /// It signed, and this one, which is published since then, signs from now on.
    PromoteNext(String, Timestamp),
    /// It signed, and none is published that could take over: a new one of this id signs from now on.
    GenerateNew(String),
}

impl RevocationPlan {
    /// Which key signs in the place of the revoked one, for the audit log.
    pub(crate) fn successor(&self) -> Option<String> {
        match self {
            Self::PromoteNext(kid, _) | Self::GenerateNew(kid) => Some(format!("{kid} signs from now on")),
            Self::Unknown | Self::AlreadyRevoked(_) | Self::NoSuccessorNeeded(_) => None,
        }
    }

    pub(crate) fn of(kid: &str, mut keys: Vec<SealedSigningKey>, now: Timestamp) -> Self {
        keys.sort_by_key(SealedSigningKey::order);
        let lives: Vec<KeyLifecycle> = keys.iter().map(|key| key.life).collect();
        let active = lifecycle::active(&lives, now);
        let Some(at) = keys.iter().position(|key| key.kid == kid) else { return Self::Unknown };
        if let Some(since) = lives.get(at).and_then(KeyLifecycle::revoked_at) {
            return Self::AlreadyRevoked(since);
        }
        if active != Some(at) {
            return Self::NoSuccessorNeeded(lifecycle::state(&lives, at, active, now));
        }
        let next = keys.iter().skip(at + 1).find(|key| key.life.active_from() > now && !key.life.is_revoked());
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
        SealedSigningKey { kid: format!("webchat-guest-key-v{version}"), sealed: Vec::new(), life }
    }

    #[test]
    fn whoever_signs_is_followed_at_once_by_the_published_one_or_by_a_new_one() {
        let of = |kid, keys: &[SealedSigningKey]| RevocationPlan::of(kid, keys.to_vec(), at(500));
        let (one, two) = ("webchat-guest-key-v1", "webchat-guest-key-v2");
        assert_eq!(of(one, &[key(1, 0, 0, None)]), RevocationPlan::GenerateNew(two.to_owned()));
        assert_eq!(of(one, &[key(1, 0, 0, None), key(2, 100, 900, None)]), RevocationPlan::PromoteNext(two.to_owned(), at(100)));
        let after_a_revoked_one = [key(1, 0, 0, None), key(2, 100, 900, Some(200))];
        assert_eq!(
            of(one, &after_a_revoked_one),
            RevocationPlan::GenerateNew("webchat-guest-key-v3".to_owned()),
            "no id comes twice"
        );
        assert_eq!(of(two, &after_a_revoked_one), RevocationPlan::AlreadyRevoked(at(200)));
        assert_eq!(of(one, &[key(1, 0, 0, None), key(2, 100, 400, None)]), RevocationPlan::NoSuccessorNeeded(KeyState::Retiring));
        assert_eq!(of(two, &[key(1, 0, 0, None), key(2, 100, 900, None)]), RevocationPlan::NoSuccessorNeeded(KeyState::Next));
        assert_eq!(of("other", &[key(1, 0, 0, None)]), RevocationPlan::Unknown);
    }
}
