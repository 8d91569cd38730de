//! The request for a session. It is parsed once, at the edge: a [`SessionRequest`] cannot be
//! malformed.

mod hidden;
mod person;
mod phone;

use std::{collections::BTreeMap, fmt, str::FromStr};

use aws_lc_rs::digest;
use serde::Serialize;
use uuid::Uuid;

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

/// Attributes of a guest: names and values that become claims of the guest token and attributes of
/// the contact.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Attributes(BTreeMap<String, String>);

impl Attributes {
    /// Largest size of all names and values together, in bytes: `maxCustomDataBytes` of the guest
    /// API (docs/platform.md#attributes).
    pub const MAX_BYTES: usize = 2048;

    /// Largest number of attributes.
    pub const MAX_COUNT: usize = 50;

    /// Longest name, in characters.
    pub const MAX_NAME: usize = 64;

    /// Names that belong to the product or to JWT (RFC 7519, section 4.1). They are compared
    /// without regard to case, because some downstream readers do so.
    pub const RESERVED: [&'static str; 11] = [
        "guestToken",
        "sessionToken",
        "routingTarget",
        "guestId",
        "iss",
        "sub",
        "aud",
        "exp",
        "nbf",
        "iat",
        "jti",
    ];

    /// Parses pairs of names and values. A name that occurs twice is an error.
    ///
    /// # Errors
    /// The error names the first invalid attribute.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, ValidationError> {
        Self::checked(pairs, |name| {
            let field = format!("attributes.{}", shorten(name));
            hidden::check_identifier(&field, name).map_err(|invalid| ValidationError {
                reason: format!("the name {}", invalid.reason),
                ..invalid
            })
        })
    }

    /// Parses attributes that a store has already. Earlier versions accepted names with invisible
    /// characters.
    ///
    /// # Errors
    /// The error names the first attribute that is invalid by the rules of earlier versions.
    pub fn recorded(pairs: BTreeMap<String, String>) -> Result<Self, ValidationError> {
        Self::checked(pairs, |_| Ok(()))
    }

    fn checked<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
        check_visible: impl Fn(&str) -> Result<(), ValidationError>,
    ) -> Result<Self, ValidationError> {
        let mut attributes = BTreeMap::new();
        for (name, value) in pairs {
            let (name, value) = (name.into(), value.into());
            check_visible(&name)?;
            check_name(&name)?;
            check_value(&name, &value)?;
            let field = format!("attributes.{name}");
            if attributes.insert(name, value).is_some() {
                return Err(ValidationError::new(
                    field,
                    "is given twice",
                    "give it once",
                ));
            }
        }
        if attributes.len() > Self::MAX_COUNT {
            let reason = format!("are too many: {}", attributes.len());
            return Err(ValidationError::new(
                "attributes",
                reason,
                format!("use at most {}", Self::MAX_COUNT),
            ));
        }
        let bytes = attributes
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum::<usize>();
        if bytes > Self::MAX_BYTES {
            let reason = format!("have {bytes} bytes in names and values together");
            return Err(ValidationError::new(
                "attributes",
                reason,
                format!(
                    "shorten them to at most {} bytes, the platform's maximum",
                    Self::MAX_BYTES
                ),
            ));
        }
        Ok(Self(attributes))
    }

    /// The attributes, sorted by name.
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

fn check_name(name: &str) -> Result<(), ValidationError> {
    let field = format!("attributes.{}", shorten(name));
    if name.is_empty() {
        return Err(ValidationError::new(
            "attributes",
            "one has an empty name",
            "write NAME=VALUE",
        ));
    }
    if name.chars().count() > Attributes::MAX_NAME {
        return Err(ValidationError::new(
            field,
            "the name is too long",
            format!("use at most {} characters", Attributes::MAX_NAME),
        ));
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(ValidationError::new(
            field,
            "the name has white space or a control character",
            "remove it",
        ));
    }
    if let Some(reserved) = Attributes::RESERVED
        .iter()
        .find(|reserved| reserved.eq_ignore_ascii_case(name))
    {
        let reason =
            format!("the name is reserved ({reserved} is set by guestlane or by the token)");
        return Err(ValidationError::new(field, reason, "use another name"));
    }
    Ok(())
}

fn check_value(name: &str, value: &str) -> Result<(), ValidationError> {
    let bad = value
        .chars()
        .position(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
    match bad {
        Some(at) => {
            let reason = format!("the value has a control character at position {}", at + 1);
            Err(ValidationError::new(
                format!("attributes.{name}"),
                reason,
                "remove it",
            ))
        }
        None => Ok(()),
    }
}

/// Shows the names only: the values are personal data.
impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The owner of idempotency keys. The same key of two owners means two sessions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(Box<str>);

impl Owner {
    /// The owner of keys from the command line, and from programs that use the library.
    pub fn local() -> Self {
        Self("local".into())
    }

    /// The owner of API keys, as the store names it.
    pub fn of_api_key(owner: &str) -> Self {
        Self(owner.into())
    }

    /// The owner as the store has it.
    pub fn stored(owner: &str) -> Self {
        Self(owner.into())
    }

    /// The owner as the store keeps it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The caller's idempotency key for one session: the same key of the same owner means the same
/// session.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdempotencyKey {
    text: Box<str>,
    owner: Owner,
}

impl IdempotencyKey {
    /// Largest length, in characters.
    pub const MAX: usize = 255;

    const GENERATED: &'static str = "webchat-session-";

    /// Generates a key in the form of requirement R6 (docs/requirements.md):
    /// `webchat-session-<uuid>`.
    pub fn generate() -> Self {
        Self::local(format!("{}{}", Self::GENERATED, Uuid::new_v4()))
    }

    fn local(text: impl Into<Box<str>>) -> Self {
        Self {
            text: text.into(),
            owner: Owner::local(),
        }
    }

    /// Returns the same key with another owner. A parsed key is [local](Owner::local).
    #[must_use]
    pub fn owned_by(self, owner: Owner) -> Self {
        Self { owner, ..self }
    }

    /// The owner of the key.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Derives the key of a batch row that names none, from the name of the batch and the content
    /// of the row. So the same row of the same batch is the same session, wherever it stands in the
    /// file.
    pub fn derive_for_row(
        batch: &str,
        guest: &GuestId,
        person: &ContactDetails,
        queue: QueueId,
        attributes: &Attributes,
    ) -> Self {
        let (guest, person, attributes) = (guest.clone(), person.clone(), attributes.clone());
        let row = SessionRequest {
            guest,
            contact_details: person,
            queue,
            attributes,
            key: Self::local("-"),
        };
        let text = [
            b"guestlane batch row\n".as_slice(),
            batch.as_bytes(),
            b"\n",
            &row.fingerprint(),
        ]
        .concat();
        let hash = digest::digest(&digest::SHA256, &text);
        let hex: String = hash.as_ref()[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self::local(format!("batch-{hex}"))
    }

    /// The key as the caller wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The platform key of this session, in the form of requirement R6 (docs/requirements.md). It
    /// depends only on the caller's key and its owner. So it is the same for every attempt, after
    /// every restart, and on every node, and no two owners share one.
    pub fn platform_key(&self) -> String {
        let own_form = self
            .text
            .strip_prefix(Self::GENERATED)
            .is_some_and(|id| id.len() == 36 && Uuid::try_parse(id).is_ok());
        let shared = self.owner == Owner::local();
        if own_form && shared {
            return self.text.to_string();
        }
        let named = if shared {
            self.text.to_string()
        } else {
            format!("{}\n{}", self.owner.as_str(), self.text)
        };
        let hash = digest::digest(
            &digest::SHA256,
            format!("guestlane idempotency key\n{named}").as_bytes(),
        );
        let mut id = [0; 16];
        id.copy_from_slice(&hash.as_ref()[..16]);
        format!(
            "{}{}",
            Self::GENERATED,
            uuid::Builder::from_custom_bytes(id).into_uuid()
        )
    }
}

impl FromStr for IdempotencyKey {
    type Err = ValidationError;

    fn from_str(text: &str) -> Result<Self, ValidationError> {
        let invalid =
            |reason: String, fix: &str| Err(ValidationError::new("idempotencyKey", reason, fix));
        let length = text.chars().count();
        if text.is_empty() {
            return invalid("is empty".into(), "remove it to have one generated");
        }
        if length > Self::MAX {
            return invalid(
                format!("has {length} characters"),
                "use at most 255, for example a hash of a longer key",
            );
        }
        hidden::check_identifier("idempotencyKey", text)?;
        if !text.chars().all(|c| c.is_ascii_graphic()) {
            return invalid(
                "has a character that is not visible ASCII".into(),
                "use letters, digits and punctuation",
            );
        }
        Ok(Self::local(text))
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdempotencyKey({})", self.text)
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
    /// Returns the same request with another owner.
    #[must_use]
    pub fn owned_by(self, owner: &Owner) -> Self {
        Self {
            key: self.key.owned_by(owner.clone()),
            ..self
        }
    }

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
