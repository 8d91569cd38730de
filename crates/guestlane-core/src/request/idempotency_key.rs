//! Idempotency keys and their owners.

use std::{fmt, str::FromStr};

use aws_lc_rs::digest;
use uuid::Uuid;

use super::{
    GuestId, QueueId, SessionRequest, ValidationError, attributes::Attributes, hidden,
    person::ContactDetails,
};

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
    pub(super) text: Box<str>,
    pub(super) owner: Owner,
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
