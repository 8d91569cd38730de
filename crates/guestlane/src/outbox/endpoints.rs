//! The webhook endpoints: their signing keys, from the settings or the store, and whether each is
//! disabled.

mod configured_keys;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{SHA256, digest};
use guestlane_runtime::{FailPoint, Timestamp};
use tracing::warn;
use url::Url;

use super::keys::{EndpointKeys, InvalidKeys, KeyKind};
use crate::{Error, WebhookConfig, Workspace, setting, workspace::count_seals};
pub(crate) use configured_keys::ConfiguredKeys;
use configured_keys::{given_keys, invalid};
use guestlane_core::{
    audit::{AuditRecord, ChangeAction},
    request::ValidationError,
    token::MasterKey,
};
use guestlane_store::{DisabledEndpoint, SealedPlace, SecretChange, Store};

/// Prefix of the names of the endpoints' own keys.
const SECRET_PREFIX: &str = "webhook endpoint ";

/// Maximum number of attempts to change keys that other processes change at the same time.
const MAX_READ_ATTEMPTS: usize = 10;

/// Longest overlap in which a replaced key still signs.
pub(super) const MAX_OVERLAP: Duration = Duration::from_secs(90 * 24 * 3600);

/// A webhook endpoint: one of the configured URLs.
#[derive(Debug, Clone, Default)]
pub struct Endpoint {
    /// Number of the endpoint, from 1, in the order of the configured URLs.
    pub number: u32,
    /// The keys that sign its events.
    pub keys: EndpointKeys,
    /// When the endpoint was disabled because it responded 410 Gone.
    pub disabled_at: Option<Timestamp>,
}

/// The configured endpoints, with their state in the store.
#[derive(Debug, Clone)]
pub struct Endpoints {
    addresses: Vec<String>,
    /// The keys of the settings. All clones share them, so that a reload replaces them everywhere.
    given: Arc<ArcSwapOption<Vec<EndpointKeys>>>,
    /// Whether the settings name the endpoints. Without them, one endpoint without an address
    /// exists.
    are_named: bool,
    store: Store,
    master: Arc<MasterKey>,
}

impl Endpoints {
    /// Returns the endpoints of `crm`.
    ///
    /// Without settings one endpoint exists, so that its secret can be generated before its address
    /// is known.
    ///
    /// # Errors
    /// Returns an error if the configured secrets do not match the addresses.
    pub fn new(state: &Workspace, crm: Option<&WebhookConfig>) -> Result<Self, Error> {
        let urls = crm.map(|crm| crm.urls.as_slice()).unwrap_or_default();
        let given = Arc::new(ArcSwapOption::new(given_keys(crm)?.0));
        let addresses = addresses_of(urls);
        let (store, master) = (state.store.clone(), Arc::clone(&state.master));
        Ok(Self {
            addresses,
            given,
            are_named: !urls.is_empty(),
            store,
            master,
        })
    }

    /// Returns the keys of the settings `crm` if they differ from those in use.
    ///
    /// # Errors
    /// Returns an error if the keys cannot be used, or if the addresses changed as well. Then the
    /// order of the keys does not identify the endpoints in use.
    pub(super) fn other_keys(
        &self,
        crm: Option<&WebhookConfig>,
    ) -> Result<Option<ConfiguredKeys>, Error> {
        let new = given_keys(crm)?;
        let in_use = ConfiguredKeys(self.given.load_full());
        if new.is_same(&in_use) {
            return Ok(None);
        }
        if addresses_of(crm.map(|crm| crm.urls.as_slice()).unwrap_or_default()) != self.addresses {
            let fix = "restart guestlane to apply both changes, or revert one of them";
            return Err(ValidationError::new(
                setting::WEBHOOK_URLS,
                "was changed together with webhooks.secret",
                fix,
            )
            .into());
        }
        Ok(Some(new))
    }

    /// Replaces the configured keys and returns the previous ones.
    pub(super) fn replace_given(&self, new: ConfiguredKeys) -> ConfiguredKeys {
        ConfiguredKeys(self.given.swap(new.0))
    }

    /// Returns the number of endpoints.
    pub fn count(&self) -> u32 {
        u32::try_from(self.addresses.len()).unwrap_or(u32::MAX)
    }

    /// Whether several endpoints share one configured secret, so that each could sign for the
    /// others.
    fn share_a_secret(&self) -> bool {
        let given = self.given.load();
        let Some([first, others @ ..]) = given.as_deref().map(Vec::as_slice) else {
            return false;
        };
        let text = |keys: &EndpointKeys| keys.secret().map(|secret| secret.expose().to_owned());
        others.iter().any(|keys| text(keys) == text(first))
    }

    /// Generates missing secrets and returns all endpoints.
    ///
    /// # Errors
    /// Returns an error if the store fails, or if its secrets cannot be decrypted.
    pub async fn open(&self) -> Result<Vec<Endpoint>, Error> {
        if self.share_a_secret() {
            warn!(
                "several webhook endpoints share one secret, so that each of them can sign events for the others; \
                 configure one secret for each, in the order of their URLs"
            );
        }
        if self.given.load().is_none() {
            for number in 1..=self.count() {
                self.complete(number, KeyKind::Secret).await?;
            }
        }
        self.store
            .fail_points()
            .hit(FailPoint::WebhookSecretStored)
            .await;
        self.read().await
    }

    /// Reads all endpoints without a change. An endpoint that no process has used yet has no keys.
    ///
    /// # Errors
    /// Returns an error if the store fails, or if its secrets cannot be decrypted.
    pub async fn read(&self) -> Result<Vec<Endpoint>, Error> {
        let disabled = self.store.disabled_endpoints().await?;
        let mut kept = vec![EndpointKeys::default(); self.addresses.len()];
        for sealed in self.store.sealed_keys().await? {
            let SealedPlace::Secret(name) = &sealed.place else {
                continue;
            };
            let Some(number) = name
                .strip_prefix(SECRET_PREFIX)
                .and_then(|number| number.parse::<usize>().ok())
            else {
                continue;
            };
            if let Some(keys) = number.checked_sub(1).and_then(|index| kept.get_mut(index)) {
                *keys = self.opened(name, &sealed.bytes)?;
            }
        }
        let given = self.given.load();
        let endpoint = |((number, address), kept): ((u32, &String), EndpointKeys)| Endpoint {
            number,
            disabled_at: disabled
                .iter()
                .find(|it| it.number == number && it.address == *address)
                .map(|it| it.at),
            keys: match given
                .as_ref()
                .and_then(|given| given.get(number as usize - 1))
            {
                Some(given) => given.clone().with_ed25519_of(&kept),
                None => kept,
            },
        };
        Ok((1..).zip(&self.addresses).zip(kept).map(endpoint).collect())
    }

    /// Generates the Ed25519 key of an endpoint that has none. Its events then carry both
    /// signatures.
    ///
    /// # Errors
    /// Returns an error if `number` is not an endpoint, or if the store fails.
    pub async fn add_ed25519(&self, number: u32) -> Result<(), Error> {
        self.expect(number)?;
        let is_given = self
            .given
            .load()
            .as_ref()
            .and_then(|given| given.get(number as usize - 1)?.public_key())
            .is_some();
        if is_given {
            Ok(())
        } else {
            self.complete(number, KeyKind::Ed25519).await
        }
    }

    /// Replaces an endpoint's current key by a fresh one. The previous key signs for `overlap`
    /// longer.
    ///
    /// # Errors
    /// Returns an error if `number` is not an endpoint, if the settings give the key, or if the
    /// store fails. The same holds if `overlap` exceeds 90 days, or if too many earlier
    /// keys still sign.
    pub async fn rotate(
        &self,
        number: u32,
        kind: KeyKind,
        overlap: Duration,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.expect(number)?;
        if overlap > MAX_OVERLAP {
            return Err(ValidationError::new(
                "overlap",
                "is longer than 90 days",
                "write it like 24h or 7d",
            )
            .into());
        }
        let given = self.given.load();
        let given = given
            .as_ref()
            .and_then(|given| given.get(number as usize - 1));
        if given.is_some_and(|keys| kind == KeyKind::Secret || keys.public_key().is_some()) {
            let fix = "write NEW,OLD there for this endpoint, reload the settings, and remove OLD once the receiver has NEW; \
                 or remove the setting to have secrets generated and stored";
            return Err(ValidationError::new(
                setting::WEBHOOK_SECRET,
                "is set, so the key is not in the store and cannot be rotated there",
                fix,
            )
            .into());
        }
        self.complete(number, kind).await?;
        let detail = match kind {
            KeyKind::Secret => format!("v1, overlap {} h", overlap.as_secs() / 3600),
            KeyKind::Ed25519 => format!("v1a, overlap {} h", overlap.as_secs() / 3600),
        };
        let record = AuditRecord::change(
            ChangeAction::WebhookKeyRotated,
            number.to_string(),
            Some(detail),
            now,
        );
        self.change(number, Some(record), |keys| {
            keys.rotated(kind, overlap, now).map(Some)
        })
        .await
    }

    /// Enables a disabled endpoint. Returns whether it was disabled.
    ///
    /// # Errors
    /// Returns an error if `number` is not an endpoint, or if the store fails.
    pub async fn enable(&self, number: u32) -> Result<bool, Error> {
        self.expect(number)?;
        Ok(self.store.enable_endpoint(number).await?)
    }

    /// Disables an endpoint. Returns whether it was enabled.
    pub(super) async fn disable(&self, number: u32, now: Timestamp) -> Result<bool, Error> {
        let address = self.expect(number)?.clone();
        Ok(self
            .store
            .disable_endpoint(DisabledEndpoint {
                number,
                address,
                at: now,
            })
            .await?)
    }

    fn expect(&self, number: u32) -> Result<&String, Error> {
        let known = number
            .checked_sub(1)
            .and_then(|index| self.addresses.get(index as usize));
        known.ok_or_else(|| {
            let reason = match (self.are_named, self.count()) {
                (false, _) => "is greater than 1, and no URL is configured".to_owned(),
                (true, 1) => "is not that of an endpoint: there is one".to_owned(),
                (true, count) => format!("is not that of an endpoint: there are {count}"),
            };
            ValidationError::new(
                "the endpoint's number",
                reason,
                "count from 1, in the order of the URLs",
            )
            .into()
        })
    }

    async fn complete(&self, number: u32, kind: KeyKind) -> Result<(), Error> {
        self.change(number, None, |keys| keys.completed(kind)).await
    }

    /// Changes an endpoint's keys in the store by compare-and-swap, unless `change` returns `None`.
    async fn change(
        &self,
        number: u32,
        record: Option<AuditRecord>,
        change: impl Fn(&EndpointKeys) -> Result<Option<EndpointKeys>, InvalidKeys>,
    ) -> Result<(), Error> {
        let name = format!("{SECRET_PREFIX}{number}");
        for _ in 0..MAX_READ_ATTEMPTS {
            let before = self.store.get_or_insert_secret(&name, None).await?;
            let keys = before
                .as_deref()
                .map(|sealed| self.opened(&name, sealed))
                .transpose()?
                .unwrap_or_default();
            let Some(keys) = change(&keys).map_err(|error| invalid(&error))? else {
                return Ok(());
            };
            let after = self.master.seal(&name, &keys.to_store())?;
            count_seals(&self.store, &self.master).await;
            let is_there = match before {
                None => {
                    self.store
                        .get_or_insert_secret(&name, Some(after.clone()))
                        .await?
                        .as_ref()
                        == Some(&after)
                }
                Some(before) => {
                    let change = SecretChange {
                        name: name.clone(),
                        before,
                        after,
                        record: record.clone(),
                    };
                    self.store.replace_secret(change).await?
                }
            };
            if is_there {
                return Ok(());
            }
        }
        let fix = "try again when no other process changes the keys of the endpoint";
        Err(ValidationError::new(
            format!("the keys of {name}"),
            "were changed repeatedly by another process",
            fix,
        )
        .into())
    }

    fn opened(&self, name: &str, sealed: &[u8]) -> Result<EndpointKeys, Error> {
        let opened = self.master.open(name, sealed)?;
        EndpointKeys::from_store(&opened)
            .map_err(|_| guestlane_store::StoreError::Row("secret.sealed").into())
    }
}

/// Returns the addresses' digests. Without settings, one endpoint without an address exists.
fn addresses_of(urls: &[Url]) -> Vec<String> {
    if urls.is_empty() {
        vec![String::new()]
    } else {
        urls.iter().map(digest_of).collect()
    }
}

/// Returns a digest that identifies an address without revealing it.
fn digest_of(url: &Url) -> String {
    let hash = digest(&SHA256, url.as_str().as_bytes());
    hash.as_ref()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests;
