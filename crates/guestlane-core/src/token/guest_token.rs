//! A guest token, and the values that make it unique.

use std::{fmt, time::Duration};

use guestlane_runtime::Timestamp;
use uuid::Uuid;
use zeroize::Zeroizing;

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
