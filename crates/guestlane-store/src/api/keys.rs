//! Signing keys, API keys, secrets, and the platform to which the store is bound.

use super::either;
use crate::{Kind, SecretChange, Store, StoreError};
use guestlane_core::api_key::StoredApiKey;
use guestlane_core::token::{KeyLifecycle, RevocationPlan, SealedSigningKey};
use guestlane_runtime::Timestamp;

impl Store {
    /// Returns all signing keys, still sealed.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn signing_keys(&self) -> Result<Vec<SealedSigningKey>, StoreError> {
        either!(self, store => store.signing_keys())
    }

    /// Adds a signing key unless its ID exists. When two processes start at once, the first one's
    /// key is kept.
    ///
    /// # Errors
    /// Returns [`StoreError::MigrationIncomplete`] if a migration into the database began
    /// meanwhile, or an error if the write fails.
    pub async fn add_signing_key(&self, key: SealedSigningKey) -> Result<(), StoreError> {
        either!(self, store => store.add_signing_key(key))
    }

    /// Adds the next signing key unless there is one, and returns the next key. When two processes
    /// add one at once, the first one's key is kept.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if the key's ID belongs to a revoked or active key, or an error
    /// if the write fails.
    pub async fn add_next_key(
        &self,
        key: SealedSigningKey,
        life: impl FnOnce() -> KeyLifecycle + Send + 'static,
        now: Timestamp,
    ) -> Result<SealedSigningKey, StoreError> {
        either!(self, store => store.add_next_key(key, life, now))
    }

    /// Revokes a signing key. If it was the active key, another key becomes active in the same
    /// transaction, so that there is always one.
    ///
    /// Returns the plan that was carried out. Changes nothing if the key is unknown or revoked
    /// already. Returns `None`, and changes nothing, if a new key is needed and `spare` is not it.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn revoke_signing_key(
        &self,
        kid: String,
        spare: Option<SealedSigningKey>,
        now: Timestamp,
    ) -> Result<Option<RevocationPlan>, StoreError> {
        either!(self, store => store.revoke_signing_key(kid, spare, now))
    }

    /// Returns the platform that this store is bound to. Binds it to `new` if it is not bound.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn get_or_insert_platform(&self, new: String) -> Result<String, StoreError> {
        either!(self, store => store.get_or_insert_platform(new))
    }

    /// Returns the platform that this store is bound to, or `None` if it is not bound.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn platform(&self) -> Result<Option<String>, StoreError> {
        either!(self, store => store.platform())
    }

    /// Returns the OAuth clients that this store was last used with, and their organization, if
    /// both are known.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn organization(&self) -> Result<Option<(String, String)>, StoreError> {
        either!(self, store => store.organization())
    }

    /// Stores the OAuth clients and the organization that the platform reported for them.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn set_organization(
        &self,
        client_id: String,
        organization: String,
    ) -> Result<(), StoreError> {
        either!(self, store => store.set_organization(client_id, organization))
    }

    /// Returns the sealed secret of that name. If it does not exist, stores and returns `new`.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn get_or_insert_secret(
        &self,
        name: &str,
        new: Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        either!(self, store => store.get_or_insert_secret(name.to_owned(), new))
    }

    /// Replaces a sealed secret whose value is still `before`, and appends its audit record.
    /// Returns false if another process changed the secret meanwhile.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn replace_secret(&self, change: SecretChange) -> Result<bool, StoreError> {
        either!(self, store => store.replace_secret(change))
    }

    /// Returns all API keys, oldest first, including expired and revoked ones.
    ///
    /// # Errors
    /// Returns an error if the read fails. A key that cannot be decoded is returned as unreadable.
    pub async fn api_keys(&self) -> Result<Vec<StoredApiKey>, StoreError> {
        either!(self, store => store.api_keys())
    }

    /// Adds an API key. With `replaces`, the replaced key expires at `until` unless it expires
    /// earlier; the two overlap, so that callers can change over.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn add_api_key(
        &self,
        key: StoredApiKey,
        replaces: Option<(String, Timestamp)>,
    ) -> Result<(), StoreError> {
        either!(self, store => store.add_api_key(key, replaces))
    }

    /// Revokes an API key. Returns its present state, or `None` if there is no such key.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn revoke_api_key(
        &self,
        id: String,
        now: Timestamp,
    ) -> Result<Option<StoredApiKey>, StoreError> {
        either!(self, store => store.revoke_api_key(id, now))
    }

    /// Stores when API keys were last used.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn touch_api_keys(&self, used: Vec<(String, Timestamp)>) -> Result<(), StoreError> {
        either!(self, store => store.touch_api_keys(used))
    }
}
