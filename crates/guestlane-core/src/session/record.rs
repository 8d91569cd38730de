//! The session record: the durable row of one session, and the pure functions that change it.

use std::{fmt, str::FromStr, time::Duration};

use guestlane_genesys::PlatformId;
use guestlane_runtime::{Timestamp, TraceParent};
use uuid::Uuid;

use super::{
    lease::{LEASE_TTL, MAX_CLOCK_SKEW},
    state::{IllegalTransition, SessionState, Transition},
    surface_binding::{SessionContext, SurfaceBinding},
};
use crate::{
    request::{SessionRequest, ValidationError, shorten},
    token::TokenIdentity,
};

/// ID of a session, a UUID version 7. IDs sort by the time of admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub Uuid);

impl SessionId {
    fn new(now: Timestamp) -> Self {
        let micros = u64::try_from(now.unix_micros()).unwrap_or(0);
        let nanos = u32::try_from(micros % 1_000_000 * 1000).unwrap_or(0);
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(
            uuid::NoContext,
            micros / 1_000_000,
            nanos,
        )))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for SessionId {
    type Err = ValidationError;

    fn from_str(text: &str) -> Result<Self, ValidationError> {
        let invalid = |_| {
            ValidationError::new(
                "sessionId",
                format!("`{}` is not a session ID", shorten(text)),
                "see `guestlane sessions list`",
            )
        };
        Uuid::try_parse(text).map(Self).map_err(invalid)
    }
}

/// Whether a caller that presents an idempotency key may run the saga, must wait, or gets the
/// stored result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// The session is open. The caller gets the stored result.
    Completed,
    /// The session needs an operator's decision. The caller cannot run the saga.
    NeedsAttention,
    /// The caller must wait: another worker holds the lease, or the platform sent `Retry-After`.
    Unavailable,
    /// The caller may claim the session and run its saga.
    Claimable,
}

/// How a step failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepFailure {
    /// The platform refused the request.
    Rejected {
        /// Whether the refusal concerns the product's credentials or permissions, not the request.
        about_us: bool,
    },
    /// The platform sent `Retry-After` with this wait.
    RetryAfter(Duration),
    /// The retries ended without success; the step is repeated after a backoff.
    BackedOff,
}

/// Why the last attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A stable code of the error catalogue.
    pub code: String,
    /// A description of one sentence.
    pub message: String,
}

/// The durable row of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// ID of the session.
    pub id: SessionId,
    /// The caller's request.
    pub request: SessionRequest,
    /// The state of the saga.
    pub state: SessionState,
    /// The claims from which the same guest token is signed again.
    pub token: TokenIdentity,
    /// The platform API that opens the conversation.
    pub surface_binding: SurfaceBinding,
    /// The contact, once it exists.
    pub contact_id: Option<PlatformId>,
    /// Whether no identifier of the guest's contact was known when the session was admitted.
    pub contact_without_identifier: bool,
    /// Whether a contact may exist whose ID is unknown, because it had no identifier and the
    /// response was lost. The contact is not created again.
    pub contact_id_lost: bool,
    /// The guest's first message, once the platform has accepted it. Only on `web-messaging` and
    /// `open-messaging`.
    pub message_id: Option<PlatformId>,
    /// The conversation, once it is known to exist.
    pub conversation_id: Option<PlatformId>,
    /// When the guest's session on the platform expires without further messages. Only on
    /// `web-messaging`.
    pub guest_session_expires_at: Option<Timestamp>,
    /// Number of calls sent for the contact and the conversation; 2 if no call was repeated.
    pub attempts: u32,
    /// Fencing number of the lease. It increases with each claim; a write with an older number
    /// changes nothing.
    pub epoch: u32,
    /// When the session was admitted.
    pub admitted_at: Timestamp,
    /// Earliest time at which the present step's platform key may have been used.
    pub step_started_at: Timestamp,
    /// Whether an attempt at the present step has an unknown outcome.
    pub outcome_unknown: bool,
    /// Whether the session was claimed while unfinished. Its first caller is gone and still expects
    /// completion. Known during the lease; not stored.
    pub recovered: bool,
    /// When the lease expires, while a worker runs the saga. Without renewal another worker may then
    /// claim the session.
    pub lease_expires_at: Option<Timestamp>,
    /// When the next run of the saga is due: the end of a backoff or of a `Retry-After` wait.
    pub next_attempt_at: Option<Timestamp>,
    /// When the session became open, failed, or needs attention.
    pub ended_at: Option<Timestamp>,
    /// Time from the caller's request to the conversation. It starts at admission if the caller is
    /// gone.
    pub latency: Option<Duration>,
    /// Why the last attempt failed.
    pub failure: Option<Failure>,
    /// Trace context of the request that admitted the session.
    pub trace: Option<TraceParent>,
}

impl SessionRecord {
    /// How long a platform key can be repeated safely.
    ///
    /// The platform remembers a key for 24 h (requirement R6, docs/requirements.md). One hour is
    /// subtracted for clock skew and for calls in flight.
    pub const IDEMPOTENCY_WINDOW: Duration = Duration::from_secs(23 * 3600);

    /// How long an open message of unknown outcome is sent again.
    ///
    /// After that its conversation may have ended, and the same sender would open a second one.
    const OPEN_MESSAGE_DEDUP_WINDOW: Duration = Duration::from_secs(3600);

    /// The first backoff after a failed run of the saga. It doubles each time.
    const BASE_BACKOFF: Duration = Duration::from_secs(15);

    /// The longest backoff.
    pub const MAX_BACKOFF: Duration = Duration::from_secs(300);

    /// Returns a new record in the state `Admitted`, leased to the caller from `now` on.
    pub fn new(
        request: SessionRequest,
        start: SessionContext,
        token: TokenIdentity,
        now: Timestamp,
    ) -> Self {
        let SessionContext {
            surface: surface_binding,
            contact_without_identifier,
            trace,
        } = start;
        Self {
            id: SessionId::new(now),
            request,
            state: SessionState::Admitted,
            token,
            surface_binding,
            contact_id: None,
            contact_without_identifier,
            contact_id_lost: false,
            message_id: None,
            conversation_id: None,
            guest_session_expires_at: None,
            attempts: 0,
            epoch: 1,
            admitted_at: now,
            step_started_at: now,
            outcome_unknown: false,
            recovered: false,
            lease_expires_at: Some(now + LEASE_TTL),
            next_attempt_at: None,
            ended_at: None,
            latency: None,
            failure: None,
            trace,
        }
    }

    /// Returns until when another worker must leave the session alone: the end of the lease, or of a
    /// `Retry-After` wait. A session in backoff is not blocked: a caller that presents its idempotency
    /// key may claim it.
    pub fn blocked_until(&self) -> Option<Timestamp> {
        match self.state {
            SessionState::Parked => self.next_attempt_at,
            SessionState::Admitted
            | SessionState::ContactReady
            | SessionState::MessageSent
            | SessionState::ConversationFound => self.lease_expires_at,
            SessionState::Open | SessionState::Failed | SessionState::NeedsAttention => None,
        }
    }

    /// Whether another worker must leave the session alone at `now`.
    ///
    /// An expiry beyond `LEASE_TTL + MAX_CLOCK_SKEW` was written before the wall clock moved
    /// backwards; the lease is treated as expired.
    pub fn is_blocked(&self, now: Timestamp) -> bool {
        let is_lease = self.state != SessionState::Parked;
        self.blocked_until().is_some_and(|until| {
            until > now && !(is_lease && until > now + LEASE_TTL + MAX_CLOCK_SKEW)
        })
    }

    /// Returns when a worker resumes the session without a request: at the end of the lease, the
    /// backoff, or the `Retry-After` wait.
    pub fn due_at(&self) -> Option<Timestamp> {
        self.next_attempt_at.or(self.lease_expires_at)
    }

    /// Returns when the conversation was opened.
    pub fn opened_at(&self) -> Option<Timestamp> {
        self.ended_at.filter(|_| self.state == SessionState::Open)
    }

    /// Whether the guest of this session was erased. An erased session cannot be resumed.
    pub fn is_erased(&self) -> bool {
        self.request
            .key
            .as_str()
            .strip_prefix("erased-")
            .is_some_and(|id| id == self.id.0.simple().to_string())
    }

    /// Returns whether a caller that presents the idempotency key may run the saga at `now`.
    #[deny(clippy::wildcard_enum_match_arm)]
    pub fn availability_at(&self, now: Timestamp) -> Availability {
        match self.state {
            SessionState::Open => Availability::Completed,
            SessionState::NeedsAttention => Availability::NeedsAttention,
            SessionState::Admitted
            | SessionState::ContactReady
            | SessionState::MessageSent
            | SessionState::ConversationFound
            | SessionState::Parked
                if self.is_blocked(now) =>
            {
                Availability::Unavailable
            }
            // The cause of a refusal may be corrected by now, and a caller does not wait for the
            // backoff. The claim raises the epoch, which fences off the previous worker.
            SessionState::Admitted
            | SessionState::ContactReady
            | SessionState::MessageSent
            | SessionState::ConversationFound
            | SessionState::Parked
            | SessionState::Failed => Availability::Claimable,
        }
    }

    /// Whether the platform may have forgotten the present step's key, so that a repeated call
    /// could create a duplicate.
    ///
    /// After the first message was accepted, no later step can create a duplicate. A session
    /// without a conversation still expires, so that an operator looks at it.
    pub fn is_past_idempotency_window(&self, now: Timestamp) -> bool {
        let life = match (&self.surface_binding, self.resumed_state()) {
            (_, SessionState::ConversationFound) => return false,
            // The same sender reaches the same conversation only while that is active, and an agent
            // may end it.
            (SurfaceBinding::OpenMessaging { .. }, SessionState::ContactReady)
                if self.outcome_unknown && self.state == SessionState::ContactReady =>
            {
                Self::OPEN_MESSAGE_DEDUP_WINDOW
            }
            _ => Self::IDEMPOTENCY_WINDOW,
        };
        now.since(self.step_started_at) >= life
    }

    /// Whether at most a contact can exist on the platform, so that the session may restart on
    /// another surface.
    pub fn can_restart(&self) -> bool {
        self.state == SessionState::Failed && !self.outcome_unknown && self.message_id.is_none()
    }

    /// Whether the session may have created something on the platform.
    pub fn may_have_succeeded(&self) -> bool {
        self.outcome_unknown
            || self.contact_id.is_some()
            || self.contact_id_lost
            || self.message_id.is_some()
    }

    /// Returns the active state that corresponds to what is known to exist on the platform. A parked
    /// or failed session returns to it when it is claimed.
    fn resumed_state(&self) -> SessionState {
        let has_contact = self.contact_id.is_some() || self.contact_id_lost;
        match (&self.message_id, &self.conversation_id) {
            (Some(_), Some(_)) => SessionState::ConversationFound,
            (Some(_), None) => SessionState::MessageSent,
            (None, _) if has_contact => SessionState::ContactReady,
            (None, _) => SessionState::Admitted,
        }
    }

    fn step(mut self, step: Transition) -> Result<Self, IllegalTransition> {
        self.state = self.state.apply(step, self.resumed_state())?;
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
        let next = self.step(Transition::ContactReady)?.start_step(tries, now);
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
        let next = self.step(Transition::MessageSent)?.start_step(tries, now);
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
            .step(Transition::ConversationFound)?
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
        let next = self.step(Transition::ContactReplaced)?;
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
        let next = self.step(Transition::ContactReplaced)?;
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
        let next = self.step(Transition::Opened)?;
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
            StepFailure::Rejected { about_us } => {
                !(self.outcome_unknown
                    || may_exist
                    || self.message_id.is_some()
                    || (self.recovered && about_us))
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
        let next = self.step(Transition::Rejected)?;
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
        let next = self.step(Transition::Parked)?;
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
        let next = self.step(Transition::BackedOff)?;
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
        let next = self.step(Transition::TokenReissued)?;
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
        let next = self.step(Transition::Claimed)?;
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
        let next = self.step(Transition::Expired)?;
        Ok(Self {
            epoch: next.epoch + 1,
            failure: Some(failure),
            ..next.ended(now)
        })
    }
}
