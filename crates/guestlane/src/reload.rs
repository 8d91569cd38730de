//! Reload of secrets in a running process: all changed secrets are replaced, or none.

use crate::{
    EngineConfig, Error, engine::SessionEngine, master_key_rotation::expect_opens_all,
    outbox::ConfiguredKeys, setting, workspace::AUDIT_KEY,
};
use guestlane_core::{
    request::ValidationError,
    token::{MasterKey, MasterKeyError},
};
use guestlane_runtime::text::display_chain;
use guestlane_store::{Database, Store, StoredSecret};
use guestlane_tlog::NoteSigner;

/// The secrets that [`SessionEngine::reload`] replaced because they had changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// Number of OAuth client secrets.
    pub client_secrets: usize,
    /// Whether the signing keys of webhooks were replaced.
    pub webhook_secret: bool,
    /// Whether user, password, TLS or timeouts in the URL of the database were replaced.
    pub database_url: bool,
    /// Whether the configured master keys were replaced, or those in the state directory.
    pub master_key: bool,
}

impl Reloaded {
    /// The number of replaced secrets.
    pub fn count(&self) -> usize {
        self.client_secrets
            + usize::from(self.webhook_secret)
            + usize::from(self.database_url)
            + usize::from(self.master_key)
    }
}

impl SessionEngine {
    /// Replaces the secrets that differ between `config` and those in use: of OAuth clients,
    /// webhooks and the database URL, and the master key. All other settings in `config` are
    /// ignored; they need a restart.
    ///
    /// Open connections to the database stay open; later connections use the new URL. The new URL
    /// is tried first, and must lead to the same store. A new master key must open every sealed
    /// value of the store.
    ///
    /// # Errors
    /// Returns an error if a secret cannot be used, or the URL names another store. No secret is
    /// replaced then.
    pub async fn reload(&self, config: &EngineConfig) -> Result<Reloaded, Error> {
        self.take_secrets(config)
            .await
            .map_err(|error| match error {
                Error::Invalid(invalid) => Error::Settings(vec![invalid]),
                other => other,
            })
    }

    async fn take_secrets(&self, config: &EngineConfig) -> Result<Reloaded, Error> {
        let webhook = self
            .saga
            .outbox
            .as_ref()
            .map(|outbox| outbox.other_keys(config.webhooks.as_ref()))
            .transpose()?
            .flatten();
        let database = &config.storage.database;
        let has_other_login = self.has_other_login(database)?;
        let master = config.storage.master_key_in_use()?;
        let master = Some(master).filter(|new| !self.saga.master.has_keys_of(new));
        let mut reloaded = Reloaded {
            client_secrets: 0,
            webhook_secret: webhook.is_some(),
            database_url: has_other_login,
            master_key: master.is_some(),
        };
        if has_other_login {
            self.try_login(database, master.as_ref()).await?;
        }
        // Swap the login before the store is used: the old login may no longer be valid.
        let before = has_other_login.then(|| self.database.take_login_of(database));
        if let Err(error) = self.take_sealed(master.as_ref(), webhook).await {
            if let Some(before) = before {
                self.database.take_login_of(&before);
            }
            return Err(error);
        }
        reloaded.client_secrets = self.set_client_secrets(&config.credentials.clients);
        Ok(reloaded)
    }

    /// Whether `new` is the store in use with another login.
    fn has_other_login(&self, new: &Database) -> Result<bool, Error> {
        self.database.has_other_login(new).map_err(|reason| {
            let fix = "restart to use another store, or revert the change";
            ValidationError::new(setting::DATABASE, reason, fix).into()
        })
    }

    /// Opens connections with a login. It must reach this store, and be allowed to write to it.
    async fn try_login(&self, new: &Database, master: Option<&MasterKey>) -> Result<(), Error> {
        let refused = |reason: String| {
            let fix = "check its user, password and TLS parameters, then reload again";
            Error::from(ValidationError::new(setting::DATABASE, reason, fix))
        };
        let tried = async {
            Store::try_to_write(new).await?;
            Store::secret_at(new, AUDIT_KEY).await
        };
        let found = tried
            .await
            .map_err(|error| refused(format!("cannot be used: {}", display_chain(&error))))?;
        let found = found.filter(|found| self.saga.store.is_home_of(found));
        let masters = [Some(&*self.saga.master), master];
        let opened = |found: StoredSecret| {
            masters
                .into_iter()
                .flatten()
                .find_map(|it| it.open(AUDIT_KEY, &found.sealed).ok())
        };
        let signer = found
            .and_then(opened)
            .and_then(|seed| NoteSigner::from_seed(&seed));
        if signer.is_none_or(|signer| signer.public() != self.audit_key()) {
            return Err(refused(
                "connects to another store than the one in use".to_owned(),
            ));
        }
        Ok(())
    }

    /// Replaces the master key last: the previous key cannot open values sealed under the new key.
    async fn take_sealed(
        &self,
        master: Option<&MasterKey>,
        webhook: Option<ConfiguredKeys>,
    ) -> Result<(), Error> {
        if let Some(master) = master {
            expect_opens_all(&self.saga.store, master)
                .await
                .map_err(refused_master_key)?;
        }
        if let (Some(outbox), Some(webhook)) = (&self.saga.outbox, webhook) {
            outbox.replace_keys(webhook).await?;
        }
        if let Some(master) = master {
            self.count_seals().await; // Store the count of the previous key first.
            self.saga.master.take_keys_of(master);
            self.count_seals().await;
        }
        Ok(())
    }
}

fn refused_master_key(error: Error) -> Error {
    match error {
        Error::MasterKey(MasterKeyError::Undecryptable(what)) => {
            let reason = format!("cannot decrypt the values in the store: {what}");
            let fix = "keep the previous key in storage.master_key_previous until all values are sealed again";
            ValidationError::new(setting::MASTER_KEY, reason, fix).into()
        }
        other => other,
    }
}
