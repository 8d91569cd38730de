//! Signing keys, API keys, and the platform to which the store is bound.

use crate::StoreError;
use async_trait::async_trait;
use guestlane_core::{
    api_key::StoredApiKey,
    token::{KeyLifecycle, RevocationPlan, SealedSigningKey},
};
use guestlane_runtime::Timestamp;

/// The keys that sign guest tokens, sealed under the master key.
#[async_trait]
pub trait SigningKeys: Send + Sync {
    /// Returns all signing keys, still sealed.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    async fn signing_keys(&self) -> Result<Vec<SealedSigningKey>, StoreError>;

    /// Adds a signing key unless its ID exists. When two processes start at once, the first one's
    /// key is kept.
    ///
    /// # Errors
    /// Returns [`StoreError::MigrationIncomplete`] if a migration into the database began
    /// meanwhile, or an error if the write fails.
    async fn add_signing_key(&self, key: SealedSigningKey) -> Result<(), StoreError>;

    /// Adds the next signing key unless there is one, and returns the next key. When two processes
    /// add one at once, the first one's key is kept.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if the key's ID belongs to a revoked or active key, or an error
    /// if the write fails.
    async fn add_next_key(
        &self,
        key: SealedSigningKey,
        life: Box<dyn FnOnce() -> KeyLifecycle + Send>,
        now: Timestamp,
    ) -> Result<SealedSigningKey, StoreError>;

    /// Revokes a signing key. If it was the active key, another key becomes active in the same
    /// transaction, so that there is always one.
    ///
    /// Returns the plan that was carried out. Changes nothing if the key is unknown or revoked
    /// already. Returns `None`, and changes nothing, if a new key is needed and `spare` is not it.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    async fn revoke_signing_key(
        &self,
        kid: String,
        spare: Option<SealedSigningKey>,
        now: Timestamp,
    ) -> Result<Option<RevocationPlan>, StoreError>;
}

/// The keys of callers of the HTTP service.
#[async_trait]
pub trait ApiKeys: Send + Sync {
    /// Returns all API keys, oldest first, including expired and revoked ones.
    ///
    /// # Errors
    /// Returns an error if the read fails. A key that cannot be decoded is returned as unreadable.
    async fn api_keys(&self) -> Result<Vec<StoredApiKey>, StoreError>;

    /// Adds an API key. With `replaces`, the replaced key expires at `until` unless it expires
    /// earlier; the two overlap, so that callers can change over.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    async fn add_api_key(
        &self,
        key: StoredApiKey,
        replaces: Option<(String, Timestamp)>,
    ) -> Result<(), StoreError>;

    /// Revokes an API key. Returns its present state, or `None` if there is no such key.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    async fn revoke_api_key(
        &self,
        id: String,
        now: Timestamp,
    ) -> Result<Option<StoredApiKey>, StoreError>;

    /// Stores when API keys were last used.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    async fn touch_api_keys(&self, used: Vec<(String, Timestamp)>) -> Result<(), StoreError>;
}

/// The platform and the organization whose sessions the store has.
#[async_trait]
pub trait Binding: Send + Sync {
    /// Returns the platform that this store is bound to. Binds it to `new` if it is not bound.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    async fn get_or_insert_platform(&self, new: String) -> Result<String, StoreError>;

    /// Returns the platform that this store is bound to, or `None` if it is not bound.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    async fn platform(&self) -> Result<Option<String>, StoreError>;

    /// Returns the OAuth clients that this store was last used with, and their organization, if
    /// both are known.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    async fn organization(&self) -> Result<Option<(String, String)>, StoreError>;

    /// Stores the OAuth clients and the organization that the platform reported for them.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    async fn set_organization(
        &self,
        client_id: String,
        organization: String,
    ) -> Result<(), StoreError>;
}
