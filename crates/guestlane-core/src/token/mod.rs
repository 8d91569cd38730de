//! The guest token: a signed JWT that vouches for a guest (requirements R2 and R3,
//! docs/requirements.md).

mod guest_token;
mod key_error;
mod keyring;
mod lifecycle;
mod master_key;
mod revocation;
mod schedule;
mod signer;
mod strict_json;
#[cfg(test)]
mod tests;
mod token_error;
mod verify;

pub use guest_token::{GuestToken, TOKEN_TTL, TokenIdentity};
pub use key_error::KeyError;
pub use keyring::name as signing_key_name;
pub use keyring::{KeyInfo, Keyring, KeyringError, SealedSigningKey};
pub use lifecycle::{CLOCK_SKEW, KeyLifecycle, KeyState};
pub use master_key::{MasterKey, MasterKeyError};
pub use revocation::RevocationPlan;
pub use schedule::{InvalidRotationPolicy, RotationPolicy};
pub use signer::{SigningKey, sign};
pub use token_error::TokenError;
pub use verify::{MAX_TOKEN_BYTES, Verified, decode, verify};
