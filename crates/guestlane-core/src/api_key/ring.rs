//! The API keys that a process accepts.

use std::collections::HashMap;

use aws_lc_rs::{constant_time, hmac};
use guestlane_runtime::Timestamp;

use super::{ApiKey, Scopes, StoredApiKey};
use crate::request::Owner;

/// The secret under which API keys are hashed. `Debug` does not print it.
#[derive(Clone)]
pub struct ApiKeyHasher(hmac::Key);

impl ApiKeyHasher {
    /// Creates the hasher from the store's secret.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Returns the hash that the store keeps of a key.
    pub fn hash(&self, key: &ApiKey) -> [u8; 32] {
        let tag = hmac::sign(&self.0, key.expose().as_bytes());
        let mut hash = [0; 32];
        hash.copy_from_slice(tag.as_ref());
        hash
    }
}

impl std::fmt::Debug for ApiKeyHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKeyHasher")
    }
}

/// The caller that an API key authenticates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// ID of the key.
    pub id: String,
    /// Scopes of the key.
    pub scopes: Scopes,
    /// Owner of the caller's sessions and idempotency keys.
    pub owner: Owner,
}

/// The API keys in the store at one time.
#[derive(Debug, Clone)]
pub struct ApiKeySet {
    hash_key: ApiKeyHasher,
    keys: HashMap<String, StoredApiKey>,
}

impl ApiKeySet {
    /// Creates the set from the rows of the store.
    pub fn new(hash_key: ApiKeyHasher, keys: Vec<StoredApiKey>) -> Self {
        Self {
            hash_key,
            keys: keys.into_iter().map(|key| (key.id.clone(), key)).collect(),
        }
    }

    /// Returns the caller that the key authenticates, or `None` if the key is not valid.
    ///
    /// The comparison takes as long for an unknown ID as for a wrong secret.
    pub fn authenticate(&self, text: &str, now: Timestamp) -> Option<Principal> {
        let key: ApiKey = text.parse().ok()?;
        let hash = self.hash_key.hash(&key);
        let known = self.keys.get(key.id());
        let same = constant_time::verify_slices_are_equal(
            &hash,
            &known.map_or([0; 32], |known| known.hash),
        )
        .is_ok();
        known
            .filter(|known| same && known.is_active(now))
            .map(|known| Principal {
                id: known.id.clone(),
                scopes: known.scopes.clone(),
                owner: Owner::of_api_key(&known.owner),
            })
    }

    /// Whether the key with this ID is accepted at `now`.
    pub fn is_good(&self, id: &str, now: Timestamp) -> bool {
        self.keys.get(id).is_some_and(|key| key.is_active(now))
    }

    /// Returns the number of keys whose rows cannot be read. Such keys are refused.
    pub fn unreadable(&self) -> usize {
        self.keys.values().filter(|key| !key.is_readable).count()
    }

    /// Whether any key is accepted at `now`.
    pub fn has_active(&self, now: Timestamp) -> bool {
        self.keys.values().any(|key| key.is_active(now))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api_key::Scope;

    #[test]
    fn only_a_valid_complete_key_authenticates() {
        let now = Timestamp::from_unix_micros(1_800_000_000_000_000);
        let hash_key = ApiKeyHasher::new(b"a secret of the store");
        let (key, other) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
        let scopes = Scopes::new([Scope::SessionsWrite]).unwrap();
        let stored = StoredApiKey {
            expires_at: Some(now + Duration::from_secs(60)),
            ..StoredApiKey::new(&key, &hash_key, "shop", scopes, now)
        };
        let ring = |stored: &StoredApiKey, hash_key: &ApiKeyHasher| {
            ApiKeySet::new(hash_key.clone(), vec![stored.clone()])
        };
        let accepted = |ring: &ApiKeySet, now| ring.authenticate(key.expose(), now).is_some();

        assert!(accepted(&ring(&stored, &hash_key), now));
        assert!(
            ring(&stored, &hash_key)
                .authenticate(other.expose(), now)
                .is_none()
        );
        assert!(
            !accepted(&ring(&stored, &hash_key), now + Duration::from_secs(60)),
            "expired"
        );
        assert!(
            !accepted(
                &ring(
                    &StoredApiKey {
                        revoked_at: Some(now),
                        ..stored.clone()
                    },
                    &hash_key
                ),
                now
            ),
            "revoked"
        );
        assert!(
            !accepted(&ring(&stored, &ApiKeyHasher::new(b"another secret")), now),
            "of another store"
        );
        let unreadable = StoredApiKey {
            is_readable: false,
            ..stored.clone()
        };
        assert!(
            !accepted(&ring(&unreadable, &hash_key), now),
            "with a row that this version cannot read"
        );
        // A row with the ID of one key and the hash of another.
        assert!(!accepted(
            &ring(
                &StoredApiKey {
                    hash: hash_key.hash(&other),
                    ..stored.clone()
                },
                &hash_key
            ),
            now
        ));
    }

    #[test]
    fn admin_scope_allows_all_and_other_scopes_only_themselves() {
        for scope in Scope::ALL {
            let scopes = Scopes::new([scope]).unwrap();
            for wanted in Scope::ALL {
                assert_eq!(
                    scopes.allow(wanted),
                    scope == wanted || scope == Scope::Admin,
                    "{scope} {wanted}"
                );
            }
            assert_eq!(scopes.to_string().parse::<Scopes>().unwrap(), scopes);
        }
    }
}
