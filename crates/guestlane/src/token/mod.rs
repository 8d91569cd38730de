//! The guest token: our word for who a guest is (requirements R2 and R3, docs/requirements.md).

mod claims;
mod keyring;
mod life;
mod master_key;
mod master_key_file;
mod revocation;
mod schedule;
mod signer;
#[cfg(test)]
mod tests;
mod unique;
mod verify;

pub use claims::{GuestToken, LIFE, TokenIdentity};
pub(crate) use keyring::name as signing_key_name;
pub use keyring::{KeyError, KeyInfo, Keyring, KeyringError, StoredKey};
pub use life::{KeyLife, KeyState, SKEW};
pub use master_key::{MasterKey, MasterKeyError};
pub use revocation::Revocation;
pub use schedule::{ImpossibleSchedule, KeySchedule};
pub use signer::{SigningKey, sign};
pub use verify::{LONGEST, TokenError, Verified, decode, verify};
