//! Values that are sealed under the master key.

use crate::{Replacement, Sealed, SecretChange, StoreError};
use async_trait::async_trait;
use guestlane_core::session::SessionId;

/// Values that are sealed under the master key, and the number of seals per master key.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// Returns the sealed secret of that name. If it does not exist, stores and returns `new`.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    async fn get_or_insert_secret(
        &self,
        name: &str,
        new: Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, StoreError>;

    /// Replaces a sealed secret whose value is still `before`, and appends its audit record.
    /// Returns false if another process changed the secret meanwhile.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    async fn replace_secret(&self, change: SecretChange) -> Result<bool, StoreError>;

    /// Returns all sealed secrets and signing keys.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the read fails.
    async fn sealed_keys(&self) -> Result<Vec<Sealed>, StoreError>;

    /// Returns up to `limit` guest session tokens of the sessions after `after`, in the order of
    /// their IDs.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the read fails.
    async fn sealed_sessions(
        &self,
        after: Option<SessionId>,
        limit: u32,
    ) -> Result<Vec<Sealed>, StoreError>;

    /// Replaces values in one transaction, each only if the store still has its old bytes. Returns
    /// the number of replaced values.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the write fails.
    async fn replace_sealed(&self, values: Vec<Replacement>) -> Result<u64, StoreError>;

    /// Deletes the shared access tokens. The next call then requests a new one.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the write fails.
    async fn delete_access_tokens(&self) -> Result<(), StoreError> {
        Ok(()) // a store in a file has none
    }

    /// Returns the number of values that all processes sealed under the master key. Seals that a
    /// process has not yet stored are missing.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the read fails.
    async fn seals(&self, key: &str) -> Result<u64, StoreError>;

    /// Adds to the number of seals of a master key. Returns the sum.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the write fails.
    async fn add_seals(&self, key: &str, seals: u64) -> Result<u64, StoreError>;
}
