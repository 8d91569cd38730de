//! Names of settings in errors: their paths in [`EngineConfig`](crate::EngineConfig). A program
//! that reads its settings elsewhere replaces them by its own names.

use guestlane_store::Store;

pub(crate) const CLIENTS: &str = "credentials.clients";
pub(crate) const DATABASE: &str = "storage.database";
const HOME: &str = "storage.home";
pub(crate) const MASTER_KEY: &str = "storage.master_key";
pub(crate) const MASTER_KEY_PREVIOUS: &str = "storage.master_key_previous";
pub(crate) const WEBHOOK_URLS: &str = "webhooks.urls";
pub(crate) const WEBHOOK_SECRET: &str = "webhooks.secret";

/// The setting that selects the store.
pub(crate) fn of_store(store: &Store) -> &'static str {
    if store.batches().is_ok() {
        DATABASE
    } else {
        HOME
    }
}
