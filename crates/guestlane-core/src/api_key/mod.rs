//! API keys: which callers may use the service, and with which scopes.
//!
//! A key is shown once, at its creation. The store has only a keyed hash of it, so that access to
//! the store does not suffice to use or to test keys.

mod ring;
mod text;

use std::{collections::BTreeSet, fmt, str::FromStr};

use guestlane_runtime::Timestamp;

use crate::{
    audit::{AuditRecord, ChangeAction},
    request::{ValidationError, shorten},
};

pub use ring::{ApiKeyHasher, ApiKeySet, Principal};
pub use text::ApiKey;

/// A permission of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Create sessions.
    SessionsWrite,
    /// Read sessions, events and metrics. The responses contain guest IDs and no guest tokens.
    SessionsRead,
    /// Verify guest tokens.
    TokensVerify,
    /// All other scopes, and operations: replay events, verify the audit log.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 4] = [
        Self::SessionsWrite,
        Self::SessionsRead,
        Self::TokensVerify,
        Self::Admin,
    ];

    /// Returns the scope's name in text.
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
        Self::ALL
            .into_iter()
            .find(|scope| scope.name() == text)
            .ok_or_else(|| {
                let names = Self::ALL.map(Self::name).join(", ");
                ValidationError::new(
                    "scope",
                    format!("`{}` is not a scope", shorten(text)),
                    format!("use one of {names}"),
                )
            })
    }
}

/// The scopes of one API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes(BTreeSet<Scope>);

impl Scopes {
    /// Creates a set of at least one scope.
    ///
    /// # Errors
    /// Returns [`ValidationError`] if there is none.
    pub fn new(scopes: impl IntoIterator<Item = Scope>) -> Result<Self, ValidationError> {
        let scopes: BTreeSet<_> = scopes.into_iter().collect();
        if scopes.is_empty() {
            return Err(ValidationError::new(
                "scope",
                "is missing",
                "give at least one scope, for example sessions:write",
            ));
        }
        Ok(Self(scopes))
    }

    /// Whether the set allows `scope`.
    pub fn allow(&self, scope: Scope) -> bool {
        self.0.contains(&scope) || self.0.contains(&Scope::Admin)
    }

    /// Returns the empty set, for a key whose scopes cannot be read.
    pub fn none() -> Self {
        Self(BTreeSet::new())
    }

    /// Iterates over the scopes.
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
        Self::new(
            text.split_whitespace()
                .map(str::parse)
                .collect::<Result<Vec<_>, _>>()?,
        )
    }
}

/// An API key as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredApiKey {
    /// ID of the key, which is part of its text and not secret.
    pub id: String,
    /// The operator's name for the key.
    pub name: String,
    /// HMAC-SHA-256 of the whole key, under a secret of the store.
    pub hash: [u8; 32],
    /// The scopes of the key.
    pub scopes: Scopes,
    /// When the key was created.
    pub created_at: Timestamp,
    /// When the key expires.
    pub expires_at: Option<Timestamp>,
    /// When the key was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When the key was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// Owner of the sessions that the key creates. A replacement of the key has the same owner.
    pub owner: String,
    /// Whether this version can read the row. A newer version may have written it; such a key is
    /// refused.
    pub is_readable: bool,
}

impl StoredApiKey {
    /// Longest name, in characters.
    pub const MAX_NAME: usize = 64;

    /// Returns the row of a key created at `now`, which does not expire.
    pub fn new(
        key: &ApiKey,
        hash_key: &ApiKeyHasher,
        name: impl Into<String>,
        scopes: Scopes,
        now: Timestamp,
    ) -> Self {
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

    /// Returns the audit record of a new key.
    pub fn created(&self, replaces: Option<&str>) -> AuditRecord {
        let replaces = replaces
            .map(|id| format!("; replaces {id}"))
            .unwrap_or_default();
        let detail = format!("{}; owner {}{replaces}", self.scopes, self.owner);
        AuditRecord::change(
            ChangeAction::ApiKeyCreated,
            &self.id,
            Some(detail),
            self.created_at,
        )
    }

    /// Returns the key's state: `revoked`, `unreadable`, `expired` or `good`.
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

    /// Whether the key is accepted at `now`.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.state_at(now) == "good"
    }

    /// Checks a key's name: 1 to [`MAX_NAME`](Self::MAX_NAME) visible characters, without white
    /// space at its ends.
    ///
    /// # Errors
    /// Returns [`ValidationError`] if the name has another form.
    pub fn check_name(name: &str) -> Result<(), ValidationError> {
        crate::request::check_visible("name", name)?;
        let length = name.chars().count();
        if length == 0 || length > Self::MAX_NAME || name.trim() != name {
            let reason = format!("has {length} characters, or begins or ends with white space");
            return Err(ValidationError::new(
                "name",
                reason,
                format!("use 1 to {} visible characters", Self::MAX_NAME),
            ));
        }
        Ok(())
    }
}
