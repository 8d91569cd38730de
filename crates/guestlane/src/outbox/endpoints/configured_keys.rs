//! Signing keys that the settings contain.

use std::sync::Arc;

use guestlane_core::request::ValidationError;

use super::super::keys::{EndpointKeys, InvalidKeys};
use crate::{Error, WebhookConfig, setting};

/// The configured keys, one entry for each endpoint, or `None` if the store has the keys.
#[derive(Debug, Clone)]
pub(crate) struct ConfiguredKeys(pub(super) Option<Arc<Vec<EndpointKeys>>>);

impl ConfiguredKeys {
    /// Whether the endpoints in both configurations have the same keys.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => one
                .iter()
                .zip(other.iter())
                .all(|(one, other)| one.is_same(other)),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
}

pub(super) fn given_keys(crm: Option<&WebhookConfig>) -> Result<ConfiguredKeys, Error> {
    let Some((secret, crm)) = crm.and_then(|crm| crm.secret.as_ref().zip(Some(crm))) else {
        return Ok(ConfiguredKeys(None));
    };
    let keys = EndpointKeys::given(secret, crm.urls.len()).map_err(|error| invalid(&error))?;
    Ok(ConfiguredKeys(Some(Arc::new(keys))))
}

pub(super) fn invalid(error: &InvalidKeys) -> Error {
    let fix = match error {
        InvalidKeys::StillSigning(_) => {
            "wait until then, or end the earlier keys at once with an overlap of 0h"
        }
        _ => "remove it to have secrets generated and stored, or write one entry for each address",
    };
    ValidationError::new(setting::WEBHOOK_SECRET, error.to_string(), fix).into()
}
