//! Values in the store that are sealed under the master key, for its rotation, and the number of
//! seals per master key.

use super::{Kind, Store, StoreError};
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

/// Returns the name of the counter for the seals of a master key.
pub(super) fn counter(key: &str) -> String {
    format!("masterKeySeals:{key}")
}

impl Store {
    /// Returns all sealed secrets and signing keys.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the read fails.
    pub async fn sealed_keys(&self) -> Result<Vec<Sealed>, StoreError> {
        match &self.kind {
            Kind::Sqlite(store) => store.sealed_keys().await,
            Kind::Postgres(store) => store.sealed_keys().await,
        }
    }

    /// Returns up to `limit` guest session tokens of the sessions after `after`, in the order of
    /// their IDs.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the read fails.
    pub async fn sealed_sessions(
        &self,
        after: Option<SessionId>,
        limit: u32,
    ) -> Result<Vec<Sealed>, StoreError> {
        match &self.kind {
            Kind::Sqlite(store) => store.sealed_sessions(after, limit).await,
            Kind::Postgres(store) => store.sealed_sessions(after, limit).await,
        }
    }

    /// Replaces values in one transaction, each only if the store still has its old bytes. Returns
    /// the number of replaced values.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the write fails.
    pub async fn replace_sealed(&self, values: Vec<Replacement>) -> Result<u64, StoreError> {
        match &self.kind {
            Kind::Sqlite(store) => store.replace_sealed(values).await,
            Kind::Postgres(store) => store.replace_sealed(values).await,
        }
    }

    /// Deletes the shared access tokens. The next call then requests a new one.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the write fails.
    pub async fn delete_access_tokens(&self) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Sqlite(_) => Ok(()), // a store in a file has none
            Kind::Postgres(store) => store.delete_access_tokens().await,
        }
    }

    /// Returns the number of values that all processes sealed under the master key. Seals that a
    /// process has not yet stored are missing.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the read fails.
    pub async fn seals(&self, key: &str) -> Result<u64, StoreError> {
        let name = counter(key);
        match &self.kind {
            Kind::Sqlite(store) => store.seals(name).await,
            Kind::Postgres(store) => store.seals(name).await,
        }
    }

    /// Adds to the number of seals of a master key. Returns the sum.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the write fails.
    pub async fn add_seals(&self, key: &str, seals: u64) -> Result<u64, StoreError> {
        let name = counter(key);
        match &self.kind {
            Kind::Sqlite(store) => store.add_seals(name, seals).await,
            Kind::Postgres(store) => store.add_seals(name, seals).await,
        }
    }
}
