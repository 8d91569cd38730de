//! Why a guest token is not valid.

use super::{MAX_TOKEN_BYTES, key_error::KeyError, lifecycle::KeyState};

/// Why a guest token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The token is longer than any guest token.
    #[error("the guest token is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// The token does not consist of three base64url parts with JSON objects.
    #[error("the guest token is not a JSON Web Token")]
    Malformed,
    /// A name occurs twice in the header or in the claims, so that two parsers could read two
    /// different tokens.
    #[error("the guest token has the duplicate name `{0}`")]
    DuplicateName(String),
    /// The algorithm is not RS256.
    #[error("the guest token is not signed with RS256")]
    Algorithm,
    /// The header has a parameter that no guest token has: an embedded key (`jwk`, `x5c`), the URL
    /// of a key (`jku`, `x5u`), `crit`, `b64`, …
    #[error("the guest token's header has the unexpected parameter `{0}`")]
    Header(String),
    /// `typ` is present and is not `JWT`.
    #[error("the guest token's typ is not JWT")]
    Type,
    /// `kid` is missing, empty or not a string.
    #[error("the guest token's header has no valid kid")]
    NoKey,
    /// The key ring has no key with this `kid`.
    #[error("the guest token was signed by an unknown key ({0})")]
    UnknownKey(String),
    /// The key is known, but its tokens are not trusted yet or no longer.
    #[error("the guest token was signed by the key {kid}, which is {}", state.name())]
    NotTrusted {
        /// ID of the key.
        kid: String,
        /// State of the key, which explains the refusal.
        state: KeyState,
    },
    /// The signature does not verify with this key.
    #[error("the guest token's signature does not verify")]
    Signature,
    /// A claim is missing, or has a value that no guest token has.
    #[error("the guest token's claim `{0}` is missing or invalid")]
    Claim(&'static str),
    /// `exp` is in the past.
    #[error("the guest token has expired")]
    Expired,
    /// `iat` is in the future.
    #[error("the guest token was issued in the future")]
    NotYet,
    /// `guestId` names another guest.
    #[error("the guest token is for another guest")]
    IdentityMismatch,
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}
