//! Who may ask the service, and for what: API keys.
//!
//! A key is shown once, when it is made. The store keeps what tells it again: a keyed hash. Who reads the store can neither use nor test keys.

mod ring;
mod text;

use std::{collections::BTreeSet, fmt, str::FromStr};

use guestlane_genesys::Timestamp;

use crate::{
    audit::{AuditRecord, ChangeAction},
    request::{ValidationError, shorten},
};

pub use ring::{ApiKeyHasher, ApiKeySet, Principal};
pub use text::ApiKey;

/// What a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// To create sessions.
    SessionsWrite,
    /// To look at sessions, events and figures. With guests' ids, without their tokens.
    SessionsRead,
    /// To have guest tokens verified.
    TokensVerify,
    /// Everything, and to act: to replay events, to have the audit log verified.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::SessionsWrite, Self::SessionsRead, Self::TokensVerify, Self::Admin];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::SessionsWrite => "sessions:write",
            Self::SessionsRead => "sessions:read",
            Self::TokensVerify => "tokens:verify",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = ValidationError;

    fn from_str(text: &str) -> Result<Self, ValidationError> {
        Self::ALL.into_iter().find(|scope| scope.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            ValidationError::new("scope", format!("`{}` is no scope", shorten(text)), format!("use one of {names}"))
        })
    }
}

/// What a key allows, all in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes(BTreeSet<Scope>);

impl Scopes {
    /// At least one.
    pub fn new(scopes: impl IntoIterator<Item = Scope>) -> Result<Self, ValidationError> {
        let scopes: BTreeSet<_> = scopes.into_iter().collect();
        if scopes.is_empty() {
            return Err(ValidationError::new("scope", "is missing", "name what the key is for, like sessions:write"));
        }
        Ok(Self(scopes))
    }

    /// Whether they allow it.
    pub fn allow(&self, scope: Scope) -> bool {
        self.0.contains(&scope) || self.0.contains(&Scope::Admin)
    }

    /// Of a key whose scopes cannot be read: it allows nothing.
    pub(crate) fn none() -> Self {
        Self(BTreeSet::new())
    }

    /// Each.
    pub fn iter(&self) -> impl Iterator<Item = Scope> {
        self.0.iter().copied()
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iter().map(Scope::name).collect::<Vec<_>>().join(" "))
    }
}

impl FromStr for Scopes {
    type Err = ValidationError;

    fn from_str(text: &str) -> Result<Self, ValidationError> {
        Self::new(text.split_whitespace().map(str::parse).collect::<Result<Vec<_>, _>>()?)
    }
}

/// A key as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredApiKey {
    /// What stands in the key to find it, and is no secret.
    pub id: String,
    /// Whose it is, as a person wrote it.
    pub name: String,
    /// HMAC-SHA-256 of the whole key, under a secret of the store.
    pub hash: [u8; 32],
    /// What it allows.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: Timestamp,
    /// From then on it is not accepted.
    pub expires_at: Option<Timestamp>,
    /// From then on it was not accepted.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// The owner of the sessions that it creates: a key that replaces another one has the same.
    pub owner: String,
    /// Whether the store's row could be read: a newer version may have written what this one does not know. Otherwise it is refused.
    pub is_readable: bool,
}

impl StoredApiKey {
    /// The longest name, in characters.
    pub const MAX_NAME: usize = 64;

    /// `key`, made at `now`, as it is kept: good for ever, and never used.
    pub fn new(key: &ApiKey, hash_key: &ApiKeyHasher, name: impl Into<String>, scopes: Scopes, now: Timestamp) -> Self {
        Self {
            id: key.id().to_owned(),
            name: name.into(),
            hash: hash_key.hash(key),
            scopes,
            created_at: now,
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
            owner: key.id().to_owned(),
            is_readable: true,
        }
    }

    /// What the audit log says of a new key.
    pub(crate) fn created(&self, replaces: Option<&str>) -> AuditRecord {
        let replaces = replaces.map(|id| format!("; replaces {id}")).unwrap_or_default();
        let detail = format!("{}; owner {}{replaces}", self.scopes, self.owner);
        AuditRecord::change(ChangeAction::ApiKeyCreated, &self.id, Some(detail), self.created_at)
    }

    /// How it stands.
    pub fn state_at(&self, now: Timestamp) -> &'static str {
        if self.revoked_at.is_some() {
            "revoked"
        } else if !self.is_readable {
            "unreadable"
        } else if self.expires_at.is_some_and(|end| end <= now) {
            "expired"
        } else {
            "good"
        }
    }

    /// Whether it is accepted.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.state_at(now) == "good"
    }

    /// A name that a list can show.
    pub fn check_name(name: &str) -> Result<(), ValidationError> {
        crate::request::check_visible("name", name)?;
        let length = name.chars().count();
        if length == 0 || length > Self::MAX_NAME || name.trim() != name {
            let reason = format!("has {length} characters, or white space at an end");
            return Err(ValidationError::new("name", reason, format!("use 1 to {} visible characters", Self::MAX_NAME)));
        }
        Ok(())
    }
}
