//! A thousand rotations with verifiers that cache the key set: no valid token is refused.
//!
//! The verifiers are independent of this product: they use the published JWK set and a JWT library.

use std::{collections::HashMap, time::Duration};

use guestlane_runtime::{Clock, ManualClock, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{
    super::{
        KeyLifecycle, Keyring, RotationPolicy, SealedSigningKey, SigningKey, TOKEN_TTL,
        TokenIdentity,
    },
    NOW, at, master, stored,
};
use crate::request::{Attributes, GuestId};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Cache durations of the verifiers.
const CACHES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_secs(60),
    HOUR,
    Duration::from_secs(12 * 3600),
    Duration::from_secs(24 * 3600),
];

/// The issuer whose keys rotate, with every key set that it published.
struct Product {
    pool: Vec<Zeroizing<Vec<u8>>>,
    keys: Vec<SealedSigningKey>,
    /// Each key ring, with the time from which it was current.
    rings: Vec<(Timestamp, Keyring)>,
    chance: fastrand::Rng,
    refused: usize,
    verified: usize,
}

impl Product {
    /// Reuses each key pair under another `kid` after all have served. The test checks that no
    /// published set has a pair twice.
    fn new(pairs: usize, now: Timestamp) -> Self {
        let pool: Vec<_> = (0..pairs)
            .map(|_| SigningKey::generate().unwrap())
            .collect();
        let first = stored(
            SealedSigningKey::FIRST_KID,
            &pool[0],
            KeyLifecycle::active_now(now),
        );
        let ring = Keyring::open(&master(), vec![first.clone()]).unwrap();
        let chance = fastrand::Rng::with_seed(7);
        Self {
            pool,
            keys: vec![first],
            rings: vec![(now, ring)],
            chance,
            refused: 0,
            verified: 0,
        }
    }

    fn ring(&self) -> &Keyring {
        &self.rings.last().unwrap().1
    }

    fn publish(&mut self, now: Timestamp) {
        if let Some(renewed) = self.ring().reload(&master(), self.keys.clone()).unwrap() {
            self.rings.push((now, renewed));
        }
    }

    fn rotate(&mut self, schedule: &RotationPolicy, now: Timestamp) -> KeyLifecycle {
        self.add(KeyLifecycle::next(schedule, now), now)
    }

    fn add(&mut self, life: KeyLifecycle, now: Timestamp) -> KeyLifecycle {
        let kid = SealedSigningKey::new_kid(&self.keys);
        self.keys.push(stored(
            &kid,
            &self.pool[self.keys.len() % self.pool.len()],
            life,
        ));
        self.publish(now);
        life
    }

    fn sign(&self, now: Timestamp) -> String {
        let guest: GuestId = "ann".parse().unwrap();
        let identity = TokenIdentity::new(self.ring().active(now).kid(), now);
        self.ring()
            .sign(&guest, &Attributes::default(), &identity)
            .unwrap()
            .expose()
            .to_owned()
    }

    /// Returns the key set that a verifier fetched at `then`.
    fn fetched(&self, then: Timestamp) -> JwkSet {
        let ring = self
            .rings
            .iter()
            .rev()
            .find(|(since, _)| *since <= then)
            .unwrap_or(&self.rings[0]);
        let set: JwkSet = serde_json::from_value(ring.1.jwks(then)).unwrap();
        let moduli: HashMap<_, _> = set
            .keys
            .iter()
            .map(|key| (serde_json::to_value(key).unwrap()["n"].to_string(), ()))
            .collect();
        assert_eq!(
            moduli.len(),
            set.keys.len(),
            "a key pair must not stand in for another"
        );
        set
    }

    /// Each verifier checks the token at several times of its lifetime, with a key set of the
    /// greatest or a random age.
    fn everybody_verifies(&mut self, token: &str, issued: Timestamp) {
        for later in [
            Duration::ZERO,
            Duration::from_secs(150),
            TOKEN_TTL - 2 * SECOND,
        ] {
            for cache in CACHES {
                let now = issued + later;
                let age = if self.chance.bool() {
                    cache
                } else {
                    cache.mul_f64(self.chance.f64())
                };
                let accepted = accepts(&self.fetched(now - age), token, now);
                self.verified += 1;
                self.refused += usize::from(!accepted);
            }
        }
    }

    /// Signs tokens around a key's change and at a random time, and verifies each.
    fn is_used_around(&mut self, clock: &ManualClock, change: Timestamp, then: Duration) {
        let micro = Duration::from_micros(1);
        let somewhere = then.mul_f64(self.chance.f64());
        let moments = [
            change - TOKEN_TTL,
            change - SECOND,
            change - micro,
            change,
            change + SECOND,
            change + somewhere,
        ];
        for moment in moments {
            clock.advance(moment.since(clock.now()));
            let token = self.sign(moment);
            self.everybody_verifies(&token, moment);
        }
    }
}

/// Verifies like a JWT library: the key by the token's `kid`, RS256, and times by the test's clock.
fn accepts(set: &JwkSet, token: &str, now: Timestamp) -> bool {
    let kid = jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    let Some(jwk) = set.find(&kid) else {
        return false;
    };
    let mut validation = Validation::new(Algorithm::RS256);
    validation.validate_exp = false;
    let Ok(data) = jsonwebtoken::decode::<Map<String, Value>>(
        token,
        &DecodingKey::from_jwk(jwk).unwrap(),
        &validation,
    ) else {
        return false;
    };
    let time = |name: &str| data.claims[name].as_i64().unwrap();
    time("iat") <= now.unix_seconds()
        && now.unix_seconds() < time("exp")
        && data.claims["guestId"] == "ann"
}

/// Rotates `times` times by the schedule, and returns how many tokens were refused, of how many.
fn rotate(times: usize, pairs: usize, schedule: RotationPolicy) -> (usize, usize) {
    let clock = ManualClock::new(at(NOW));
    let mut product = Product::new(pairs, clock.now());
    clock.advance(25 * HOUR); // so that the oldest cached key set contains a key
    for _ in 0..times {
        let active_since = product
            .ring()
            .list(clock.now())
            .iter()
            .filter(|key| key.active_from <= clock.now())
            .map(|key| key.active_from)
            .max();
        let active_since = active_since.unwrap();
        let every = schedule.rotation_interval().unwrap();
        let due = active_since + (every - schedule.publish_lead_time() - Duration::from_secs(10));
        clock.advance(due.since(clock.now()));
        assert!(schedule.is_due(active_since, clock.now()));
        let life = product.rotate(&schedule, clock.now());
        product.is_used_around(
            &clock,
            life.active_from(),
            every - schedule.publish_lead_time() - TOKEN_TTL - SECOND,
        );
    }
    let now = Clock::from(clock).now();
    assert_eq!(
        product.ring().active(now).kid(),
        format!("webchat-guest-key-v{}", times + 1)
    );
    assert!(
        product.ring().published(now).len() <= 3,
        "and old ones are not published for ever"
    );
    (product.refused, product.verified)
}

#[test]
fn no_verifier_rejects_a_good_token_in_1000_rotations() {
    let schedule = RotationPolicy::new(24 * HOUR, Some(24 * HOUR + 10 * 60 * SECOND)).unwrap();
    assert_eq!(rotate(1000, 29, schedule), (0, 90_000));
}

/// Shows that the test above can fail.
#[test]
fn publish_lead_below_cache_lifetime_causes_rejections() {
    let schedule = RotationPolicy::new(23 * HOUR, Some(48 * HOUR)).unwrap();
    let (refused, _) = rotate(20, 5, schedule);
    assert!(refused > 0);
}

#[test]
fn immediately_signing_key_is_rejected_until_refetch() {
    let clock = ManualClock::new(at(NOW));
    let mut product = Product::new(3, clock.now());
    clock.advance(25 * HOUR);
    let now = clock.now();
    product.add(KeyLifecycle::active_now(now), now); // in an emergency
    let token = product.sign(now);
    let before = Duration::from_micros(1);
    assert!(
        !accepts(&product.fetched(now - before), &token, now)
            && accepts(&product.fetched(now), &token, now)
    );
}

#[test]
fn revoked_key_token_is_rejected_after_refetch() {
    let clock = ManualClock::new(at(NOW));
    let mut product = Product::new(3, clock.now());
    let life = product.rotate(&RotationPolicy::default(), clock.now());
    clock.advance(life.active_from().since(clock.now()) + HOUR);
    let now = clock.now();
    let token = product.sign(now);
    let revoked_at = now + SECOND;
    product.keys[1].life =
        KeyLifecycle::stored(life.created_at(), life.active_from(), Some(revoked_at));
    product.add(KeyLifecycle::active_now(revoked_at), revoked_at);
    let fresh = product.sign(revoked_at);
    for cache in CACHES {
        let fetched_before = product.fetched(now);
        assert!(
            accepts(&fetched_before, &token, revoked_at),
            "a cached key set lacks the key"
        );
        let renewed = product.fetched(revoked_at + cache.min(TOKEN_TTL / 2));
        assert!(!accepts(&renewed, &token, revoked_at), "{cache:?}");
        assert!(accepts(&renewed, &fresh, revoked_at), "{cache:?}");
    }
}
