//! Rotation and revocation of signing keys. The next key is generated in time, a revoked key is
//! replaced at once, and every running process knows both within a second.

use std::{sync::Arc, time::Duration};

use guestlane_core::{
    request::ValidationError,
    token::{
        KeyLifecycle, KeyState, KeyringError, MasterKey, RevocationPlan, RotationPolicy,
        SealedSigningKey,
    },
};
use guestlane_runtime::{Clock, FailPoint, Timestamp};
use guestlane_store::Store;
use tracing::info;

use crate::{Error, Workspace, engine::SessionEngine, workspace::count_seals};

/// How often the rotation worker checks whether the next key is due. Keys are published for at
/// least a minute before they sign.
const ROTATION_TICK: Duration = Duration::from_secs(10);

impl SessionEngine {
    /// Generates the next key if the schedule requires one and none is published. Returns whether a
    /// key was generated.
    ///
    /// # Errors
    /// Returns an error if the key cannot be generated, sealed or stored.
    pub async fn rotate_if_due(&self) -> Result<bool, Error> {
        let now = self.saga.clock.now();
        let keys = self.keyring().list(now);
        let active = keys
            .iter()
            .find(|key| key.state == KeyState::Active)
            .map(|key| key.active_from);
        let waits = keys.iter().any(|key| key.state == KeyState::Next);
        if waits || !active.is_some_and(|since| self.key_rotation_policy.is_due(since, now)) {
            return Ok(false);
        }
        let made = generate_next_key(
            &self.saga.store,
            &self.saga.master,
            self.key_rotation_policy,
            &self.saga.clock,
        )
        .await?;
        Ok(matches!(made, NextKey::Generated(_)))
    }

    /// Runs [`rotate_if_due`](Self::rotate_if_due) periodically. Returns at once if the schedule
    /// has no rotation.
    pub(crate) async fn rotation_loop(&self) {
        while self.key_rotation_policy.rotation_interval().is_some() {
            if let Err(error) = self.rotate_if_due().await {
                guestlane_store::log_failure(
                    &error,
                    "failed to create the next signing key; retrying",
                );
            }
            self.saga.clock.sleep(ROTATION_TICK).await;
        }
    }
}

impl Workspace {
    /// Generates the next key now. It signs after its publication period.
    ///
    /// # Errors
    /// Returns an error if a next key is already published, or the key cannot be stored.
    pub async fn rotate_key(
        &self,
        schedule: RotationPolicy,
        clock: &Clock,
    ) -> Result<SealedSigningKey, Error> {
        let made = generate_next_key(&self.store, &self.master, schedule, clock).await?;
        count_seals(&self.store, &self.master).await;
        match made {
            NextKey::Generated(key) => Ok(key),
            NextKey::AlreadyPublished(SealedSigningKey { kid, life, .. }) => {
                let reason = format!(
                    "cannot create another key: {kid} is already the next key, and signs from {} on",
                    life.active_from()
                );
                let fix = format!("wait until then, or revoke {kid} first");
                Err(ValidationError::new("key rotation", reason, fix).into())
            }
        }
    }

    /// What revoking the key would do now. Changes nothing.
    ///
    /// # Errors
    /// Returns an error if the key is unknown or already revoked.
    pub async fn preview_revocation(
        &self,
        kid: &str,
        now: Timestamp,
    ) -> Result<RevocationPlan, Error> {
        check_revocable(
            kid,
            RevocationPlan::of(kid, self.store.signing_keys().await?, now),
        )
    }

    /// Revokes a key, so that tokens it signed are no longer accepted. If the key was active,
    /// another key signs from now on.
    ///
    /// # Errors
    /// Returns an error if the key is unknown or already revoked, or the store fails.
    pub async fn revoke_key(&self, kid: &str, now: Timestamp) -> Result<RevocationPlan, Error> {
        loop {
            let spare = match self.preview_revocation(kid, now).await? {
                RevocationPlan::GenerateNew(new) => {
                    let master = Arc::clone(&self.master);
                    Some(
                        generate(move || {
                            SealedSigningKey::emergency_replacement(&master, new, now)
                        })
                        .await?,
                    )
                }
                RevocationPlan::Unknown
                | RevocationPlan::AlreadyRevoked(_)
                | RevocationPlan::NoSuccessorNeeded(_)
                | RevocationPlan::PromoteNext(..) => None,
            };
            // `None` means that the keys changed meanwhile, and a new key is needed after all: plan
            // again.
            if let Some(done) = self
                .store
                .revoke_signing_key(kid.to_owned(), spare, now)
                .await?
            {
                count_seals(&self.store, &self.master).await;
                self.store.fail_points().hit(FailPoint::KeyRevoked).await;
                return check_revocable(kid, done);
            }
        }
    }
}

fn check_revocable(kid: &str, revocation: RevocationPlan) -> Result<RevocationPlan, Error> {
    let invalid = |reason: String| {
        ValidationError::new("kid", reason, "copy the ID from the list of signing keys").into()
    };
    match revocation {
        RevocationPlan::Unknown => Err(invalid(format!(
            "`{}` is not a key of this store",
            guestlane_core::request::shorten(kid)
        ))),
        RevocationPlan::AlreadyRevoked(since) => {
            Err(invalid(format!("{kid} was revoked at {since}")))
        }
        RevocationPlan::NoSuccessorNeeded(_)
        | RevocationPlan::PromoteNext(..)
        | RevocationPlan::GenerateNew(_) => Ok(revocation),
    }
}

/// The key that signs next.
enum NextKey {
    /// The key was generated now.
    Generated(SealedSigningKey),
    /// The key existed already.
    AlreadyPublished(SealedSigningKey),
}

async fn generate_next_key(
    store: &Store,
    master: &Arc<MasterKey>,
    schedule: RotationPolicy,
    clock: &Clock,
) -> Result<NextKey, Error> {
    let now = clock.now();
    let keys = store.signing_keys().await?;
    if let Some(next) = keys
        .iter()
        .find(|key| !key.life.is_revoked() && key.life.active_from() > now)
    {
        return Ok(NextKey::AlreadyPublished(next.clone()));
    }
    let (master, kid) = (Arc::clone(master), SealedSigningKey::new_kid(&keys));
    let busy = clock.pause_auto_advance();
    let made = generate(move || SealedSigningKey::next(&master, kid, &schedule, now)).await?;
    drop(busy);
    // Publication begins when the key is written. Read the clock then: a wait for the store must
    // not shorten the publication period.
    let clock_then = clock.clone();
    let life = move || KeyLifecycle::next(&schedule, clock_then.now());
    let next = store
        .add_next_key(made.clone(), Box::new(life), now)
        .await?;
    store.fail_points().hit(FailPoint::NextKeyStored).await;
    if next.sealed != made.sealed {
        return Ok(NextKey::AlreadyPublished(next)); // Another process stored its key first.
    }
    info!(kid = next.kid, signs_from = %next.life.active_from(), "created the next signing key");
    Ok(NextKey::Generated(next))
}

/// Generates a key on a blocking thread. It takes a tenth of a second of processor time, and
/// sessions must continue meanwhile.
async fn generate(
    make: impl FnOnce() -> Result<SealedSigningKey, KeyringError> + Send + 'static,
) -> Result<SealedSigningKey, Error> {
    let made = tokio::task::spawn_blocking(make).await;
    Ok(made.unwrap_or_else(|_| Err(guestlane_core::token::KeyError::Unusable.into()))?)
}
