//! One key after another: the next one made in time, a revoked one replaced at once, and both known to every running process within a second.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use guestlane_genesys::{Clock, FailPoint, Timestamp};
use tracing::info;

use crate::{
    engine::SessionEngine,
    error::Error,
    request::ValidationError,
    store::Store,
    token::{KeyLifecycle, KeyState, Keyring, KeyringError, MasterKey, RevocationPlan, RotationPolicy, SealedSigningKey},
    workspace::{Workspace, count_seals},
};

/// How often a running process looks which keys there are.
const READ_EVERY: Duration = Duration::from_secs(1);

/// How often it looks whether the next key must be made. Keys are published for a minute at least.
const ROTATION_TICK: Duration = Duration::from_secs(10);

/// The keys of a running process. Whoever signs takes the key ring as it is; nobody waits for the store.
#[derive(Debug, Clone)]
pub(crate) struct KeyringCache {
    ring: Arc<ArcSwap<Keyring>>,
    master: Arc<MasterKey>,
    store: Store,
    reading: Arc<tokio::sync::Mutex<()>>,
}

impl KeyringCache {
    pub(crate) fn new(ring: Arc<Keyring>, master: Arc<MasterKey>, store: Store) -> Self {
        Self { ring: Arc::new(ArcSwap::new(ring)), master, store, reading: Arc::default() }
    }

    pub(crate) fn ring(&self) -> Arc<Keyring> {
        self.ring.load_full()
    }

    /// Reads the keys from the store again: another process may have rotated or revoked one.
    pub(crate) async fn reload(&self) -> Result<(), Error> {
        let _alone = self.reading.lock().await; // what was read first must not take the place of what was read later
        let stored = self.store.signing_keys().await?;
        if let Some(renewed) = self.ring().reload(&self.master, stored)? {
            self.ring.store(Arc::new(renewed));
            info!("the signing keys changed");
        }
        Ok(())
    }

    /// As [`read_again`](Self::read_again) where a key is not known: a session may have been begun a moment ago, with a key that is as young.
    pub(crate) async fn ensure_loaded(&self, kid: &str) {
        if self.ring().by_kid(kid).is_none()
            && let Err(error) = self.reload().await
        {
            crate::store::log_failure(&error, "a signing key is not known, and the store cannot be asked");
        }
    }

    /// Does so every second, for as long as it is polled. What cannot be read leaves the keys as they are.
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
                    crate::store::log_failure(&error, "the signing keys cannot be read again; those that are known go on");
                    told = true;
                }
            }
        }
    }
}

impl SessionEngine {
    /// Makes the next key where the schedule wants it by now and there is none. Says whether one was made.
    pub async fn rotate_if_due(&self) -> Result<bool, Error> {
        let now = self.clock.now();
        let keys = self.keyring().list(now);
        let active = keys.iter().find(|key| key.state == KeyState::Active).map(|key| key.active_from);
        let waits = keys.iter().any(|key| key.state == KeyState::Next);
        if waits || !active.is_some_and(|since| self.key_schedule.is_due(since, now)) {
            return Ok(false);
        }
        let made = generate_next_key(&self.store, &self.master, self.key_schedule, &self.clock).await?;
        Ok(matches!(made, NextKey::Generated(_)))
    }

    /// Does so for ever. Without a schedule, nothing.
    pub(crate) async fn rotation_loop(&self) {
        while self.key_schedule.rotation_interval().is_some() {
            if let Err(error) = self.rotate_if_due().await {
                crate::store::log_failure(&error, "the next signing key could not be made; it is tried again");
            }
            self.clock.sleep(ROTATION_TICK).await;
        }
    }
}

impl Workspace {
    /// Makes the next key now; it signs when it was published long enough. Refused where there is one already.
    pub async fn rotate_key(&self, schedule: RotationPolicy, clock: &Clock) -> Result<SealedSigningKey, Error> {
        let made = generate_next_key(&self.store, &self.master, schedule, clock).await?;
        count_seals(&self.store, &self.master).await;
        match made {
            NextKey::Generated(key) => Ok(key),
            NextKey::AlreadyPublished(SealedSigningKey { kid, life, .. }) => {
                let reason =
                    format!("cannot make another key: {kid} is the next one already, and signs from {} on", life.active_from());
                let fix = format!("wait until then; or revoke it first: guestlane signing-keys revoke {kid} --yes");
                Err(ValidationError::new("signing-keys rotate", reason, fix).into())
            }
        }
    }

    /// What revoking that key would come to now.
    pub async fn preview_revocation(&self, kid: &str, now: Timestamp) -> Result<RevocationPlan, Error> {
        check_revocable(kid, RevocationPlan::of(kid, self.store.signing_keys().await?, now))
    }

    /// Revokes a key: nobody may believe it any more. Where it signed, another signs from now on.
    pub async fn revoke_key(&self, kid: &str, now: Timestamp) -> Result<RevocationPlan, Error> {
        loop {
            let spare = match self.preview_revocation(kid, now).await? {
                RevocationPlan::GenerateNew(new) => {
                    let master = Arc::clone(&self.master);
                    Some(generate(move || SealedSigningKey::emergency_replacement(&master, new, now)).await?)
                }
                RevocationPlan::Unknown
                | RevocationPlan::AlreadyRevoked(_)
                | RevocationPlan::NoSuccessorNeeded(_)
                | RevocationPlan::PromoteNext(..) => None,
            };
            // Without an answer, the keys changed meanwhile and a new one is needed after all.
            if let Some(done) = self.store.revoke_signing_key(kid.to_owned(), spare, now).await? {
                count_seals(&self.store, &self.master).await;
                self.store.fail_points.hit(FailPoint::KeyRevoked).await;
                return check_revocable(kid, done);
            }
        }
    }
}

fn check_revocable(kid: &str, revocation: RevocationPlan) -> Result<RevocationPlan, Error> {
    let invalid = |reason: String| ValidationError::new("KID", reason, "see `guestlane signing-keys list`").into();
    match revocation {
        RevocationPlan::Unknown => Err(invalid(format!("`{}` is no key of this store", crate::request::shorten(kid)))),
        RevocationPlan::AlreadyRevoked(since) => Err(invalid(format!("{kid} is revoked since {since}"))),
        RevocationPlan::NoSuccessorNeeded(_) | RevocationPlan::PromoteNext(..) | RevocationPlan::GenerateNew(_) => Ok(revocation),
    }
}

/// The key that signs next.
enum NextKey {
    /// It was made now.
    Generated(SealedSigningKey),
    /// There was one already.
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
    if let Some(next) = keys.iter().find(|key| !key.life.is_revoked() && key.life.active_from() > now) {
        return Ok(NextKey::AlreadyPublished(next.clone()));
    }
    let (master, kid) = (Arc::clone(master), SealedSigningKey::new_kid(&keys));
    let busy = clock.pause_auto_advance();
    let made = generate(move || SealedSigningKey::next(&master, kid, &schedule, now)).await?;
    drop(busy);
    // Published from the moment in which it is written: whoever waited for that, or slept, must not make its time shorter.
    let clock_then = clock.clone();
    let life = move || KeyLifecycle::next(&schedule, clock_then.now());
    let next = store.add_next_key(made.clone(), life, now).await?;
    store.fail_points.hit(FailPoint::NextKeyStored).await;
    if next.sealed != made.sealed {
        return Ok(NextKey::AlreadyPublished(next)); // another process was quicker
    }
    info!(kid = next.kid, signs_from = %next.life.active_from(), "made the next signing key");
    Ok(NextKey::Generated(next))
}

/// A key takes a tenth of a second of a processor: sessions go on meanwhile.
async fn generate(
    make: impl FnOnce() -> Result<SealedSigningKey, KeyringError> + Send + 'static,
) -> Result<SealedSigningKey, Error> {
    let made = tokio::task::spawn_blocking(make).await;
    Ok(made.unwrap_or_else(|_| Err(crate::token::KeyError::Unusable.into()))?)
}
