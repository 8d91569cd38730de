//! Errors sorted by what exists and what a caller does next.

use super::{Error, SessionOutcome};

/// What an [`Error`] means for the caller: what exists on the platform, and what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is invalid. Nothing was created. Correct the request.
    InvalidRequest,
    /// A setting or a key is invalid. Nothing was created. Correct the configuration.
    InvalidConfiguration,
    /// The idempotency key belongs to another request. Use a new key.
    KeyReused,
    /// The session exists and is not finished. Repeat the call with the same key later.
    InProgress,
    /// The session is stored, and [`Workers`](crate::Workers) complete it. Repeat the call with the
    /// same key to get the result.
    WillComplete,
    /// The platform rejected the session. The same key may be used again once the cause is fixed.
    Rejected,
    /// The outcome on the platform cannot be determined any more. An operator must look.
    NeedsAttention,
    /// Nothing was created, for a reason that may pass. Repeat the call with the same key.
    NotCreated,
}

impl Error {
    /// Returns what the error means for the caller.
    #[deny(clippy::wildcard_enum_match_arm)]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) | Self::UnknownQueue { .. } => ErrorKind::InvalidRequest,
            Self::Settings(_) | Self::Keyring(_) | Self::MasterKey(_) | Self::Trust(_) => {
                ErrorKind::InvalidConfiguration
            }
            Self::IdempotencyKeyReused { .. } => ErrorKind::KeyReused,
            Self::InProgress { .. } => ErrorKind::InProgress,
            Self::NeedsAttention { .. } => ErrorKind::NeedsAttention,
            Self::Platform { then, .. } => match then {
                SessionOutcome::NothingCreated => ErrorKind::NotCreated,
                SessionOutcome::WillComplete => ErrorKind::WillComplete,
                SessionOutcome::Rejected => ErrorKind::Rejected,
            },
            // A session whose transition failed in the store is resumed after its lease expires.
            Self::Token(_) | Self::Store(_) => ErrorKind::WillComplete,
            Self::Audit(_) => ErrorKind::NotCreated,
        }
    }
}
