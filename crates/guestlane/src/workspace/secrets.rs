//! Secrets of a store, and sealed guest session tokens.

use guestlane_core::{
    api_key::ApiKeyHasher,
    request::ValidationError,
    token::{MasterKey, MasterKeyError},
};
use guestlane_genesys::BaseUrl;
use guestlane_store::Store;
use guestlane_tlog::NoteSigner;
use zeroize::Zeroizing;

use super::{AUDIT_KEY, count_seals};
use crate::{Error, setting};

pub(super) fn same_platform(store: &Store, known: &str, base: &BaseUrl) -> Result<(), Error> {
    if known == base.as_str() {
        return Ok(());
    }
    let reason = format!("belongs to the platform at {known}, not to {base}");
    let fix = "use another store for this platform; a store has the sessions of one platform";
    Err(Error::Settings(vec![ValidationError::new(
        setting::of_store(store),
        reason,
        fix,
    )]))
}

/// Returns a secret of the store, opened. It is created on first use.
async fn get_or_create_secret(
    store: &Store,
    master: &MasterKey,
    name: &'static str,
    new: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, Error>,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let kept = match store.get_or_insert_secret(name, None).await? {
        Some(kept) => kept,
        // If two processes start at once, the store keeps the secret of the first one, and both use
        // it.
        None => {
            let kept = store
                .get_or_insert_secret(name, Some(master.seal(name, &new()?)?))
                .await?;
            count_seals(store, master).await;
            kept.unwrap_or_default()
        }
    };
    Ok(master.open(name, &kept)?)
}

pub(crate) async fn api_key_hash(store: &Store, master: &MasterKey) -> Result<ApiKeyHasher, Error> {
    let new = || {
        let mut secret = Zeroizing::new(vec![0; 32]);
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| MasterKeyError::Unusable)?;
        Ok(secret)
    };
    Ok(ApiKeyHasher::new(
        &get_or_create_secret(store, master, "the API keys' secret", new).await?,
    ))
}

pub(super) async fn audit_signer(store: &Store, master: &MasterKey) -> Result<NoteSigner, Error> {
    let new = || {
        NoteSigner::generate()
            .map(|seed| seed.to_vec().into())
            .ok_or(MasterKeyError::Unusable.into())
    };
    let seed = get_or_create_secret(store, master, AUDIT_KEY, new).await?;
    NoteSigner::from_seed(&seed)
        .ok_or_else(|| MasterKeyError::Undecryptable(AUDIT_KEY.to_owned()).into())
}
