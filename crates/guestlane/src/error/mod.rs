//! Errors of the library (requirement R18, docs/requirements.md). What to do about each is said by
//! the program that knows its settings and commands: see [`Diagnosis`].

mod catalogue;
mod code;
mod diagnosis;
mod kind;

use std::{fmt::Write as _, sync::Arc};

use guestlane_genesys::{CallError, CorrelationId, PlatformId};
use guestlane_runtime::{Timestamp, http_client::NoTlsRoots, text::display_chain};
use serde::Serialize;

use guestlane_core::{
    request::{IdempotencyKey, QueueId, ValidationError},
    session::{IllegalTransition, SessionId, SessionRecord},
    token::{KeyringError, MasterKeyError, TokenError},
};
use guestlane_store::StoreError;
use guestlane_tlog::AuditError;

pub use catalogue::ErrorCode;
pub use diagnosis::Diagnosis;
pub use kind::ErrorKind;

/// Why a session was not created, or has no result yet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request or a setting is invalid.
    #[error("{0}")]
    Invalid(#[from] ValidationError),
    /// Several settings are invalid.
    #[error("{}", settings(.0))]
    Settings(Vec<ValidationError>),
    /// The queue does not exist on the platform.
    #[error("the queue {queue} does not exist in this organization")]
    UnknownQueue {
        /// ID of the queue.
        queue: QueueId,
        /// Correlation ID of the platform's response.
        correlation_id: Option<CorrelationId>,
    },
    /// The idempotency key was used for another request.
    #[error("the idempotency key `{key}` was used for another request; these differ: {}", .fields.join(", "))]
    IdempotencyKeyReused {
        /// The idempotency key.
        key: IdempotencyKey,
        /// Names of the fields that differ.
        fields: Vec<String>,
        /// The session that has the key.
        session: SessionId,
    },
    /// Another caller holds the lease of the session and did not finish before the deadline, or the
    /// session waits for the platform.
    #[error("the session {session} is being created by another caller, or waits for the platform")]
    InProgress {
        /// ID of the session.
        session: SessionId,
        /// When a retry with the same key may have a result.
        retry_at: Timestamp,
    },
    /// The session is too old to be repeated safely.
    #[error("the session {session} was not completed in time, and retrying is no longer safe")]
    NeedsAttention {
        /// ID of the session.
        session: SessionId,
        /// What is known to exist on the platform: its kind and its ID.
        known: Vec<(&'static str, PlatformId)>,
    },
    /// A call to the platform failed.
    #[error("{failed}")]
    Platform {
        /// ID of the session, if it exists.
        session: Option<SessionId>,
        /// What happens to the session now.
        then: SessionOutcome,
        /// The failed call.
        #[source]
        failed: CallError,
    },
    /// A guest token could not be created or verified.
    #[error("the guest token cannot be used")]
    Token(#[from] TokenError),
    /// The keyring cannot be opened.
    #[error("the signing keys cannot be used")]
    Keyring(#[from] KeyringError),
    /// The master key cannot be used.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// The store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The audit log could not be written, so nothing was created.
    #[error("nothing was created, because the attempt could not be written to the audit log")]
    Audit(#[source] Arc<AuditError>),
    /// No trusted root certificates were found on this machine.
    #[error(transparent)]
    Trust(#[from] NoTlsRoots),
}

impl From<IllegalTransition> for Error {
    fn from(illegal: IllegalTransition) -> Self {
        Self::Store(illegal.into())
    }
}

impl Error {
    /// Returns the error for a session that a person must examine, with what is known to exist of
    /// it.
    pub fn needs_attention(session: &SessionRecord) -> Self {
        let ids = [
            ("contact", &session.contact_id),
            ("the guest's first message", &session.message_id),
            ("conversation", &session.conversation_id),
        ];
        let known = ids
            .into_iter()
            .filter_map(|(what, id)| id.clone().map(|id| (what, id)))
            .collect();
        Self::NeedsAttention {
            session: session.id,
            known,
        }
    }
}

fn settings(invalid: &[ValidationError]) -> String {
    let mut text = match invalid.len() {
        1 => "a setting cannot be used:".to_owned(),
        n => format!("{n} settings cannot be used:"),
    };
    for invalid in invalid {
        let _ = write!(
            text,
            "\n  {}: {}\n      {}",
            invalid.field, invalid.reason, invalid.fix
        );
    }
    text
}

/// What happens to a session after a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SessionOutcome {
    /// No session exists, and nothing was created.
    NothingCreated,
    /// The session is stored and will be completed.
    WillComplete,
    /// The platform rejected the session. The same key may be used again once the cause is fixed.
    Rejected,
}

impl Error {
    /// Whether the written input (settings, flags, request) must change before a retry can succeed.
    /// This is false for a condition that may pass by itself, such as a port in use or a read-only
    /// file system: there, a supervisor should restart the process.
    pub fn is_user_error(&self) -> bool {
        match self {
            Self::Invalid(invalid) => !invalid.may_pass,
            Self::Settings(refused) => refused.iter().any(|invalid| !invalid.may_pass),
            Self::MasterKey(error) => !error.may_pass(),
            Self::Keyring(_) => true,
            Self::Store(error) => matches!(error, StoreError::Newer { .. }),
            _ => false,
        }
    }

    /// The session that the error concerns.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::IdempotencyKeyReused { session, .. }
            | Self::InProgress { session, .. }
            | Self::NeedsAttention { session, .. } => Some(*session),
            Self::Platform { session, .. } => *session,
            _ => None,
        }
    }

    /// The field of the request that the error concerns.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Invalid(invalid) => Some(&invalid.field),
            Self::UnknownQueue { .. } => Some("queueId"),
            Self::IdempotencyKeyReused { fields, .. } => fields.first().map(String::as_str),
            Self::Settings(invalid) => invalid.first().map(|invalid| invalid.field.as_str()),
            _ => None,
        }
    }

    /// The platform's correlation ID, to quote to its support.
    pub fn correlation_id(&self) -> Option<&str> {
        match self {
            Self::UnknownQueue { correlation_id, .. } => correlation_id.as_deref(),
            Self::Platform { failed, .. } => {
                failed.cause.correlation_id().map(CorrelationId::as_str)
            }
            _ => None,
        }
    }

    /// The message as it may be stored in the session record and the audit log. It repeats nothing
    /// of what was sent.
    pub fn redacted(&self) -> String {
        match self {
            Self::Platform { failed, .. } => format!("{failed}: {}", failed.cause.redacted()),
            _ => display_chain(self),
        }
    }
}
