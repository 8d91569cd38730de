//! The keyring of a running process.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use guestlane_core::token::{Keyring, MasterKey};
use guestlane_runtime::Clock;
use guestlane_store::Store;
use tracing::info;

use crate::Error;

/// How often a running process reloads the signing keys.
const READ_EVERY: Duration = Duration::from_secs(1);

/// The keyring of a running process. Signing reads the current keyring without waiting for the
/// store.
#[derive(Debug, Clone)]
pub(crate) struct KeyringCache {
    ring: Arc<ArcSwap<Keyring>>,
    master: Arc<MasterKey>,
    store: Store,
    reading: Arc<tokio::sync::Mutex<()>>,
}

impl KeyringCache {
    pub(crate) fn new(ring: Arc<Keyring>, master: Arc<MasterKey>, store: Store) -> Self {
        Self {
            ring: Arc::new(ArcSwap::new(ring)),
            master,
            store,
            reading: Arc::default(),
        }
    }

    pub(crate) fn ring(&self) -> Arc<Keyring> {
        self.ring.load_full()
    }

    /// Reloads the keys from the store, because another process may have rotated or revoked one.
    pub(crate) async fn reload(&self) -> Result<(), Error> {
        // Reload in turn: an older read must not replace the result of a newer one.
        let _alone = self.reading.lock().await;
        let stored = self.store.signing_keys().await?;
        if let Some(renewed) = self.ring().reload(&self.master, stored)? {
            self.ring.store(Arc::new(renewed));
            info!("reloaded the signing keys: the store's keys changed");
        }
        Ok(())
    }

    /// Reloads the keys if `kid` is unknown, as [`reload`](Self::reload) does. Another node may
    /// have begun the session a moment ago, with a key that is just as new.
    pub(crate) async fn ensure_loaded(&self, kid: &str) {
        if self.ring().by_kid(kid).is_none()
            && let Err(error) = self.reload().await
        {
            guestlane_store::log_failure(
                &error,
                "a signing key is unknown, and the keys cannot be reloaded from the store",
            );
        }
    }

    /// Reloads the keys every second, or upon a notification from the store; never returns. If a
    /// reload fails, the known keys stay in use.
    pub(crate) async fn reload_loop(self, clock: Clock) {
        let mut told = false;
        let mut changes = self.store.changes();
        loop {
            tokio::select! {
                () = changes.next() => {}
                () = clock.sleep(READ_EVERY) => {}
            }
            match self.reload().await {
                Ok(()) => told = false,
                Err(error) if told => drop(error),
                Err(error) => {
                    guestlane_store::log_failure(
                        &error,
                        "failed to reload the signing keys; continuing with the known keys",
                    );
                    told = true;
                }
            }
        }
    }
}
