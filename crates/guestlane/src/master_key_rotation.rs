//! Rotation of the master key, and the count of values sealed under it.
//!
//! During a rotation, both keys open sealed values. The values are sealed again in chunks, each in
//! one transaction. A crash in between loses nothing, and the same command continues. The previous
//! key is needed until a whole pass finds no value that only it opens.

use std::{
    ops::AddAssign,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use guestlane_runtime::{Clock, FailPoint};
use serde::Serialize;

use crate::{
    Error, StorageConfig, Workspace,
    engine::SessionEngine,
    master_key_file, setting,
    workspace::{GUEST_SESSION, count_seals},
};
use guestlane_core::{
    audit::ChangeAction,
    request::ValidationError,
    token::{MasterKey, MasterKeyError, signing_key_name},
};
use guestlane_store::{Replacement, Sealed, SealedPlace, Store};

/// How many sessions are sealed again in one transaction.
const CHUNK: u32 = 500;

/// A pass that finds values is followed by another. If this many passes find values, a process
/// still uses the previous key.
const MAX_PASSES: u32 = 3;

/// How often a running process adds its seals to the count in the store. A killed process loses at
/// most the count of this time.
const COUNT_INTERVAL: Duration = Duration::from_secs(60);

/// Counts of values that were sealed again under the current master key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resealed {
    /// Secrets of the store: those of webhooks and API keys, and the key of the audit log.
    pub secrets: u64,
    /// Signing keys.
    pub signing_keys: u64,
    /// Guest session tokens, one for each session on the surface `web-messaging`.
    pub guest_sessions: u64,
}

impl Resealed {
    /// The sum of all counts.
    pub fn total(&self) -> u64 {
        self.secrets + self.signing_keys + self.guest_sessions
    }
}

impl AddAssign for Resealed {
    fn add_assign(&mut self, other: Self) {
        self.secrets += other.secrets;
        self.signing_keys += other.signing_keys;
        self.guest_sessions += other.guest_sessions;
    }
}

impl Workspace {
    /// Seals again the values that the current master key does not open, until a whole pass finds
    /// none. Afterwards the current key alone opens everything, and the previous key can be
    /// removed.
    ///
    /// # Errors
    /// Returns [`MasterKeyError::Undecryptable`] for a value that neither key opens. Returns
    /// [`MasterKeyError::PreviousInUse`] if another process still uses the previous key. In both
    /// cases the previous key is still needed.
    pub async fn reseal(&self) -> Result<Resealed, Error> {
        self.store.delete_access_tokens().await?;
        let mut sum = Resealed::default();
        for _ in 0..MAX_PASSES {
            let pass = self.reseal_once().await?;
            sum += pass.replaced;
            if pass.found == 0 {
                let (key, now) = (self.master.id(), self.store.clock().now());
                self.store
                    .record_change(ChangeAction::MasterKeyRotated, key, now)
                    .await?;
                return Ok(sum);
            }
        }
        Err(MasterKeyError::PreviousInUse.into())
    }

    /// Runs one pass over all sealed values.
    async fn reseal_once(&self) -> Result<Pass, Error> {
        let mut pass = Pass::default();
        let keys = self.store.sealed_keys().await?;
        self.reseal_chunk(keys, &mut pass).await?;
        let mut after = None;
        loop {
            let chunk = self.store.sealed_sessions(after, CHUNK).await?;
            let is_last = chunk.len() < CHUNK as usize;
            after = chunk.last().and_then(|sealed| match sealed.place {
                SealedPlace::GuestSession(id) => Some(id),
                SealedPlace::Secret(_) | SealedPlace::SigningKey(_) => None,
            });
            self.reseal_chunk(chunk, &mut pass).await?;
            if is_last {
                return Ok(pass);
            }
        }
    }

    /// Counts the sealed values for which `counts` returns true.
    async fn count_sealed(
        &self,
        counts: impl Fn(&MasterKey, &Sealed) -> bool,
    ) -> Result<Resealed, Error> {
        let mut sum = Resealed::default();
        visit_sealed(&self.store, |value| {
            let counted = u64::from(counts(&self.master, value));
            match value.place {
                SealedPlace::Secret(_) => sum.secrets += counted,
                SealedPlace::SigningKey(_) => sum.signing_keys += counted,
                SealedPlace::GuestSession(_) => sum.guest_sessions += counted,
            }
            Ok(())
        })
        .await?;
        Ok(sum)
    }

    /// Seals again the values that are not sealed under the current key.
    async fn reseal_chunk(&self, values: Vec<Sealed>, pass: &mut Pass) -> Result<(), Error> {
        let stale = values
            .into_iter()
            .filter(|value| !self.master.is_current(&name(&value.place), &value.bytes));
        let replacements = stale
            .map(|value| seal_again(&self.master, value))
            .collect::<Result<Vec<_>, _>>()?;
        let Some(first) = replacements.first() else {
            return Ok(());
        };
        let are_sessions = matches!(first.place, SealedPlace::GuestSession(_));
        let keys = replacements
            .iter()
            .filter(|value| matches!(value.place, SealedPlace::SigningKey(_)))
            .count() as u64;
        pass.found += replacements.len() as u64;
        let replaced = self.store.replace_sealed(replacements).await?;
        pass.replaced += if are_sessions {
            Resealed {
                guest_sessions: replaced,
                ..Resealed::default()
            }
        } else {
            Resealed {
                signing_keys: keys.min(replaced),
                secrets: replaced.saturating_sub(keys),
                ..Resealed::default()
            }
        };
        count_seals(&self.store, &self.master).await;
        self.store.fail_points().hit(FailPoint::ChunkResealed).await;
        Ok(())
    }
}

/// The result of one pass.
#[derive(Debug, Default)]
struct Pass {
    /// Number of values that are not sealed under the current key.
    found: u64,
    /// Values that were replaced. Another process changed the rest meanwhile.
    replaced: Resealed,
}

/// Visits every sealed value of the store, until `visit` fails.
async fn visit_sealed(
    store: &Store,
    mut visit: impl FnMut(&Sealed) -> Result<(), Error>,
) -> Result<(), Error> {
    store.sealed_keys().await?.iter().try_for_each(&mut visit)?;
    let mut after = None;
    loop {
        let chunk = store.sealed_sessions(after, CHUNK).await?;
        chunk.iter().try_for_each(&mut visit)?;
        match chunk.last().map(|sealed| &sealed.place) {
            Some(SealedPlace::GuestSession(id)) if chunk.len() == CHUNK as usize => {
                after = Some(*id)
            }
            _ => return Ok(()),
        }
    }
}

/// Checks that `master` opens every sealed value of the store.
///
/// # Errors
/// Returns [`MasterKeyError::Undecryptable`] for the first value that it does not open, or an error of the
/// store.
pub(crate) async fn expect_opens_all(store: &Store, master: &MasterKey) -> Result<(), Error> {
    visit_sealed(store, |value| {
        Ok(master.open(&name(&value.place), &value.bytes).map(drop)?)
    })
    .await
}

/// The name under which a value is sealed.
fn name(place: &SealedPlace) -> String {
    match place {
        SealedPlace::Secret(name) => name.clone(),
        SealedPlace::SigningKey(kid) => signing_key_name(kid),
        SealedPlace::GuestSession(_) => GUEST_SESSION.to_owned(),
    }
}

fn seal_again(master: &MasterKey, value: Sealed) -> Result<Replacement, MasterKeyError> {
    let name = name(&value.place);
    let opened = master
        .open(&name, &value.bytes)
        .map_err(|error| match (error, &value.place) {
            (MasterKeyError::Undecryptable(_), SealedPlace::GuestSession(id)) => {
                MasterKeyError::Undecryptable(format!("{name} (session {id})"))
            }
            (error, _) => error,
        })?;
    Ok(Replacement {
        after: master.seal(&name, &opened)?,
        place: value.place,
        before: value.bytes,
    })
}

/// Rotates a master key that is in a file: stores a new key, seals all values again, and deletes
/// the old key. After a crash, the same call completes the rotation.
///
/// # Errors
/// If another process uses the key file or the store, nothing is changed. Later errors leave both
/// keys in their files, and the same call continues from there.
pub async fn rotate_master_key(places: &StorageConfig, clock: &Clock) -> Result<Resealed, Error> {
    expect_key_in_file(places)?;
    let path = &places.master_key_file;
    let _alone = master_key_file::lock_alone(path)?;
    Store::expect_unused(&places.database)?;
    let store = Store::open(&places.database, &places.home, clock, &places.fail_points()).await?;
    // A key that does not open this store belongs to another store and must not be replaced.
    let mut state = Workspace::with_key(
        places,
        clock,
        store,
        master_key_file::from_locked_file(path)?,
        false,
    )
    .await?;
    master_key_file::replace_in_file(path, &places.fail_points())?;
    state.master = Arc::new(master_key_file::from_locked_file(path)?);
    let resealed = state.reseal().await?;
    master_key_file::delete_previous(path)?;
    Ok(resealed)
}

/// The number of values that [`rotate_master_key`] would seal again. Changes nothing.
///
/// # Errors
/// Returns an error if the master key is not in a file, or there is no store.
pub async fn would_rotate_master_key(
    places: &StorageConfig,
    clock: &Clock,
) -> Result<Resealed, Error> {
    expect_key_in_file(places)?;
    Workspace::open_read_only(places, clock)
        .await?
        .count_sealed(|_, _| true)
        .await
}

fn expect_key_in_file(places: &StorageConfig) -> Result<(), Error> {
    if places.master_key.is_some() {
        let fix = "rotate it in the steps of docs/tokens.md";
        return Err(ValidationError::new(
            setting::MASTER_KEY,
            "is set, so the master key is not in a file",
            fix,
        )
        .into());
    }
    places.expect_store()?;
    let path = &places.master_key_file;
    if path.exists() {
        Ok(())
    } else {
        Err(MasterKeyError::Missing(path.clone()).into())
    }
}

/// Seals again the values under a previous master key that was given beside the current one.
/// Afterwards the previous key can be removed from the settings of all nodes.
///
/// # Errors
/// As for [`Workspace::reseal`]. Also returns an error if the two keys are not given.
pub async fn reseal_by_given_keys(
    places: &StorageConfig,
    clock: &Clock,
) -> Result<Resealed, Error> {
    expect_given_keys(places)?;
    Workspace::open_read_only(places, clock)
        .await?
        .reseal()
        .await
}

/// The number of values that [`reseal_by_given_keys`] would seal again. Changes nothing.
///
/// # Errors
/// Returns an error if the two keys are not given, or there is no store.
pub async fn would_reseal_by_given_keys(
    places: &StorageConfig,
    clock: &Clock,
) -> Result<Resealed, Error> {
    expect_given_keys(places)?;
    Workspace::open_read_only(places, clock)
        .await?
        .count_sealed(|master, value| !master.is_current(&name(&value.place), &value.bytes))
        .await
}

fn expect_given_keys(places: &StorageConfig) -> Result<(), Error> {
    if places.master_key.is_none() {
        let fix = "rotate the key in the file instead";
        return Err(ValidationError::new(
            setting::MASTER_KEY,
            "is not set, so the master key is in a file",
            fix,
        )
        .into());
    }
    if places.master_key_previous.is_none() {
        let fix = "set it to the key to be replaced, on every node, and reseal again";
        return Err(ValidationError::new(setting::MASTER_KEY_PREVIOUS, "is not set", fix).into());
    }
    Ok(())
}

impl SessionEngine {
    /// The number of values sealed under the current master key, by all processes that used this
    /// store. Seals of other processes are counted up to a minute late. One key may seal at most
    /// [`MasterKey::MAX_SEALS`] values.
    pub fn master_key_seals(&self) -> u64 {
        self.counted_seals.load(Ordering::Relaxed) + self.saga.master.uncounted_seals()
    }

    /// Adds this process's seals to the count in the store.
    pub(crate) async fn count_seals(&self) {
        if let Some(sum) = count_seals(&self.saga.store, &self.saga.master).await {
            self.counted_seals.store(sum, Ordering::Relaxed);
        }
    }

    /// Runs [`count_seals`](Self::count_seals) every minute; never returns.
    pub(crate) async fn keep_counting_seals(&self) {
        loop {
            self.saga.clock.sleep(COUNT_INTERVAL).await;
            self.count_seals().await;
        }
    }
}
