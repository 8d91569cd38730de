//! Errors sorted by what exists and what a caller does next.

use super::{Error, SessionOutcome};

/// What an [`Error`] means for the caller: what exists on the platform, and what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is invalid. Nothing was created. Correct the request.
    InvalidRequest,
    /// A setting or a key is invalid. Correct the configuration.
    InvalidConfiguration,
    /// The idempotency key belongs to another request. Use a new key.
    KeyReused,
    /// The session exists and is not finished. Repeat the call with the same key later.
    InProgress,
    /// The session is stored, and [`Workers`](crate::Workers) complete it. Repeat the call with the
    /// same key to get the result.
    WillComplete,
    /// The store failed, so it is unknown whether the session is stored. If it is,
    /// [`Workers`](crate::Workers) complete it. Repeat the call with the same key.
    StoreFailed,
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
            // The session is stored before its token is signed.
            Self::Token(_) => ErrorKind::WillComplete,
            Self::Store(_) => ErrorKind::StoreFailed,
            Self::Audit(_) => ErrorKind::NotCreated,
        }
    }
}

#[cfg(test)]
mod tests {
    use guestlane_core::{request::ValidationError, session::SessionId, token::TokenError};
    use guestlane_runtime::Timestamp;
    use guestlane_store::StoreError;

    use super::*;

    #[test]
    fn kind_says_what_exists_and_what_to_do() {
        let session = "01980000-0000-7000-8000-000000000001"
            .parse::<SessionId>()
            .unwrap();
        let invalid = ValidationError::new("queue", "is empty", "name a queue");
        let unreachable = StoreError::Unreachable {
            at: "127.0.0.1:5432".to_owned(),
            reason: "connection refused".to_owned(),
        };
        let cases = [
            (Error::Invalid(invalid.clone()), ErrorKind::InvalidRequest),
            (
                Error::Settings(vec![invalid]),
                ErrorKind::InvalidConfiguration,
            ),
            (
                Error::IdempotencyKeyReused {
                    key: "form-1".parse().unwrap(),
                    fields: vec!["queue".to_owned()],
                    session,
                },
                ErrorKind::KeyReused,
            ),
            (
                Error::InProgress {
                    session,
                    retry_at: Timestamp::from_unix_micros(0),
                },
                ErrorKind::InProgress,
            ),
            (
                Error::NeedsAttention {
                    session,
                    known: Vec::new(),
                },
                ErrorKind::NeedsAttention,
            ),
            (Error::Token(TokenError::TooLong), ErrorKind::WillComplete),
            // A failed store does not say whether it has the session.
            (Error::Store(unreachable), ErrorKind::StoreFailed),
        ];
        for (error, kind) in cases {
            assert_eq!(error.kind(), kind, "{error}");
        }
    }
}
