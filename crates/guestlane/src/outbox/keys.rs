//! The keys that sign the events of one endpoint, and their rotation.

use std::time::Duration;

use guestlane_runtime::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::sign::{WebhookKeyPair, WebhookSecret};

/// Maximum number of keys that sign for one endpoint. Each key adds a signature to the header.
const MAX_KEYS: usize = 6;

/// Kind of signature that a key makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// `v1`: HMAC-SHA-256 with a secret that the receiver shares.
    Secret,
    /// `v1a`: Ed25519. The receiver has only the public key.
    Ed25519,
}

impl KeyKind {
    /// Generates a key of this kind.
    fn generate(self) -> Result<SecretString, InvalidKeys> {
        match self {
            Self::Secret => WebhookSecret::generate().map_err(|_| InvalidKeys::NotMade),
            Self::Ed25519 => WebhookKeyPair::generate().map_err(|_| InvalidKeys::NotMade),
        }
    }
}

/// Why keys cannot be used. The error never contains the text of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeys {
    /// An entry in the settings is not a key.
    #[error(
        "has an entry {0} that is neither whsec_ followed by the base64 of 24 to 64 bytes nor whsk_ followed by that of a key pair"
    )]
    Malformed(usize),
    /// The number of entries is neither one nor the number of endpoints.
    #[error("has {found} entries for {endpoints} webhook addresses")]
    Count {
        /// Number of entries, separated by spaces.
        found: usize,
        /// Number of addresses.
        endpoints: usize,
    },
    /// An entry has more keys than may sign at once.
    #[error("has more than {MAX_KEYS} keys for one endpoint")]
    TooMany,
    /// An entry has no secret for `v1` signatures.
    #[error("has no whsec_ secret in entry {0}, and every endpoint needs one")]
    NoSecret(usize),
    /// Too many earlier keys still sign.
    #[error("already has {MAX_KEYS} keys that sign, until {0}")]
    StillSigning(Timestamp),
    /// The stored value was not written by this version.
    #[error("cannot be read")]
    Unreadable,
    /// The random number generator failed.
    #[error("could not be generated: the random number generator failed")]
    NotMade,
}

#[derive(Debug, Clone)]
enum Key {
    Secret(Box<WebhookSecret>),
    Ed25519(WebhookKeyPair),
}

impl Key {
    fn parse(text: &SecretString) -> Option<Self> {
        if text.expose_secret().starts_with("whsk_") {
            return WebhookKeyPair::parse(text).ok().map(Self::Ed25519);
        }
        WebhookSecret::parse(text)
            .ok()
            .map(|secret| Self::Secret(Box::new(secret)))
    }

    fn kind(&self) -> KeyKind {
        match self {
            Self::Secret(_) => KeyKind::Secret,
            Self::Ed25519(_) => KeyKind::Ed25519,
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Secret(secret) => secret.expose(),
            Self::Ed25519(pair) => pair.expose(),
        }
    }
}

/// A key, and the time at which it stops signing.
#[derive(Debug, Clone)]
struct TimedKey {
    key: Key,
    until: Option<Timestamp>,
}

/// The keys that sign the events of one endpoint.
///
/// The first key of a kind is the current one. The others are earlier ones, which sign too until
/// the receiver has switched to the current key.
#[derive(Debug, Clone, Default)]
pub struct EndpointKeys(Vec<TimedKey>);

/// The keys as the store has them, sealed under the master key.
#[derive(Serialize, Deserialize)]
struct StoredKeys {
    keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
struct StoredKey {
    key: String,
    /// Microseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<i64>,
}

impl EndpointKeys {
    /// Parses the configured keys: one entry for each endpoint, in order, separated by
    /// spaces.
    ///
    /// An entry has one key, or several separated by commas; the first of a kind is the current
    /// one. A single entry serves all endpoints.
    ///
    /// # Errors
    /// See [`InvalidKeys`].
    pub fn given(text: &SecretString, endpoints: usize) -> Result<Vec<Self>, InvalidKeys> {
        let entries: Vec<&str> = text.expose_secret().split_whitespace().collect();
        if entries.len() != 1 && entries.len() != endpoints {
            return Err(InvalidKeys::Count {
                found: entries.len(),
                endpoints,
            });
        }
        let keys = (1..)
            .zip(&entries)
            .map(|(place, entry)| Self::entry(place, entry))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(match &keys[..] {
            [shared] => vec![shared.clone(); endpoints],
            _ => keys,
        })
    }

    fn entry(place: usize, entry: &str) -> Result<Self, InvalidKeys> {
        let parse =
            |text: &str| Key::parse(&text.to_owned().into()).ok_or(InvalidKeys::Malformed(place));
        let keys = entry.split(',').map(parse).collect::<Result<Vec<_>, _>>()?;
        if keys.len() > MAX_KEYS {
            return Err(InvalidKeys::TooMany);
        }
        if !keys.iter().any(|key| key.kind() == KeyKind::Secret) {
            return Err(InvalidKeys::NoSecret(place));
        }
        Ok(Self(
            keys.into_iter()
                .map(|key| TimedKey { key, until: None })
                .collect(),
        ))
    }

    /// Parses what [`to_store`](Self::to_store) wrote.
    pub(super) fn from_store(bytes: &[u8]) -> Result<Self, InvalidKeys> {
        let kept: StoredKeys =
            serde_json::from_slice(bytes).map_err(|_| InvalidKeys::Unreadable)?;
        let timed = |kept: StoredKey| {
            let key = Key::parse(&kept.key.into()).ok_or(InvalidKeys::Unreadable)?;
            Ok(TimedKey {
                key,
                until: kept.until.map(Timestamp::from_unix_micros),
            })
        };
        kept.keys
            .into_iter()
            .map(timed)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(super) fn to_store(&self) -> Zeroizing<Vec<u8>> {
        let kept = |timed: &TimedKey| StoredKey {
            key: timed.key.text().to_owned(),
            until: timed.until.map(Timestamp::unix_micros),
        };
        let kept = StoredKeys {
            keys: self.0.iter().map(kept).collect(),
        };
        serde_json::to_vec(&kept).unwrap_or_default().into()
    }

    /// Adds a fresh key of that kind. Returns `None` if the endpoint has one already.
    pub(super) fn completed(&self, kind: KeyKind) -> Result<Option<Self>, InvalidKeys> {
        if self.current(kind).is_some() {
            return Ok(None);
        }
        let text = kind.generate()?;
        let key = Key::parse(&text)
            .filter(|key| key.kind() == kind)
            .ok_or(InvalidKeys::Unreadable)?;
        Ok(Some(Self(
            [vec![TimedKey { key, until: None }], self.0.clone()].concat(),
        )))
    }

    /// Adds a fresh key of that kind. The previous key signs for `overlap` longer; expired keys are
    /// removed.
    pub(super) fn rotated(
        &self,
        kind: KeyKind,
        overlap: Duration,
        now: Timestamp,
    ) -> Result<Self, InvalidKeys> {
        let until = now + overlap;
        let mut keys = self.0.clone();
        for timed in keys.iter_mut().filter(|timed| timed.key.kind() == kind) {
            timed.until = Some(timed.until.map_or(until, |earlier| earlier.min(until)));
        }
        keys.retain(|timed| timed.until.is_none_or(|until| until > now));
        if keys.len() >= MAX_KEYS {
            let first_end = keys
                .iter()
                .filter_map(|timed| timed.until)
                .min()
                .unwrap_or(until);
            return Err(InvalidKeys::StillSigning(first_end));
        }
        let key = Key::parse(&kind.generate()?).ok_or(InvalidKeys::NotMade)?;
        keys.insert(0, TimedKey { key, until: None });
        Ok(Self(keys))
    }

    /// Adds the Ed25519 keys of `kept` if the configured keys have none.
    pub(super) fn with_ed25519_of(mut self, kept: &Self) -> Self {
        if self.current(KeyKind::Ed25519).is_none() {
            self.0.extend(
                kept.0
                    .iter()
                    .filter(|timed| timed.key.kind() == KeyKind::Ed25519)
                    .cloned(),
            );
        }
        self
    }

    /// Whether `other` has the same keys with the same end times.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let same = |(one, other): (&TimedKey, &TimedKey)| {
            one.key.text() == other.key.text() && one.until == other.until
        };
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(same)
    }

    /// Returns the value of `webhook-signature`: the signature of each key valid at `now`,
    /// separated by spaces.
    pub fn sign(&self, id: &str, now: Timestamp, body: &[u8]) -> String {
        let sign = |timed: &TimedKey| match &timed.key {
            Key::Secret(secret) => secret.sign(id, now, body),
            Key::Ed25519(pair) => pair.sign(id, now, body),
        };
        self.signing(now).map(sign).collect::<Vec<_>>().join(" ")
    }

    fn signing(&self, now: Timestamp) -> impl Iterator<Item = &TimedKey> {
        self.0
            .iter()
            .filter(move |timed| timed.until.is_none_or(|until| until > now))
    }

    fn current(&self, kind: KeyKind) -> Option<&Key> {
        self.0
            .iter()
            .map(|timed| &timed.key)
            .find(|key| key.kind() == kind)
    }

    /// Returns the current secret, `whsec_…`.
    pub fn secret(&self) -> Option<&WebhookSecret> {
        match self.current(KeyKind::Secret) {
            Some(Key::Secret(secret)) => Some(secret),
            Some(Key::Ed25519(_)) | None => None,
        }
    }

    /// Returns the current Ed25519 public key, `whpk_…`, if the endpoint has one.
    pub fn public_key(&self) -> Option<String> {
        match self.current(KeyKind::Ed25519) {
            Some(Key::Ed25519(pair)) => Some(pair.public_key()),
            Some(Key::Secret(_)) | None => None,
        }
    }

    /// Returns when the last earlier key of that kind stops signing, or `None` if only the current
    /// one signs.
    pub fn earlier_until(&self, kind: KeyKind, now: Timestamp) -> Option<Timestamp> {
        self.signing(now)
            .filter(|timed| timed.key.kind() == kind)
            .filter_map(|timed| timed.until)
            .max()
    }
}

#[cfg(test)]
mod tests;
