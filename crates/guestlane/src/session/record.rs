//! One session, as the ledger has it.

use std::{fmt, str::FromStr, time::Duration};

use guestlane_genesys::{PlatformId, Timestamp, TraceParent};
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

/// A session's id: ordered by time (UUID version 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub Uuid);

impl SessionId {
    fn new(now: Timestamp) -> Self {
        let micros = u64::try_from(now.unix_micros()).unwrap_or(0);
        let nanos = u32::try_from(micros % 1_000_000 * 1000).unwrap_or(0);
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, micros / 1_000_000, nanos)))
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
                format!("`{}` is not a session's id", shorten(text)),
                "see `guestlane sessions list`",
            )
        };
        Uuid::try_parse(text).map(Self).map_err(invalid)
    }
}

/// What whoever asks for a session under its key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// It is open: there is nothing to do.
    Completed,
    /// Nothing: a person must look.
    NeedsAttention,
    /// Wait: somebody else drives it, or the platform asked for patience.
    Unavailable,
    /// Take it up.
    Claimable,
}

/// How a step failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepFailure {
    /// The platform said no.
    Rejected {
        /// To us (credentials, permissions), not to the request.
        about_us: bool,
    },
    /// The platform said: not before so long.
    RetryAfter(Duration),
    /// We stopped trying for now.
    BackedOff,
}

/// Why the last attempt did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A stable code of the error catalogue.
    pub code: String,
    /// One sentence.
    pub message: String,
}

/// One session, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its id.
    pub id: SessionId,
    /// What was asked for.
    pub request: SessionRequest,
    /// How far it got.
    pub state: SessionState,
    /// What its guest token is made of.
    pub token: TokenIdentity,
    /// By which of the platform's APIs its conversation is opened.
    pub surface_binding: SurfaceBinding,
    /// The contact, once it exists.
    pub contact_id: Option<PlatformId>,
    /// Whether nothing identified the guest's contact when the session was admitted.
    pub contact_without_identifier: bool,
    /// Whether a contact may exist whose id nobody knows: it had no identifier, and the answer was lost. It is not asked for again.
    pub contact_id_lost: bool,
    /// The guest's first message, once the platform has it. Of the official surfaces.
    pub message_id: Option<PlatformId>,
    /// The conversation, once it is known to exist.
    pub conversation_id: Option<PlatformId>,
    /// When the guest's session on the platform ends if nothing is said. Of web messaging.
    pub guest_session_expires_at: Option<Timestamp>,
    /// Calls sent for the contact and the conversation: 2 when nothing had to be repeated.
    pub attempts: u32,
    /// Counts who drove it: a driver with an older number can write nothing.
    pub epoch: u32,
    /// When it was admitted.
    pub admitted_at: Timestamp,
    /// Since when the key of the present step may be in use on the platform.
    pub step_started_at: Timestamp,
    /// Whether an attempt at the present step may have done its work without our knowing.
    pub outcome_unknown: bool,
    /// Whether it was taken up unfinished, and so is owed to a caller who is gone. Known while it is driven; not stored.
    pub recovered: bool,
    /// When it may be taken up by somebody else: the end of the lease, of the parking, or of the pause after giving up.
    pub due_at: Timestamp,
    /// When the conversation was there.
    pub opened_at: Option<Timestamp>,
    /// From the caller's request, or from admission where that caller is gone, to the conversation.
    pub latency: Option<Duration>,
    /// Why the last attempt did not end well.
    pub failure: Option<Failure>,
    /// The trace of whoever asked first.
    pub trace: Option<TraceParent>,
}

impl SessionRecord {
    /// How long the platform remembers a key (requirement R6, docs/requirements.md), less an hour
    /// for clocks that differ and calls under way.
    pub const IDEMPOTENCY_WINDOW: Duration = Duration::from_secs(23 * 3600);

    /// How long an open message whose answer was lost is sent again. After that its conversation may have been ended, and the same sender would
    /// begin a second one.
    const OPEN_MESSAGE_DEDUP_WINDOW: Duration = Duration::from_secs(3600);

    /// How long a session rests after it was given up for now; twice as long each time.
    const BASE_BACKOFF: Duration = Duration::from_secs(15);

    /// The longest rest.
    pub(crate) const MAX_BACKOFF: Duration = Duration::from_secs(300);

    /// Admitted and leased to whoever asked, now.
    pub fn new(request: SessionRequest, start: SessionContext, token: TokenIdentity, now: Timestamp) -> Self {
        let SessionContext { way: surface_binding, contact_without_identifier, trace } = start;
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
            due_at: now + LEASE_TTL,
            opened_at: None,
            latency: None,
            failure: None,
            trace,
        }
    }

    /// Whether others must keep away for now: somebody drives it, or the platform asked to wait. One that was given up for now may be
    /// taken up by whoever asks for it. A lease that would end later than any lease can was given by a clock that was set back since.
    pub fn is_leased(&self, now: Timestamp) -> bool {
        let waits = self.due_at > now;
        match (self.state, &self.failure) {
            (SessionState::Parked, _) => waits,
            (_, Some(_)) => false,
            (_, None) => waits && self.due_at <= now + LEASE_TTL + MAX_CLOCK_SKEW,
        }
    }

    /// Whether its guest was erased: then nobody can go on with it.
    pub fn is_erased(&self) -> bool {
        self.request.key.as_str().strip_prefix("erased-").is_some_and(|id| id == self.id.0.simple().to_string())
    }

    /// What whoever asks for it under its key may do.
    #[deny(clippy::wildcard_enum_match_arm)]
    pub fn availability_at(&self, now: Timestamp) -> Availability {
        match self.state {
            SessionState::Open => Availability::Completed,
            SessionState::NeedsAttention => Availability::NeedsAttention,
            SessionState::Admitted | SessionState::ContactCreated | SessionState::Parked if self.is_leased(now) => {
                Availability::Unavailable
            }
            // What was refused may be mended by now, and what rests need not wait for its turn when somebody asks. Whoever
            // drove it can write nothing from here on.
            SessionState::Admitted | SessionState::ContactCreated | SessionState::Parked | SessionState::Failed => {
                Availability::Claimable
            }
        }
    }

    /// Whether the platform may have forgotten the key of the present step, so that repeating it may make a second one. Where the guest has said
    /// something, nothing is left that could; but without a conversation after so long, somebody should know.
    pub fn is_past_idempotency_window(&self, now: Timestamp) -> bool {
        let life = match (&self.surface_binding, &self.message_id, &self.conversation_id) {
            (SurfaceBinding::WebMessaging { .. } | SurfaceBinding::OpenMessaging { .. }, Some(_), Some(_)) => return false,
            // The same sender is the same conversation only for as long as that lives, and an agent may end it.
            (SurfaceBinding::OpenMessaging { .. }, None, _)
                if self.outcome_unknown && self.state == SessionState::ContactCreated =>
            {
                Self::OPEN_MESSAGE_DEDUP_WINDOW
            }
            _ => Self::IDEMPOTENCY_WINDOW,
        };
        now.since(self.step_started_at) >= life
    }

    /// Whether nothing of it exists beyond a contact, surely: it may begin anew in another way.
    pub fn can_restart(&self) -> bool {
        self.state == SessionState::Failed && !self.outcome_unknown && self.message_id.is_none()
    }

    /// Whether something may exist on the platform.
    pub fn may_have_succeeded(&self) -> bool {
        self.outcome_unknown || self.contact_id.is_some() || self.contact_id_lost || self.message_id.is_some()
    }

    fn step(mut self, step: Transition) -> Result<Self, IllegalTransition> {
        self.state = self.state.apply(step, self.contact_id.is_some() || self.contact_id_lost)?;
        Ok(self)
    }

    /// The contact exists; or, without an id, one may exist that nobody can find.
    pub fn contact_created(self, contact_id: Option<PlatformId>, tries: u32, now: Timestamp) -> Result<Self, IllegalTransition> {
        let next = self.step(Transition::ContactCreated)?.start_step(tries, now);
        Ok(Self { contact_id_lost: contact_id.is_none(), contact_id, ..next })
    }

    /// The platform has the guest's first message, and perhaps says at once in which conversation.
    pub fn message_sent(
        self,
        message_id: PlatformId,
        conversation_id: Option<PlatformId>,
        guest_session_expires_at: Option<Timestamp>,
        tries: u32,
        now: Timestamp,
    ) -> Result<Self, IllegalTransition> {
        let next = self.step(Transition::MessageSent)?.start_step(tries, now);
        Ok(Self { message_id: Some(message_id), conversation_id, guest_session_expires_at, ..next })
    }

    /// The first message's conversation is known.
    pub fn conversation_found(self, conversation_id: PlatformId, tries: u32, now: Timestamp) -> Result<Self, IllegalTransition> {
        let next = self.step(Transition::ConversationFound)?.start_step(tries, now);
        Ok(Self { conversation_id: Some(conversation_id), ..next })
    }

    /// The platform has the contact no more. Until another one is [known](Self::contact_replaced) one may exist whose ID is not known:
    /// it is not made a second time.
    pub fn contact_lost(self, now: Timestamp) -> Result<Self, IllegalTransition> {
        let next = self.step(Transition::ContactReplaced)?;
        Ok(Self { contact_id: None, contact_id_lost: true, due_at: now + LEASE_TTL, ..next })
    }

    /// Another contact is in the place of the one that the platform has no more.
    pub fn contact_replaced(self, contact_id: PlatformId, tries: u32, now: Timestamp) -> Result<Self, IllegalTransition> {
        let next = self.step(Transition::ContactReplaced)?;
        let attempts = next.attempts + tries;
        Ok(Self { contact_id: Some(contact_id), contact_id_lost: false, attempts, due_at: now + LEASE_TTL, ..next })
    }

    /// A step is done; with the next one nothing has happened yet.
    fn start_step(self, tries: u32, now: Timestamp) -> Self {
        let attempts = self.attempts + tries;
        Self {
            attempts,
            step_started_at: now,
            outcome_unknown: false,
            recovered: false,
            due_at: now + LEASE_TTL,
            failure: None,
            ..self
        }
    }

    /// The conversation exists.
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
            opened_at: Some(now),
            latency,
            outcome_unknown: false,
            failure: None,
            ..next
        })
    }

    /// Whether a setback ends it for good. A «no» does not undo what an earlier attempt may have done, nor what the guest has said already; and
    /// a session that was promised to be completed is not given up because somebody's credentials are wrong today.
    pub fn is_terminal_failure(&self, setback: StepFailure, may_exist: bool) -> bool {
        match setback {
            StepFailure::Rejected { about_us } => {
                !(self.outcome_unknown || may_exist || self.message_id.is_some() || (self.recovered && about_us))
            }
            StepFailure::RetryAfter(_) | StepFailure::BackedOff => false,
        }
    }

    /// A step failed. `may_exist`: one of its attempts may have done the work.
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
        let session = Self { outcome_unknown: uncertain, ..self };
        match setback {
            StepFailure::Rejected { .. } if ends => session.refused(failure, tries),
            StepFailure::RetryAfter(wait) => session.parked(failure, tries, now + wait),
            StepFailure::Rejected { .. } | StepFailure::BackedOff => session.backed_off(failure, tries, now),
        }
    }

    /// The platform refused.
    pub fn refused(self, failure: Failure, tries: u32) -> Result<Self, IllegalTransition> {
        let next = self.step(Transition::Rejected)?;
        Ok(Self { attempts: next.attempts + tries, failure: Some(failure), ..next })
    }

    /// The platform wants us to wait until then.
    pub fn parked(self, failure: Failure, tries: u32, until: Timestamp) -> Result<Self, IllegalTransition> {
        let next = self.step(Transition::Parked)?;
        // Not past the time in which the platform remembers the key: one try must be left.
        let until = until.min(next.step_started_at + Self::IDEMPOTENCY_WINDOW - Self::MAX_BACKOFF);
        Ok(Self { attempts: next.attempts + tries, failure: Some(failure), due_at: until, ..next })
    }

    /// We stop for now; somebody goes on after a rest.
    pub fn backed_off(self, failure: Failure, tries: u32, now: Timestamp) -> Result<Self, IllegalTransition> {
        let next = self.step(Transition::BackedOff)?;
        let rest = Self::BASE_BACKOFF.saturating_mul(1 << next.epoch.saturating_sub(1).min(8)).min(Self::MAX_BACKOFF);
        Ok(Self { attempts: next.attempts + tries, failure: Some(failure), due_at: now + rest, ..next })
    }

    /// A fresh token takes the place of one that the platform refused as expired.
    pub fn token_renewed(self, token: TokenIdentity, tries: u32, now: Timestamp) -> Result<Self, IllegalTransition> {
        let next = self.step(Transition::TokenReissued)?;
        Ok(Self { token, attempts: next.attempts + tries, due_at: now + LEASE_TTL, ..next })
    }

    /// Somebody goes on with it, under a new epoch: whoever drove it before can write nothing any more.
    pub fn claimed(self, now: Timestamp) -> Result<Self, IllegalTransition> {
        // Without a word of how it ended, the driver before died with a call under way, perhaps.
        let uncertain = self.outcome_unknown || self.failure.is_none();
        // What was refused, and surely not done before, begins anew: its key is free.
        let step_started_at = if self.state == SessionState::Failed && !uncertain { now } else { self.step_started_at };
        let owed = self.state != SessionState::Failed;
        let next = self.step(Transition::Claimed)?;
        Ok(Self {
            recovered: owed,
            epoch: next.epoch + 1,
            due_at: now + LEASE_TTL,
            failure: None,
            outcome_unknown: uncertain,
            step_started_at,
            ..next
        })
    }

    /// Too old to be repeated safely.
    pub fn expired(self, failure: Failure) -> Result<Self, IllegalTransition> {
        let next = self.step(Transition::Expired)?;
        Ok(Self { epoch: next.epoch + 1, failure: Some(failure), ..next })
    }
}
