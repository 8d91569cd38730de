//! The states of a session and the table of legal transitions, used in normal operation and in
//! recovery.

use std::fmt;

/// State of a session's saga.
///
/// The first four are active: a worker that holds the lease runs the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// The idempotency key is taken. Nothing is known to exist on the platform.
    Admitted,
    /// The contact exists, or may exist without a known ID.
    ContactReady,
    /// The platform accepted the guest's first message; its conversation is not known yet. Only on
    /// `web-messaging` and `open-messaging`.
    MessageSent,
    /// The conversation of the first message is known; its contact and queue are not set yet. Only
    /// on `web-messaging` and `open-messaging`.
    ConversationFound,
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
    /// The platform created or found the contact, or may have created one whose ID is unknown.
    ContactReady,
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
    pub const ALL: [Self; 8] = [
        Self::Admitted,
        Self::ContactReady,
        Self::MessageSent,
        Self::ConversationFound,
        Self::Open,
        Self::Failed,
        Self::Parked,
        Self::NeedsAttention,
    ];

    /// Returns the state after `transition`. This table has all legal transitions.
    ///
    /// `resumed` is the state to which a claimed session returns that was parked or had failed.
    ///
    /// # Errors
    /// Returns [`IllegalTransition`] if the table has no entry for this state and transition.
    #[deny(clippy::wildcard_enum_match_arm)]
    pub fn apply(self, transition: Transition, resumed: Self) -> Result<Self, IllegalTransition> {
        Ok(match (self, transition) {
            (Self::Admitted, Transition::ContactReady) => Self::ContactReady,
            (Self::ContactReady, Transition::MessageSent) => Self::MessageSent,
            (Self::MessageSent, Transition::ConversationFound) => Self::ConversationFound,
            (Self::ConversationFound, Transition::ContactReplaced) => self,
            (Self::ContactReady | Self::ConversationFound, Transition::Opened) => Self::Open,

            // After the first message a refusal cannot undo the session, so it is tried again.
            (Self::Admitted | Self::ContactReady, Transition::Rejected) => Self::Failed,
            (
                Self::Admitted | Self::ContactReady | Self::MessageSent | Self::ConversationFound,
                Transition::Parked,
            ) => Self::Parked,
            (
                Self::Admitted | Self::ContactReady | Self::MessageSent | Self::ConversationFound,
                Transition::BackedOff | Transition::TokenReissued | Transition::Claimed,
            ) => self,

            (Self::Parked | Self::Failed, Transition::Claimed) => resumed,
            (
                Self::Admitted
                | Self::ContactReady
                | Self::MessageSent
                | Self::ConversationFound
                | Self::Parked
                | Self::Failed,
                Transition::Expired,
            ) => Self::NeedsAttention,

            (
                Self::Admitted
                | Self::ContactReady
                | Self::MessageSent
                | Self::ConversationFound
                | Self::Open
                | Self::Failed
                | Self::Parked
                | Self::NeedsAttention,
                Transition::ContactReady
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
            ) => {
                return Err(IllegalTransition {
                    state: self,
                    transition,
                });
            }
        })
    }

    /// Whether the saga can run its next step in this state.
    pub fn is_active(self) -> bool {
        match self {
            Self::Admitted | Self::ContactReady | Self::MessageSent | Self::ConversationFound => {
                true
            }
            Self::Open | Self::Failed | Self::Parked | Self::NeedsAttention => false,
        }
    }

    /// Whether a worker must resume the session without a request from a caller.
    pub fn is_unfinished(self) -> bool {
        self.is_active() || self == Self::Parked
    }

    /// Returns the state's name in the store, in documents and in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::ContactReady => "contact_ready",
            Self::MessageSent => "message_sent",
            Self::ConversationFound => "conversation_found",
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
#[error("a session in state {state} has no transition {transition:?}")]
pub struct IllegalTransition {
    /// The state of the session.
    pub state: SessionState,
    /// The transition that was refused.
    pub transition: Transition,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSITIONS: [Transition; 11] = [
        Transition::ContactReady,
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

    fn all_targets(state: SessionState) -> Vec<(Transition, SessionState)> {
        let resumed = SessionState::ALL
            .into_iter()
            .filter(|state| state.is_active());
        resumed
            .flat_map(|resumed| {
                TRANSITIONS.into_iter().filter_map(move |transition| {
                    Some((transition, state.apply(transition, resumed).ok()?))
                })
            })
            .collect()
    }

    #[test]
    fn open_and_needs_attention_are_terminal() {
        for state in [SessionState::Open, SessionState::NeedsAttention] {
            assert_eq!(all_targets(state), [], "{state}");
        }
    }

    #[test]
    fn only_contact_ready_or_conversation_found_leads_to_open() {
        let to_open: Vec<_> = SessionState::ALL
            .into_iter()
            .filter(|state| {
                all_targets(*state)
                    .iter()
                    .any(|(_, after)| *after == SessionState::Open)
            })
            .collect();
        assert_eq!(
            to_open,
            [SessionState::ContactReady, SessionState::ConversationFound]
        );
    }

    #[test]
    fn active_state_only_advances() {
        let order = |state| SessionState::ALL.iter().position(|other| *other == state);
        for state in SessionState::ALL
            .into_iter()
            .filter(|state| state.is_active())
        {
            for (transition, after) in all_targets(state) {
                assert!(
                    order(after) >= order(state),
                    "{state} {transition:?} {after}"
                );
            }
        }
    }

    #[test]
    fn session_with_a_sent_message_never_fails() {
        for state in [SessionState::MessageSent, SessionState::ConversationFound] {
            for (transition, after) in all_targets(state) {
                assert_ne!(after, SessionState::Failed, "{state} {transition:?}");
            }
        }
    }

    #[test]
    fn every_state_name_round_trips() {
        for state in SessionState::ALL {
            assert_eq!(SessionState::from_name(state.name()), Some(state));
        }
    }
}
