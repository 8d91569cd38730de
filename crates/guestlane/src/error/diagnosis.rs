//! Cause and fix of an error, for a person.

use guestlane_genesys::PlatformMessage;
use guestlane_runtime::text::display_chain;
use guestlane_store::batch::RowFailure;

use super::{Error, ErrorCode, ErrorKind};

/// Cause and fix of an error, for a person.
///
/// The engine stores and counts diagnoses, and does not know by which settings and commands a person
/// changes something: [`EngineConfig::diagnose`](crate::EngineConfig::diagnose) makes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// Code of the failure.
    pub code: ErrorCode,
    /// What failed: the error with its sources.
    pub message: String,
    /// Why the failure happened, in a form that may be stored, logged and displayed.
    pub cause: String,
    /// What to do now.
    pub fix: String,
    /// The message of the platform, which may repeat what was sent.
    platform_message: PlatformMessage,
}

impl From<Diagnosis> for RowFailure {
    fn from(diagnosis: Diagnosis) -> Self {
        Self {
            code: diagnosis.code.name().to_owned(),
            message: diagnosis.message,
            cause: diagnosis.cause,
            fix: diagnosis.fix,
        }
    }
}

impl Diagnosis {
    /// Describes an error.
    pub fn new(error: &Error, cause: impl Into<String>, fix: impl Into<String>) -> Self {
        let refusal = match error {
            Error::Platform { failed, .. } => failed.cause.sentence(),
            _ => None,
        };
        Self {
            code: error.code(),
            message: display_chain(error),
            cause: cause.into(),
            fix: fix.into(),
            platform_message: refusal.cloned().unwrap_or_default(),
        }
    }

    /// Describes an error by its [kind](Error::kind): the default of
    /// [`EngineConfig::diagnose`](crate::EngineConfig::diagnose).
    pub fn by_kind(error: &Error) -> Self {
        let fix = match error.kind() {
            ErrorKind::InvalidRequest => "correct the request",
            ErrorKind::InvalidConfiguration => "correct the configuration",
            ErrorKind::KeyReused => "use another idempotency key",
            ErrorKind::InProgress
            | ErrorKind::WillComplete
            | ErrorKind::StoreFailed
            | ErrorKind::NotCreated => "repeat the call with the same idempotency key later",
            ErrorKind::Rejected => "fix the cause, and repeat the call with the same key",
            ErrorKind::NeedsAttention => "search for the guest in the organization",
        };
        Self::new(error, error.redacted(), fix)
    }

    /// The cause with the platform's message, which may repeat what was sent. Show it only to the
    /// caller whose request failed.
    pub fn cause_for_caller(&self) -> String {
        match self.platform_message.is_empty() {
            true => self.cause.clone(),
            false => format!("{}: {}", self.cause, self.platform_message.for_caller()),
        }
    }

    /// Removes the platform's message, so that the diagnosis can be stored or shown to others.
    #[must_use]
    pub fn for_others(self) -> Self {
        Self {
            platform_message: PlatformMessage::default(),
            ..self
        }
    }
}
