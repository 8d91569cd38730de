//! What a guest token says.

use std::{collections::BTreeMap, fmt, time::Duration};

use guestlane_genesys::Timestamp;
use serde::Serialize;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::request::{Attributes, GuestId};

/// How long a guest token is good (requirement R3, docs/requirements.md).
pub const TOKEN_TTL: Duration = Duration::from_secs(300);

/// All that makes a guest token this one and no other: the ledger keeps it in place of the token. RS256 is deterministic, so the same
/// identity, guest and attributes give the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenIdentity {
    /// The signing key's id.
    pub kid: String,
    /// The token's id.
    pub jti: Uuid,
    /// Seconds since the Unix epoch.
    pub issued_at: i64,
}

impl TokenIdentity {
    /// A new one, now.
    pub fn new(kid: &str, now: Timestamp) -> Self {
        Self { kid: kid.to_owned(), jti: Uuid::new_v4(), issued_at: now.unix_seconds() }
    }

    /// Whether it would be expired by the time it arrives.
    pub fn is_expired_at(&self, now: Timestamp) -> bool {
        const IN_TRANSIT_MARGIN: i64 = 10;
        self.expires_at() <= now.unix_seconds() + IN_TRANSIT_MARGIN
    }

    /// Seconds since the Unix epoch.
    pub fn expires_at(&self) -> i64 {
        self.issued_at + i64::try_from(TOKEN_TTL.as_secs()).unwrap_or(0)
    }
}

/// A signed guest token. Whoever has it can speak for the guest: it cannot be printed by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct GuestToken(Zeroizing<String>);

impl GuestToken {
    pub(super) fn new(token: String) -> Self {
        Self(token.into())
    }

    /// What stands in the place of a token that is not signed: as long as one for these would be.
    pub fn placeholder(guest: &GuestId, attributes: &Attributes, kid: &str) -> Self {
        const SIGNATURE: usize = 256; // RSA, 2048 bits
        let base64 = |bytes: usize| (bytes * 4).div_ceil(3);
        let identity = TokenIdentity { kid: kid.to_owned(), jti: Uuid::nil(), issued_at: 1_800_000_000 };
        let json = |value| serde_json::to_vec::<serde_json::Value>(value).map_or(0, |json| json.len());
        let header = serde_json::to_value(Header { alg: "RS256", kid }).unwrap_or_default();
        let claims = serde_json::to_value(Claims::new(guest, attributes, &identity)).unwrap_or_default();
        Self("x".repeat(base64(json(&header)) + 1 + base64(json(&claims)) + 1 + base64(SIGNATURE)).into())
    }

    /// The token itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for GuestToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestToken({} bytes)", self.0.len())
    }
}

/// `{alg, kid}`, and nothing else (requirement R3, docs/requirements.md).
#[derive(Serialize)]
pub(super) struct Header<'a> {
    pub(super) alg: &'static str,
    pub(super) kid: &'a str,
}

/// `guestId`, the caller's attributes (which cannot have any of the other names), then JWT's own.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Claims<'a> {
    guest_id: &'a str,
    #[serde(flatten)]
    attributes: &'a BTreeMap<String, String>,
    iat: i64,
    exp: i64,
    jti: Uuid,
}

impl<'a> Claims<'a> {
    pub(super) fn new(guest: &'a GuestId, attributes: &'a Attributes, identity: &TokenIdentity) -> Self {
        Self {
            guest_id: guest.as_str(),
            attributes: attributes.as_map(),
            iat: identity.issued_at,
            exp: identity.expires_at(),
            jti: identity.jti,
        }
    }
}
