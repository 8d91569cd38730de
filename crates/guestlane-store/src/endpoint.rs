//! State of webhook endpoints in the store, apart from their events.

use guestlane_runtime::Timestamp;

use guestlane_core::audit::AuditRecord;

/// A webhook endpoint that gets no events until it is enabled again or gets another URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisabledEndpoint {
    /// The number of the endpoint, from 1, in the order of the configured URLs.
    pub number: u32,
    /// Identifies the URL that was disabled. It is a digest, because a path or a query may be a
    /// secret.
    pub address: String,
    /// When the endpoint was disabled.
    pub at: Timestamp,
}

impl DisabledEndpoint {
    /// Prefix of the names of the properties.
    pub(super) const PREFIX: &str = "webhook_disabled ";

    pub(super) fn name(number: u32) -> String {
        format!("{}{number}", Self::PREFIX)
    }

    /// Returns the value of the property.
    pub(super) fn value(&self) -> String {
        format!("{} {}", self.at.unix_micros(), self.address)
    }

    /// Decodes a property. Returns `None` for a value that this version does not write.
    pub(super) fn read(name: &str, value: &str) -> Option<Self> {
        let (at, address) = value.split_once(' ')?;
        Some(Self {
            number: name.strip_prefix(Self::PREFIX)?.parse().ok()?,
            address: address.to_owned(),
            at: Timestamp::from_unix_micros(at.parse().ok()?),
        })
    }
}

/// Replaces a sealed secret only if its value is still `before`.
#[derive(Debug, Clone)]
pub struct SecretChange {
    /// Name of the secret.
    pub name: String,
    /// The sealed value to be replaced.
    pub before: Vec<u8>,
    /// The sealed value that replaces it.
    pub after: Vec<u8>,
    /// The audit record of the change, if it changes what the store trusts.
    pub record: Option<AuditRecord>,
}
