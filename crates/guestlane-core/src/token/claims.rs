//! The header and the claims of a guest token.

use std::{collections::BTreeMap, fmt, time::Duration};

use guestlane_runtime::Timestamp;
use serde::Serialize;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::request::{Attributes, GuestId};

/// Lifetime of a guest token (requirement R3, docs/requirements.md).
pub const TOKEN_TTL: Duration = Duration::from_secs(300);

/// The values that make a guest token unique. The store keeps them instead of the token.
///
/// RS256 is deterministic, so the same identity, guest and attributes give the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenIdentity {
    /// ID of the signing key.
    pub kid: String,
    /// ID of the token.
    pub jti: Uuid,
    /// When the token was issued, in seconds since the Unix epoch.
    pub issued_at: i64,
}

impl TokenIdentity {
    /// Returns a new identity, issued at `now`.
    pub fn new(kid: &str, now: Timestamp) -> Self {
        Self {
            kid: kid.to_owned(),
            jti: Uuid::new_v4(),
            issued_at: now.unix_seconds(),
        }
    }

    /// Whether the token expires before it can reach the platform.
    pub fn is_expired_at(&self, now: Timestamp) -> bool {
        const IN_TRANSIT_MARGIN: i64 = 10;
        self.expires_at() <= now.unix_seconds() + IN_TRANSIT_MARGIN
    }

    /// Returns the expiry, in seconds since the Unix epoch.
    pub fn expires_at(&self) -> i64 {
        self.issued_at + i64::try_from(TOKEN_TTL.as_secs()).unwrap_or(0)
    }
}

/// A signed guest token. Its holder can act as the guest, so `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct GuestToken(Zeroizing<String>);

impl GuestToken {
    pub(super) fn new(token: String) -> Self {
        Self(token.into())
    }

    /// Returns a text that replaces an unsigned token, as long as a signed token for these values.
    pub fn placeholder(guest: &GuestId, attributes: &Attributes, kid: &str) -> Self {
        const SIGNATURE: usize = 256; // RSA, 2048 bits
        let base64 = |bytes: usize| (bytes * 4).div_ceil(3);
        let identity = TokenIdentity {
            kid: kid.to_owned(),
            jti: Uuid::nil(),
            issued_at: 1_800_000_000,
        };
        let json =
            |value| serde_json::to_vec::<serde_json::Value>(value).map_or(0, |json| json.len());
        let header = serde_json::to_value(Header { alg: "RS256", kid }).unwrap_or_default();
        let claims =
            serde_json::to_value(Claims::new(guest, attributes, &identity)).unwrap_or_default();
        Self(
            "x".repeat(base64(json(&header)) + 1 + base64(json(&claims)) + 1 + base64(SIGNATURE))
                .into(),
        )
    }

    /// Returns the token's text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for GuestToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestToken({} bytes)", self.0.len())
    }
}

/// The token's header: `{alg, kid}` and nothing else (requirement R3, docs/requirements.md).
#[derive(Serialize)]
pub(super) struct Header<'a> {
    pub(super) alg: &'static str,
    pub(super) kid: &'a str,
}

/// The token's claims: `guestId`, the caller's attributes, and those of JWT. Attributes cannot have
/// the names of the other claims.
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
    pub(super) fn new(
        guest: &'a GuestId,
        attributes: &'a Attributes,
        identity: &TokenIdentity,
    ) -> Self {
        Self {
            guest_id: guest.as_str(),
            attributes: attributes.as_map(),
            iat: identity.issued_at,
            exp: identity.expires_at(),
            jti: identity.jti,
        }
    }
}
