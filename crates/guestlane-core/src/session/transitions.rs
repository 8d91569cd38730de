//! The transitions of a session record, as pure functions.

use guestlane_genesys::PlatformId;
use guestlane_runtime::Timestamp;

use super::{
    lease::LEASE_TTL,
    record::{Failure, SessionRecord, StepFailure},
    state::{IllegalTransition, SessionState, Transition},
};
use crate::token::TokenIdentity;

impl SessionRecord {
    /// Returns the active state that corresponds to what is known to exist on the platform. A parked
    /// or failed session returns to it when it is claimed.
    pub(super) fn resumed_state(&self) -> SessionState {
        let has_contact = self.contact_id.is_some() || self.contact_id_lost;
        match (&self.message_id, &self.conversation_id) {
            (Some(_), Some(_)) => SessionState::ConversationFound,
            (Some(_), None) => SessionState::MessageSent,
            (None, _) if has_contact => SessionState::ContactReady,
            (None, _) => SessionState::Admitted,
        }
    }

    fn apply(mut self, transition: Transition) -> Result<Self, IllegalTransition> {
        self.state = self.state.apply(transition, self.resumed_state())?;
        Ok(self)
    }

    /// Extends the lease, and ends a backoff or wait.
    fn leased(self, now: Timestamp) -> Self {
        Self {
            lease_expires_at: Some(now + LEASE_TTL),
            next_attempt_at: None,
            ..self
        }
    }

    /// Gives up the lease until the next attempt.
    fn waiting(self, until: Timestamp) -> Self {
        Self {
            lease_expires_at: None,
            next_attempt_at: Some(until),
            ..self
        }
    }

    /// Ends the lease: no worker resumes the session by itself.
    fn ended(self, now: Timestamp) -> Self {
        Self {
            lease_expires_at: None,
            next_attempt_at: None,
            ended_at: Some(now),
            ..self
        }
    }

    /// Records the contact that was created or found. Without an ID, a contact may exist that cannot be found.
    ///
    /// # Errors
    /// Returns [`IllegalTransition`] if the present state does not allow the transition.
    pub fn contact_ready(
        self,
        contact_id: Option<PlatformId>,
        tries: u32,
        now: Timestamp,
    ) -> Result<Self, IllegalTransition> {
        let next = self.apply(Transition::ContactReady)?.start_step(tries, now);
        Ok(Self {
            contact_id_lost: contact_id.is_none(),
            contact_id,
            ..next
        })
    }

    /// Records that the platform accepted the guest's first message.
    ///
    /// The platform may name the conversation in the same response.
    ///
    /// # Errors
    /// Returns [`IllegalTransition`] if the present state does not allow the transition.
    pub fn message_sent(
        self,
        message_id: PlatformId,
        conversation_id: Option<PlatformId>,
        guest_session_expires_at: Option<Timestamp>,
        tries: u32,
        now: Timestamp,
    ) -> Result<Self, IllegalTransition> {
        let next = self.apply(Transition::MessageSent)?.start_step(tries, now);
        let sent = Self {
            message_id: Some(message_id),
            guest_session_expires_at,
            ..next
        };
        match conversation_id {
            Some(conversation_id) => sent.conversation_found(conversation_id, 0, now),
            None => Ok(sent),
        }
    }

    /// Records the conversation of the first message.
    ///
    /// # Errors
    /// Returns [`IllegalTransition`] if the present state does not allow the transition.
    pub fn conversation_found(
        self,
        conversation_id: PlatformId,
        tries: u32,
        now: Timestamp,
    ) -> Result<Self, IllegalTransition> {
        let next = self
            .apply(Transition::ConversationFound)?
            .start_step(tries, now);
        Ok(Self {
            conversation_id: Some(conversation_id),
            ..next
        })
    }

    /// Records that the platform no longer has the contact.
    ///
    /// Until [`contact_replaced`](Self::contact_replaced) records another one, a contact with
    /// unknown ID may exist, and none is created again.
    ///
    /// # Errors
    /// Returns [`IllegalTransition`] if the present state does not allow the transition.
    pub fn contact_lost(self, now: Timestamp) -> Result<Self, IllegalTransition> {
        let next = self.apply(Transition::ContactReplaced)?;
        Ok(Self {
            contact_id: None,
            contact_id_lost: true,
            ..next.leased(now)
        })
    }

    /// Records the contact that replaces one which the platform no longer has.
    ///
    /// # Errors
    /// Returns [`IllegalTransition`] if the present state does not allow the transition.
    pub fn contact_replaced(
        self,
        contact_id: PlatformId,
        tries: u32,
        now: Timestamp,
    ) -> Result<Self, IllegalTransition> {
        let next = self.apply(Transition::ContactReplaced)?;
        let attempts = next.attempts + tries;
        Ok(Self {
            contact_id: Some(contact_id),
            contact_id_lost: false,
            attempts,
            ..next.leased(now)
        })
    }

    /// Resets the fields of the present step when the next one starts, and extends the lease.
    fn start_step(self, tries: u32, now: Timestamp) -> Self {
        let attempts = self.attempts + tries;
        Self {
            attempts,
            step_started_at: now,
            outcome_unknown: false,
            recovered: false,
            failure: None,
            ..self.leased(now)
        }
    }

    /// Records that the conversation exists, which completes the saga. Latency counts from `since`.
    ///
    /// # Errors
    /// Returns [`IllegalTransition`] if the present state does not allow the transition.
    pub fn completed(
        self,
        conversation_id: PlatformId,
        tries: u32,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Self, IllegalTransition> {
        let next = self.apply(Transition::Opened)?;
        let attempts = next.attempts + tries;
        let latency = Some(now.since(since));
        Ok(Self {
            conversation_id: Some(conversation_id),
            attempts,
            latency,
            outcome_unknown: false,
            failure: None,
            ..next.ended(now)
        })
    }

    /// Whether a failure of this kind ends the session for good.
    ///
    /// A refusal does not undo an earlier attempt of unknown outcome, nor a message that was
    /// already sent. A recovered session is not ended by a refusal of the product's own
    /// credentials.
    pub fn is_terminal_failure(&self, setback: StepFailure, may_exist: bool) -> bool {
        match setback {
            StepFailure::Rejected {
                concerns_credentials,
            } => {
                !(self.outcome_unknown
                    || may_exist
                    || self.message_id.is_some()
                    || (self.recovered && concerns_credentials))
            }
            StepFailure::RetryAfter(_) | StepFailure::BackedOff => false,
        }
    }

    /// Records that a step failed, and moves the session to the state that follows.
    ///
    /// `may_exist` says that one of the step's attempts may have taken effect.
    ///
    /// # Errors
    /// Returns [`IllegalTransition`] if the present state does not allow the transition.
    pub fn apply_failure(
        self,
        setback: StepFailure,
        may_exist: bool,
        failure: Failure,
        tries: u32,
        now: Timestamp,
    ) -> Result<Self, IllegalTransition> {
        let ends = self.is_terminal_failure(setback, may_exist);
        let uncertain = self.outcome_unknown || may_exist;
        let session = Self {
            outcome_unknown: uncertain,
            ..self
        };
        match setback {
            StepFailure::Rejected { .. } if ends => session.refused(failure, tries, now),
            StepFailure::RetryAfter(wait) => session.parked(failure, tries, now + wait),
            StepFailure::Rejected { .. } | StepFailure::BackedOff => {
                session.backed_off(failure, tries, now)
            }
        }
    }

    /// Records that the platform refused, and moves the session to [`SessionState::Failed`].
    ///
    /// # Errors
    /// Returns [`IllegalTransition`] if the present state does not allow the transition.
    pub fn refused(
        self,
        failure: Failure,
        tries: u32,
        now: Timestamp,
    ) -> Result<Self, IllegalTransition> {
        let next = self.apply(Transition::Rejected)?;
        Ok(Self {
            attempts: next.attempts + tries,
            failure: Some(failure),
            ..next.ended(now)
        })
    }

    /// Records that the platform requested a wait until `until` (`Retry-After`).
    ///
    /// # Errors
    /// Returns [`IllegalTransition`] if the present state does not allow the transition.
    pub fn parked(
        self,
        failure: Failure,
        tries: u32,
        until: Timestamp,
    ) -> Result<Self, IllegalTransition> {
        let next = self.apply(Transition::Parked)?;
        // Stay within the time in which the platform remembers the key, so that one more try is
        // left.
        let until = until.min(next.step_started_at + Self::IDEMPOTENCY_WINDOW - Self::MAX_BACKOFF);
        Ok(Self {
            attempts: next.attempts + tries,
            failure: Some(failure),
            ..next.waiting(until)
        })
    }

    /// Records that the retries ended without success, and schedules a backoff that grows with the
    /// epoch.
    ///
    /// # Errors
    /// Returns [`IllegalTransition`] if the present state does not allow the transition.
    pub fn backed_off(
        self,
        failure: Failure,
        tries: u32,
        now: Timestamp,
    ) -> Result<Self, IllegalTransition> {
        let next = self.apply(Transition::BackedOff)?;
        let backoff = Self::BASE_BACKOFF
            .saturating_mul(1 << next.epoch.saturating_sub(1).min(8))
            .min(Self::MAX_BACKOFF);
        Ok(Self {
            attempts: next.attempts + tries,
            failure: Some(failure),
            ..next.waiting(now + backoff)
        })
    }

    /// Replaces a guest token that the platform refused as expired.
    ///
    /// # Errors
    /// Returns [`IllegalTransition`] if the present state does not allow the transition.
    pub fn token_renewed(
        self,
        token: TokenIdentity,
        tries: u32,
        now: Timestamp,
    ) -> Result<Self, IllegalTransition> {
        let next = self.apply(Transition::TokenReissued)?;
        Ok(Self {
            token,
            attempts: next.attempts + tries,
            ..next.leased(now)
        })
    }

    /// Claims the session under a new epoch, which fences off the previous worker.
    ///
    /// # Errors
    /// Returns [`IllegalTransition`] if the present state does not allow the transition.
    pub fn claimed(self, now: Timestamp) -> Result<Self, IllegalTransition> {
        // Without a recorded failure, the previous worker may have died with a call in flight.
        let uncertain = self.outcome_unknown || self.failure.is_none();
        // A refused step without unknown outcome starts afresh: the platform has not taken its key.
        let step_started_at = if self.state == SessionState::Failed && !uncertain {
            now
        } else {
            self.step_started_at
        };
        let owed = self.state != SessionState::Failed;
        let next = self.apply(Transition::Claimed)?;
        Ok(Self {
            recovered: owed,
            epoch: next.epoch + 1,
            ended_at: None,
            failure: None,
            outcome_unknown: uncertain,
            step_started_at,
            ..next.leased(now)
        })
    }

    /// Records that the step can no longer be repeated safely, and that an operator must look.
    ///
    /// # Errors
    /// Returns [`IllegalTransition`] if the present state does not allow the transition.
    pub fn expired(self, failure: Failure, now: Timestamp) -> Result<Self, IllegalTransition> {
        let next = self.apply(Transition::Expired)?;
        Ok(Self {
            epoch: next.epoch + 1,
            failure: Some(failure),
            ..next.ended(now)
        })
    }
}
