//! The request for a session. It is parsed once, at the edge: a [`SessionRequest`] cannot be
//! malformed.

mod attributes;
mod hidden;
mod idempotency_key;
mod person;
mod phone;

use std::{collections::BTreeMap, fmt, str::FromStr};

use aws_lc_rs::digest;
use serde::Serialize;
use uuid::Uuid;

pub use attributes::Attributes;
pub use idempotency_key::{IdempotencyKey, Owner};
pub use person::ContactDetails;

/// An invalid value: its field, what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("{field}: {reason}; {fix}")]
pub struct ValidationError {
    /// Name of the field, as the caller writes it.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub fix: String,
    /// Whether the condition may pass without a change of the input, such as a port in use or a
    /// file that does not exist yet.
    #[serde(skip)]
    pub may_pass: bool,
}

impl ValidationError {
    /// Creates an error from its field, reason and fix.
    pub fn new(
        field: impl Into<String>,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
            fix: fix.into(),
            may_pass: false,
        }
    }

    /// Marks the error as a condition of the machine that may pass by itself.
    #[must_use]
    pub fn may_pass(self) -> Self {
        Self {
            may_pass: true,
            ..self
        }
    }

    /// Returns what is wrong as one sentence. The field is its subject, unless the reason has its
    /// own.
    pub fn sentence(&self) -> String {
        let has_subject = ["the ", "one "]
            .iter()
            .any(|subject| self.reason.starts_with(subject));
        let colon = if has_subject { ":" } else { "" };
        format!("{}{colon} {}", self.field, self.reason)
    }
}

/// ID of a guest in the CRM: 1 to 128 characters. It has no invisible characters, because two IDs
/// that look the same would be two guests. It has no white space at either end, because the
/// platform would strip it, and two guests would become one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct GuestId(Box<str>);

impl GuestId {
    /// Largest length, in characters.
    pub const MAX: usize = 128;

    /// The ID as the caller wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses an ID that a store, a token or an audit log has already. Earlier versions accepted
    /// invisible characters other than control characters. Such guests must still be found,
    /// completed and erased.
    ///
    /// # Errors
    /// Returns an error if the ID is empty or too long, has a control character, or has white space
    /// at an end.
    pub fn recorded(text: &str) -> Result<Self, ValidationError> {
        let invalid = |reason: String, fix: &str| Err(ValidationError::new("guestId", reason, fix));
        let length = text.chars().count();
        if text.is_empty() {
            return invalid("is empty".into(), "set it to the guest's ID in your CRM");
        }
        if length > Self::MAX {
            return invalid(
                format!("has {length} characters"),
                "use at most 128, for example a hash of a longer ID",
            );
        }
        if text.contains(char::is_control) {
            hidden::check_identifier("guestId", text)?;
        }
        if text.trim() != text {
            return invalid("begins or ends with white space".into(), "trim it");
        }
        Ok(Self(text.into()))
    }
}

impl FromStr for GuestId {
    type Err = ValidationError;

    fn from_str(text: &str) -> Result<Self, ValidationError> {
        let guest = Self::recorded(text);
        hidden::check_identifier("guestId", text).and(guest)
    }
}

impl fmt::Display for GuestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Shows the length only: the ID is personal data and must not be logged.
impl fmt::Debug for GuestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestId({} bytes)", self.0.len())
    }
}

/// ID of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueueId(pub Uuid);

impl FromStr for QueueId {
    type Err = ValidationError;

    fn from_str(text: &str) -> Result<Self, ValidationError> {
        let fix = "copy the queue's id from Admin > Contact Center > Queues; it looks like 5e0c0000-0000-4000-8000-000000000001";
        hidden::check_identifier("queueId", text)?;
        let hyphenated = text.len() == 36;
        match Uuid::try_parse(text) {
            Ok(id) if hyphenated => Ok(Self(id)),
            _ if text.is_empty() => Err(ValidationError::new("queueId", "is empty", fix)),
            _ => Err(ValidationError::new(
                "queueId",
                format!("`{}` is not a UUID", shorten(text)),
                fix,
            )),
        }
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A request to create one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRequest {
    /// The guest.
    pub guest: GuestId,
    /// Name and contact details of the guest.
    pub contact_details: ContactDetails,
    /// Queue in which the conversation opens.
    pub queue: QueueId,
    /// Attributes of the guest.
    pub attributes: Attributes,
    /// Idempotency key.
    pub key: IdempotencyKey,
}

impl SessionRequest {
    /// SHA-256 over the canonical form. Two requests with the same key must have equal
    /// fingerprints.
    pub fn fingerprint(&self) -> [u8; 32] {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Canonical<'a> {
            guest_id: &'a str,
            queue_id: Uuid,
            attributes: &'a BTreeMap<String, String>,
            // Omit an empty value: requests stored before this field existed keep their
            // fingerprint.
            #[serde(skip_serializing_if = "ContactDetails::is_empty")]
            person: &'a ContactDetails,
        }
        let canonical = Canonical {
            guest_id: self.guest.as_str(),
            queue_id: self.queue.0,
            attributes: self.attributes.as_map(),
            person: &self.contact_details,
        };
        let canonical = serde_json::to_vec(&canonical).unwrap_or_default();
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, &canonical).as_ref());
        fingerprint
    }

    /// Names of the fields in which `other` differs.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut fields = Vec::new();
        if self.guest != other.guest {
            fields.push("guestId".to_owned());
        }
        if self.queue != other.queue {
            fields.push("queueId".to_owned());
        }
        fields.extend(
            self.contact_details
                .differences(&other.contact_details)
                .map(str::to_owned),
        );
        let (mine, theirs) = (self.attributes.as_map(), other.attributes.as_map());
        let names: std::collections::BTreeSet<_> = mine.keys().chain(theirs.keys()).collect();
        fields.extend(
            names
                .into_iter()
                .filter(|name| mine.get(*name) != theirs.get(*name))
                .map(|name| format!("attributes.{name}")),
        );
        fields
    }
}

/// Checks that a text has no invisible character; see the module `hidden`.
///
/// # Errors
/// The error names the field, the character and its position.
pub fn check_visible(field: &str, text: &str) -> Result<(), ValidationError> {
    hidden::check_identifier(field, text)
}

/// Shortens a caller's text for a message.
pub fn shorten(text: &str) -> String {
    guestlane_runtime::text::one_line(&text.chars().take(60).collect::<String>())
}

#[cfg(test)]
mod tests;
