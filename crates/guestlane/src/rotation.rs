//! One key after another: the next one made in time, a revoked one replaced at once, and both known to every running process within a second.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use guestlane_genesys::{Clock, Seam, Timestamp};
use tracing::info;

use crate::{
    error::Error,
    lane::Lane,
    request::Invalid,
    state::{State, count_seals},
    store::Store,
    token::{KeyLife, KeySchedule, KeyState, Keyring, KeyringError, MasterKey, Revocation, StoredKey},
};

/// How often a running process looks which keys there are.
const READ_EVERY: Duration = Duration::from_secs(1);

/// How often it looks whether the next key must be made. Keys are published for a minute at least.
const ROTATION_TICK: Duration = Duration::from_secs(10);

/// The keys of a running process. Whoever signs takes the key ring as it is; nobody waits for the store.
#[derive(Debug, Clone)]
pub(crate) struct LiveKeys {
    ring: Arc<ArcSwap<Keyring>>,
    master: Arc<MasterKey>,
    store: Store,
    reading: Arc<tokio::sync::Mutex<()>>,
}

impl LiveKeys {
    pub(crate) fn new(ring: Arc<Keyring>, master: Arc<MasterKey>, store: Store) -> Self {
        Self { ring: Arc::new(ArcSwap::new(ring)), master, store, reading: Arc::default() }
    }

    pub(crate) fn ring(&self) -> Arc<Keyring> {
        self.ring.load_full()
    }

    /// Reads the keys from the store again: another process may have rotated or revoked one.
    pub(crate) async fn read_again(&self) -> Result<(), Error> {
        let _alone = self.reading.lock().await; // what was read first must not take the place of what was read later
        let stored = self.store.signing_keys().await?;
        if let Some(renewed) = self.ring().renewed(&self.master, stored)? {
            self.ring.store(Arc::new(renewed));
            info!("the signing keys changed");
        }
        Ok(())
    }

    /// As [`read_again`](Self::read_again) where a key is not known: a session may have been begun a moment ago, with a key that is as young.
    pub(crate) async fn know(&self, kid: &str) {
        if self.ring().by_kid(kid).is_none()
            && let Err(error) = self.read_again().await
        {
            crate::store::log_failure(&error, "a signing key is not known, and the store cannot be asked");
        }
    }

    /// Does so every second, for as long as it is polled. What cannot be read leaves the keys as they are.
    pub(crate) async fn keep_reading(self, clock: Clock) {
        let mut told = false;
        let mut changes = self.store.changes();
        loop {
            tokio::select! {
                () = changes.next() => {}
                () = clock.sleep(READ_EVERY) => {}
            }
            match self.read_again().await {
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

impl Lane {
    /// Makes the next key where the schedule wants it by now and there is none. Says whether one was made.
    pub async fn rotate_if_due(&self) -> Result<bool, Error> {
        let now = self.clock.now();
        let keys = self.keyring().list(now);
        let active = keys.iter().find(|key| key.state == KeyState::Active).map(|key| key.active_from);
        let waits = keys.iter().any(|key| key.state == KeyState::Next);
        if waits || !active.is_some_and(|since| self.key_schedule.is_due(since, now)) {
            return Ok(false);
        }
        let made = make_next(&self.store, &self.master, self.key_schedule, &self.clock).await?;
        Ok(matches!(made, NextKey::Made(_)))
    }

    /// Does so for ever. Without a schedule, nothing.
    pub(crate) async fn keep_rotating(&self) {
        while self.key_schedule.rotate_every().is_some() {
            if let Err(error) = self.rotate_if_due().await {
                crate::store::log_failure(&error, "the next signing key could not be made; it is tried again");
            }
            self.clock.sleep(ROTATION_TICK).await;
        }
    }
}

impl State {
    /// Makes the next key now; it signs when it was published long enough. Refused where there is one already.
    pub async fn rotate_key(&self, schedule: KeySchedule, clock: &Clock) -> Result<StoredKey, Error> {
        let made = make_next(&self.store, &self.master, schedule, clock).await?;
        count_seals(&self.store, &self.master).await;
        match made {
            NextKey::Made(key) => Ok(key),
            NextKey::Waits(StoredKey { kid, life, .. }) => {
                let reason =
                    format!("cannot make another key: {kid} is the next one already, and signs from {} on", life.active_from());
                let fix = format!("wait until then; or revoke it first: guestlane keys revoke {kid} --yes");
                Err(Invalid::new("keys rotate", reason, fix).into())
            }
        }
    }

    /// What revoking that key would come to now.
    pub async fn would_revoke_key(&self, kid: &str, now: Timestamp) -> Result<Revocation, Error> {
        refuse_unrevocable(kid, Revocation::of(kid, self.store.signing_keys().await?, now))
    }

    /// Revokes a key: nobody may believe it any more. Where it signed, another signs from now on.
    pub async fn revoke_key(&self, kid: &str, now: Timestamp) -> Result<Revocation, Error> {
        loop {
            let spare = match self.would_revoke_key(kid, now).await? {
                Revocation::ByNew(new) => {
                    let master = Arc::clone(&self.master);
                    Some(generate(move || StoredKey::in_emergency(&master, new, now)).await?)
                }
                Revocation::Unknown | Revocation::Already(_) | Revocation::Alone(_) | Revocation::ByNext(..) => None,
            };
            // Without an answer, the keys changed meanwhile and a new one is needed after all.
            if let Some(done) = self.store.revoke_signing_key(kid.to_owned(), spare, now).await? {
                count_seals(&self.store, &self.master).await;
                self.store.seams.pass(Seam::KeyRevoked).await;
                return refuse_unrevocable(kid, done);
            }
        }
    }
}

fn refuse_unrevocable(kid: &str, revocation: Revocation) -> Result<Revocation, Error> {
    let invalid = |reason: String| Invalid::new("KID", reason, "see `guestlane keys list`").into();
    match revocation {
        Revocation::Unknown => Err(invalid(format!("`{}` is no key of this store", crate::request::shorten(kid)))),
        Revocation::Already(since) => Err(invalid(format!("{kid} is revoked since {since}"))),
        Revocation::Alone(_) | Revocation::ByNext(..) | Revocation::ByNew(_) => Ok(revocation),
    }
}

/// The key that signs next.
enum NextKey {
    /// It was made now.
    Made(StoredKey),
    /// There was one already.
    Waits(StoredKey),
}

async fn make_next(store: &Store, master: &Arc<MasterKey>, schedule: KeySchedule, clock: &Clock) -> Result<NextKey, Error> {
    let now = clock.now();
    let keys = store.signing_keys().await?;
    if let Some(next) = keys.iter().find(|key| !key.life.is_revoked() && key.life.active_from() > now) {
        return Ok(NextKey::Waits(next.clone()));
    }
    let (master, kid) = (Arc::clone(master), StoredKey::new_kid(&keys));
    let busy = clock.busy();
    let made = generate(move || StoredKey::next(&master, kid, &schedule, now)).await?;
    drop(busy);
    // Published from the moment in which it is written: whoever waited for that, or slept, must not make its time shorter.
    let clock_then = clock.clone();
    let life = move || KeyLife::next(&schedule, clock_then.now());
    let next = store.add_next_key(made.clone(), life, now).await?;
    store.seams.pass(Seam::NextKeyStored).await;
    if next.sealed != made.sealed {
        return Ok(NextKey::Waits(next)); // another process was quicker
    }
    info!(kid = next.kid, signs_from = %next.life.active_from(), "made the next signing key");
    Ok(NextKey::Made(next))
}

/// A key takes a tenth of a second of a processor: sessions go on meanwhile.
async fn generate(make: impl FnOnce() -> Result<StoredKey, KeyringError> + Send + 'static) -> Result<StoredKey, Error> {
    let made = tokio::task::spawn_blocking(make).await;
    Ok(made.unwrap_or_else(|_| Err(crate::token::KeyError::Unusable.into()))?)
}
