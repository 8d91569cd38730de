//! The session record: the durable row of one session, and the pure functions that change it.

use std::{fmt, str::FromStr, time::Duration};

use guestlane_genesys::PlatformId;
use guestlane_runtime::{Timestamp, TraceParent};
use uuid::Uuid;

use super::{
    lease::{LEASE_TTL, MAX_CLOCK_SKEW},
    state::SessionState,
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
                "copy the ID from the list of sessions",
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
        concerns_credentials: bool,
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
    pub(super) const BASE_BACKOFF: Duration = Duration::from_secs(15);

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
}
