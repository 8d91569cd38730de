//! What the store keeps about webhook endpoints beside their events.

use guestlane_runtime::Timestamp;

use guestlane_core::audit::AuditRecord;

/// An endpoint that gets no events until it is enabled again or has another address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisabledEndpoint {
    /// From 1, in the order of `CRM_WEBHOOK_URL`.
    pub number: u32,
    /// Identifies the address that was disabled: a digest, because a path or a query may be a secret.
    pub address: String,
    /// When the endpoint was disabled.
    pub at: Timestamp,
}

impl DisabledEndpoint {
    /// The names of the properties begin with it.
    pub(super) const PREFIX: &str = "webhook_disabled ";

    pub(super) fn name(number: u32) -> String {
        format!("{}{number}", Self::PREFIX)
    }

    /// The value of the property.
    pub(super) fn value(&self) -> String {
        format!("{} {}", self.at.unix_micros(), self.address)
    }

    /// `None` for what this version does not write.
    pub(super) fn read(name: &str, value: &str) -> Option<Self> {
        let (at, address) = value.split_once(' ')?;
        Some(Self {
            number: name.strip_prefix(Self::PREFIX)?.parse().ok()?,
            address: address.to_owned(),
            at: Timestamp::from_unix_micros(at.parse().ok()?),
        })
    }
}

/// A sealed secret that takes the place of another one and of nothing else.
#[derive(Debug, Clone)]
pub struct SecretChange {
    /// Name of the secret.
    pub name: String,
    /// The sealed value to be replaced.
    pub before: Vec<u8>,
    /// The sealed value that replaces it.
    pub after: Vec<u8>,
    /// What the audit log says of it, where that is a change of trust.
    pub record: Option<AuditRecord>,
}
