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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused<T: FromStr<Err = ValidationError>>(text: &str) -> ValidationError {
        text.parse::<T>()
            .err()
            .unwrap_or_else(|| panic!("`{text}` was taken"))
    }

    #[test]
    fn empty_overlong_or_control_character_guest_id_is_rejected() {
        assert_eq!(refused::<GuestId>("").reason, "is empty");
        assert_eq!(
            refused::<GuestId>(&"x".repeat(129)).reason,
            "has 129 characters"
        );
        assert_eq!(
            refused::<GuestId>("a\u{7}b").reason,
            "has a control character (U+0007) at position 2"
        );
        assert_eq!(
            refused::<GuestId>(" a").reason,
            "begins or ends with white space"
        );
        assert!(
            "é".repeat(128).parse::<GuestId>().is_ok(),
            "characters are counted, not bytes"
        );
    }

    #[test]
    fn non_uuid_queue_id_is_rejected() {
        for text in [
            "",
            "sales",
            "5e0c0000000040008000000000000001",
            "{5e0c0000-0000-4000-8000-000000000001}",
        ] {
            assert_eq!(refused::<QueueId>(text).field, "queueId", "{text}");
        }
    }

    #[test]
    fn reserved_duplicate_or_oversized_attribute_is_rejected_by_name() {
        let refused =
            |pairs: &[(&str, &str)]| Attributes::from_pairs(pairs.iter().copied()).unwrap_err();
        for name in Attributes::RESERVED {
            assert_eq!(refused(&[(name, "x")]).field, format!("attributes.{name}"));
        }
        assert_eq!(
            refused(&[("GUESTTOKEN", "x")]).field,
            "attributes.GUESTTOKEN"
        );
        assert_eq!(
            refused(&[("tier", "a"), ("tier", "a")]).reason,
            "is given twice"
        );
        let large = "x".repeat(2048);
        assert_eq!(
            refused(&[("a", &large)]).reason,
            "have 2049 bytes in names and values together"
        );
        assert_eq!(refused(&[("a", "x\0")]).field, "attributes.a");
        assert!(Attributes::from_pairs([("a", &large[..2047])]).is_ok());
    }

    #[test]
    fn idempotency_key_over_255_characters_is_rejected() {
        assert_eq!(
            refused::<IdempotencyKey>(&"k".repeat(256)).reason,
            "has 256 characters"
        );
        assert!("k".repeat(255).parse::<IdempotencyKey>().is_ok());
        assert_eq!(refused::<IdempotencyKey>("a b").field, "idempotencyKey");
    }

    #[test]
    fn platform_key_is_derived_from_the_callers_key_alone() {
        let generated = IdempotencyKey::generate();
        assert_eq!(generated.platform_key(), generated.as_str());
        let upstream = |key: &str| key.parse::<IdempotencyKey>().unwrap().platform_key();
        assert_eq!(upstream("order-1"), upstream("order-1"));
        assert_ne!(upstream("order-1"), upstream("order-2"));
        // Pinned value: a version that derives another key would create second contacts.
        assert_eq!(
            upstream("order-1"),
            "webchat-session-7af15ad7-58ca-8cc5-b0e5-d73184eeb92e"
        );
    }

    #[test]
    fn same_key_of_two_owners_yields_two_platform_keys() {
        let shops = ["shop-a", "shop-b"].map(Owner::of_api_key);
        for key in [
            "order-1",
            "webchat-session-7af15ad7-58ca-8cc5-b0e5-d73184eeb92e",
        ] {
            let key: IdempotencyKey = key.parse().unwrap();
            let owned = shops
                .clone()
                .map(|owner| key.clone().owned_by(owner).platform_key());
            assert!(
                owned[0] != owned[1]
                    && owned
                        .iter()
                        .all(|platform_key| *platform_key != key.platform_key()),
                "{owned:?}"
            );
        }
    }

    fn request(guest: &str, attributes: &[(&str, &str)]) -> SessionRequest {
        SessionRequest {
            guest: guest.parse().unwrap(),
            contact_details: ContactDetails::default(),
            queue: "5e0c0000-0000-4000-8000-000000000001".parse().unwrap(),
            attributes: Attributes::from_pairs(attributes.iter().copied()).unwrap(),
            key: "k".parse().unwrap(),
        }
    }

    #[test]
    fn mismatch_names_each_differing_field() {
        let first = request("ann", &[("tier", "gold"), ("source", "web")]);
        let other = request(
            "bob",
            &[("tier", "gold"), ("source", "app"), ("lang", "en")],
        );
        assert_eq!(
            first.differences(&other),
            ["guestId", "attributes.lang", "attributes.source"]
        );
        assert!(first.differences(&first).is_empty());
        let person = ContactDetails::new(
            Some("Ann".into()),
            None,
            Some("ann@example.org".into()),
            None,
        )
        .unwrap();
        let named = SessionRequest {
            contact_details: person,
            ..first.clone()
        };
        assert_eq!(first.differences(&named), ["firstName", "email"]);
        assert_ne!(first.fingerprint(), named.fingerprint());
    }

    proptest! {
        #[test]
        fn fingerprint_differs_exactly_when_a_field_differs(
            a in "[a-z]{1,3}", b in "[a-z]{1,3}", x in prop::collection::btree_map("[a-z]{1,2}", "[a-z]{0,2}", 0..3),
            y in prop::collection::btree_map("[a-z]{1,2}", "[a-z]{0,2}", 0..3),
        ) {
            let make = |guest: &str, map: &BTreeMap<String, String>| SessionRequest {
                attributes: Attributes(map.clone()), ..request(guest, &[])
            };
            let (first, second) = (make(&a, &x), make(&b, &y));
            prop_assert_eq!(first.fingerprint() == second.fingerprint(), first.differences(&second).is_empty());
        }

        #[test]
        fn parsing_never_panics(text in any::<String>()) {
            let _ = text.parse::<GuestId>();
            let _ = text.parse::<QueueId>();
            let _ = text.parse::<IdempotencyKey>();
            let _ = Attributes::from_pairs([(text.as_str(), text.as_str())]);
        }
    }
}
