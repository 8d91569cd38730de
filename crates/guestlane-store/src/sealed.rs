//! Values in the store that are sealed under the master key, for its rotation, and the number of
//! seals per master key.

use guestlane_core::session::SessionId;

/// The place of a sealed value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealedPlace {
    /// A secret of the store, by name.
    Secret(String),
    /// A signing key, by ID.
    SigningKey(String),
    /// The guest session token of a session.
    GuestSession(SessionId),
}

/// A sealed value.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// Where the value is.
    pub place: SealedPlace,
    /// The sealed value.
    pub bytes: Vec<u8>,
}

/// A value that was sealed again. It replaces the stored value only if that is still `before`.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// Where the value is.
    pub place: SealedPlace,
    /// The sealed value to be replaced.
    pub before: Vec<u8>,
    /// The sealed value that replaces it.
    pub after: Vec<u8>,
}

/// A sealed secret that was read through a database URL.
#[derive(Debug)]
pub struct StoredSecret {
    /// The sealed value.
    pub sealed: Vec<u8>,
    /// The object ID of the table that contains it.
    pub table: i64,
}

/// Returns the name of the counter for the seals of a master key.
pub(super) fn counter(key: &str) -> String {
    format!("masterKeySeals:{key}")
}
