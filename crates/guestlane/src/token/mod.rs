//! The guest token: our word for who a guest is (R2, R3).

mod claims;
mod keyring;
mod master_key;
mod signer;
mod verify;

pub use claims::{GuestToken, LIFE, TokenIdentity};
pub use keyring::{KeyError, KeyInfo, Keyring, KeyringError, StoredKey};
pub use master_key::{MasterKey, MasterKeyError};
pub use signer::{SigningKey, sign};
pub use verify::{TokenError, Verified, decode, verify};
