//! Why a step failed.

use guestlane_core::{session::IllegalTransition, token::MasterKeyError};
use guestlane_genesys::{AttemptError, CallError};
use guestlane_store::StoreError;

/// Why a step failed.
pub(crate) enum StepError {
    /// The platform call failed after its retries.
    Call(CallError),
    /// A store operation failed.
    Store(StoreError),
    /// The guest session token cannot be decrypted.
    MasterKey(MasterKeyError),
    /// A transition that the state table does not allow, which is a defect in this product.
    Transition(IllegalTransition),
}

impl StepError {
    pub(crate) fn tries(&self) -> u32 {
        match self {
            Self::Call(failed) => failed.attempts,
            Self::Store(_) | Self::MasterKey(_) | Self::Transition(_) => 0,
        }
    }

    /// Whether the platform refused the guest token, for any reason.
    pub(crate) fn is_of_guest_token(&self) -> bool {
        match self {
            Self::Call(failed) => {
                matches!(&failed.cause, AttemptError::Rejected(refusal) if refusal.is_guest_token())
            }
            Self::Store(_) | Self::MasterKey(_) | Self::Transition(_) => false,
        }
    }

    /// Whether the platform refused the guest token as expired.
    pub(crate) fn is_of_expired_token(&self) -> bool {
        match self {
            Self::Call(failed) => {
                matches!(&failed.cause, AttemptError::Rejected(refusal) if refusal.is_expired_guest_token())
            }
            Self::Store(_) | Self::MasterKey(_) | Self::Transition(_) => false,
        }
    }
}

impl From<CallError> for StepError {
    fn from(failed: CallError) -> Self {
        Self::Call(failed)
    }
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<IllegalTransition> for StepError {
    fn from(illegal: IllegalTransition) -> Self {
        Self::Transition(illegal)
    }
}
