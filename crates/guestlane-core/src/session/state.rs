//! The states of a session and the table of legal transitions, used in normal operation and in
//! recovery.

use std::fmt;

/// State of a session's saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// The idempotency key is taken. Nothing is known to exist on the platform.
    Admitted,
    /// The contact exists.
    ContactCreated,
    /// The conversation exists; the saga is complete.
    Open,
    /// The platform refused. The same idempotency key may try again once the cause is corrected.
    Failed,
    /// The platform sent a `Retry-After` longer than the caller could wait. The worker resumes the
    /// session after it.
    Parked,
    /// The step can no longer be repeated safely. An operator must look.
    NeedsAttention,
}

/// What changes a session's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transition {
    /// The platform created the contact.
    ContactCreated,
    /// The platform accepted the guest's first message; its conversation is not known yet.
    MessageSent,
    /// The first message's conversation is known; the contact is not linked and the queue not
    /// reached yet.
    ConversationFound,
    /// The platform no longer has the contact: its ID is removed, or another contact replaces it.
    ContactReplaced,
    /// The conversation exists; its contact is linked and its queue reached as far as configured.
    Opened,
    /// The platform refused.
    Rejected,
    /// The platform sent `Retry-After`.
    Parked,
    /// The retries ended without success for now; the outcome may be unknown.
    BackedOff,
    /// The platform refused the guest token as expired, and a fresh one was signed.
    TokenReissued,
    /// A worker claimed an unfinished session, or a caller claimed a failed one.
    Claimed,
    /// The platform may have forgotten the step's key.
    Expired,
}

impl SessionState {
    /// All states.
    pub const ALL: [Self; 6] = [
        Self::Admitted,
        Self::ContactCreated,
        Self::Open,
        Self::Failed,
        Self::Parked,
        Self::NeedsAttention,
    ];

    /// Returns the state after `step`. This table has all legal transitions.
    ///
    /// `has_contact` decides to which state a parked or failed session returns.
    ///
    /// # Errors
    /// Returns [`IllegalTransition`] if the table has no entry for this state and step.
    #[deny(clippy::wildcard_enum_match_arm)]
    pub fn apply(self, step: Transition, has_contact: bool) -> Result<Self, IllegalTransition> {
        let resumed = if has_contact {
            Self::ContactCreated
        } else {
            Self::Admitted
        };
        Ok(match (self, step) {
            (Self::Admitted, Transition::ContactCreated) => Self::ContactCreated,
            (Self::ContactCreated, Transition::Opened) => Self::Open,

            (
                Self::ContactCreated,
                Transition::MessageSent
                | Transition::ConversationFound
                | Transition::ContactReplaced,
            ) => self,

            (Self::Admitted | Self::ContactCreated, Transition::Rejected) => Self::Failed,
            (Self::Admitted | Self::ContactCreated, Transition::Parked) => Self::Parked,
            (
                Self::Admitted | Self::ContactCreated,
                Transition::BackedOff | Transition::TokenReissued | Transition::Claimed,
            ) => self,

            (Self::Parked | Self::Failed, Transition::Claimed) => resumed,
            (
                Self::Admitted | Self::ContactCreated | Self::Parked | Self::Failed,
                Transition::Expired,
            ) => Self::NeedsAttention,

            (
                Self::Admitted
                | Self::ContactCreated
                | Self::Open
                | Self::Failed
                | Self::Parked
                | Self::NeedsAttention,
                Transition::ContactCreated
                | Transition::MessageSent
                | Transition::ConversationFound
                | Transition::ContactReplaced
                | Transition::Opened
                | Transition::Rejected
                | Transition::Parked
                | Transition::BackedOff
                | Transition::TokenReissued
                | Transition::Claimed
                | Transition::Expired,
            ) => return Err(IllegalTransition { state: self, step }),
        })
    }

    /// Whether a worker must resume the session without a request from a caller.
    pub fn is_unfinished(self) -> bool {
        matches!(self, Self::Admitted | Self::ContactCreated | Self::Parked)
    }

    /// Returns the state's name in the store, in documents and in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::ContactCreated => "contact_created",
            Self::Open => "open",
            Self::Failed => "failed",
            Self::Parked => "parked",
            Self::NeedsAttention => "needs_attention",
        }
    }

    /// Returns the state with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A transition that the table does not have. It is a defect in this product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session in state {state} has no transition {step:?}")]
pub struct IllegalTransition {
    /// The state of the session.
    pub state: SessionState,
    /// The transition that was refused.
    pub step: Transition,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVES: [Transition; 11] = [
        Transition::ContactCreated,
        Transition::MessageSent,
        Transition::ConversationFound,
        Transition::ContactReplaced,
        Transition::Opened,
        Transition::Rejected,
        Transition::Parked,
        Transition::BackedOff,
        Transition::TokenReissued,
        Transition::Claimed,
        Transition::Expired,
    ];

    #[test]
    fn nothing_leaves_open_or_needs_attention() {
        for state in [SessionState::Open, SessionState::NeedsAttention] {
            for step in MOVES {
                assert!(state.apply(step, true).is_err(), "{state} {step:?}");
            }
        }
    }

    #[test]
    fn a_conversation_follows_a_contact_and_nothing_else() {
        let to_open: Vec<_> = SessionState::ALL
            .into_iter()
            .filter(|state| {
                MOVES
                    .iter()
                    .any(|step| state.apply(*step, true) == Ok(SessionState::Open))
            })
            .collect();
        assert_eq!(to_open, [SessionState::ContactCreated]);
    }

    #[test]
    fn a_session_with_a_contact_never_goes_back_to_making_one() {
        for state in [
            SessionState::ContactCreated,
            SessionState::Parked,
            SessionState::Failed,
        ] {
            for step in MOVES {
                assert_ne!(
                    state.apply(step, true),
                    Ok(SessionState::Admitted),
                    "{state} {step:?}"
                );
            }
        }
    }

    #[test]
    fn every_state_has_a_name_of_its_own() {
        for state in SessionState::ALL {
            assert_eq!(SessionState::from_name(state.name()), Some(state));
        }
    }
}
