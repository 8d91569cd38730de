//! How far a session got, and every legal move. One table, used live and in recovery.

use std::fmt;

/// How far a session got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// It has the key. Nothing is known to exist on the platform.
    Admitted,
    /// The contact exists.
    ContactCreated,
    /// The conversation exists: done.
    Open,
    /// The platform refused; the same key may try again once the cause is mended.
    Failed,
    /// The platform asked to wait longer than the caller could; it goes on by itself then.
    Parked,
    /// Too old to be repeated safely: a person must look.
    NeedsAttention,
}

/// What happens to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transition {
    /// The platform made the contact.
    ContactCreated,
    /// The platform has the guest's first message; its conversation is not known yet.
    MessageSent,
    /// The first message's conversation is known; it is not yet where it shall be.
    ConversationFound,
    /// The platform has the contact no more: it is struck out, or another one takes its place.
    ContactReplaced,
    /// The conversation is there, and where it shall be.
    Opened,
    /// The platform said no.
    Rejected,
    /// The platform said: later.
    Parked,
    /// We stopped trying for now; the outcome may be unknown.
    BackedOff,
    /// The platform refused the guest token as expired: a fresh one was signed.
    TokenReissued,
    /// Somebody goes on with it: a worker with an unfinished one, a caller with a failed one.
    Claimed,
    /// The platform may have forgotten the key.
    Expired,
}

impl SessionState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Admitted, Self::ContactCreated, Self::Open, Self::Failed, Self::Parked, Self::NeedsAttention];

    /// All legal moves. `has_contact` tells how far a session had come that was parked or refused.
    #[deny(clippy::wildcard_enum_match_arm)]
    pub fn apply(self, step: Transition, has_contact: bool) -> Result<Self, IllegalTransition> {
        let resumed = if has_contact { Self::ContactCreated } else { Self::Admitted };
        Ok(match (self, step) {
            (Self::Admitted, Transition::ContactCreated) => Self::ContactCreated,
            (Self::ContactCreated, Transition::Opened) => Self::Open,

            (Self::ContactCreated, Transition::MessageSent | Transition::ConversationFound | Transition::ContactReplaced) => self,

            (Self::Admitted | Self::ContactCreated, Transition::Rejected) => Self::Failed,
            (Self::Admitted | Self::ContactCreated, Transition::Parked) => Self::Parked,
            (Self::Admitted | Self::ContactCreated, Transition::BackedOff | Transition::TokenReissued | Transition::Claimed) => {
                self
            }

            (Self::Parked | Self::Failed, Transition::Claimed) => resumed,
            (Self::Admitted | Self::ContactCreated | Self::Parked | Self::Failed, Transition::Expired) => Self::NeedsAttention,

            (
                Self::Admitted | Self::ContactCreated | Self::Open | Self::Failed | Self::Parked | Self::NeedsAttention,
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

    /// Whether somebody must still drive it, without being asked.
    pub fn is_unfinished(self) -> bool {
        matches!(self, Self::Admitted | Self::ContactCreated | Self::Parked)
    }

    /// The name in the store, in documents and on the screen.
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

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A move that the table does not have. It is a defect of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session that is {state} cannot take the step {step:?}")]
pub struct IllegalTransition {
    /// The state it was in.
    pub state: SessionState,
    /// What should have happened.
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
            .filter(|state| MOVES.iter().any(|step| state.apply(*step, true) == Ok(SessionState::Open)))
            .collect();
        assert_eq!(to_open, [SessionState::ContactCreated]);
    }

    #[test]
    fn a_session_with_a_contact_never_goes_back_to_making_one() {
        for state in [SessionState::ContactCreated, SessionState::Parked, SessionState::Failed] {
            for step in MOVES {
                assert_ne!(state.apply(step, true), Ok(SessionState::Admitted), "{state} {step:?}");
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
