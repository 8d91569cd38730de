//! One session, as the ledger has it.

use std::{fmt, str::FromStr, time::Duration};

use guestlane_genesys::{PlatformId, Timestamp, TraceParent};
use uuid::Uuid;

use super::{
    lease::{CLOCKS, LEASE},
    state::{IllegalMove, Move, State},
    way::{Start, Way},
};
use crate::{
    request::{Invalid, SessionRequest, shorten},
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
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid =
            |_| Invalid::new("sessionId", format!("`{}` is not a session's id", shorten(text)), "see `guestlane sessions list`");
        Uuid::try_parse(text).map(Self).map_err(invalid)
    }
}

/// What whoever asks for a session under its key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is open: there is nothing to do.
    Done,
    /// Nothing: a person must look.
    NeedsAttention,
    /// Wait: somebody else drives it, or the platform asked for patience.
    Held,
    /// Take it up.
    Free,
}

/// How a step failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setback {
    /// The platform said no.
    Refused {
        /// To us (credentials, permissions), not to the request.
        about_us: bool,
    },
    /// The platform said: not before so long.
    Wait(Duration),
    /// We stopped trying for now.
    GaveUp,
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
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// What was asked for.
    pub request: SessionRequest,
    /// How far it got.
    pub state: State,
    /// What its guest token is made of.
    pub token: TokenIdentity,
    /// By which of the platform's APIs its conversation is opened.
    pub way: Way,
    /// The contact, once it exists.
    pub contact_id: Option<PlatformId>,
    /// Whether nothing identified the guest's contact when the session was admitted.
    pub plain_contact: bool,
    /// Whether a contact may exist whose id nobody knows: it had no identifier, and the answer was lost. It is not asked for again.
    pub contact_unknown: bool,
    /// The guest's first message, once the platform has it. Of the official surfaces.
    pub message_id: Option<PlatformId>,
    /// The conversation, once it is known to exist.
    pub conversation_id: Option<PlatformId>,
    /// When the guest's session on the platform ends if nothing is said. Of web messaging.
    pub guest_session_ends: Option<Timestamp>,
    /// Calls sent for the contact and the conversation: 2 when nothing had to be repeated.
    pub attempts: u32,
    /// Counts who drove it: a driver with an older number can write nothing.
    pub epoch: u32,
    /// When it was admitted.
    pub admitted_at: Timestamp,
    /// Since when the key of the present step may be in use on the platform.
    pub step_since: Timestamp,
    /// Whether an attempt at the present step may have done its work without our knowing.
    pub uncertain: bool,
    /// Whether it was taken up unfinished, and so is owed to a caller who is gone. Known while it is driven; not stored.
    pub owed: bool,
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

impl Session {
    /// How long the platform remembers a key (requirement R6, docs/requirements.md), less an hour
    /// for clocks that differ and calls under way.
    pub const KEY_LIFE: Duration = Duration::from_secs(23 * 3600);

    /// How long an open message whose answer was lost is sent again. After that its conversation may have been ended, and the same sender would
    /// begin a second one.
    const OPEN_MESSAGE_LIFE: Duration = Duration::from_secs(3600);

    /// How long a session rests after it was given up for now; twice as long each time.
    const REST: Duration = Duration::from_secs(15);

    /// The longest rest.
    pub(crate) const LONGEST_REST: Duration = Duration::from_secs(300);

    /// Admitted and leased to whoever asked, now.
    pub fn admitted(request: SessionRequest, start: Start, token: TokenIdentity, now: Timestamp) -> Self {
        let Start { way, plain_contact, trace } = start;
        Self {
            id: SessionId::new(now),
            request,
            state: State::Admitted,
            token,
            way,
            contact_id: None,
            plain_contact,
            contact_unknown: false,
            message_id: None,
            conversation_id: None,
            guest_session_ends: None,
            attempts: 0,
            epoch: 1,
            admitted_at: now,
            step_since: now,
            uncertain: false,
            owed: false,
            due_at: now + LEASE,
            opened_at: None,
            latency: None,
            failure: None,
            trace,
        }
    }

    /// Whether others must keep away for now: somebody drives it, or the platform asked to wait. One that was given up for now may be
    /// taken up by whoever asks for it. A lease that would end later than any lease can was given by a clock that was set back since.
    pub fn is_held_at(&self, now: Timestamp) -> bool {
        let waits = self.due_at > now;
        match (self.state, &self.failure) {
            (State::Parked, _) => waits,
            (_, Some(_)) => false,
            (_, None) => waits && self.due_at <= now + LEASE + CLOCKS,
        }
    }

    /// Whether its guest was erased: then nobody can go on with it.
    pub fn is_erased(&self) -> bool {
        self.request.key.as_str().strip_prefix("erased-").is_some_and(|id| id == self.id.0.simple().to_string())
    }

    /// What whoever asks for it under its key may do.
    #[deny(clippy::wildcard_enum_match_arm)]
    pub fn standing_at(&self, now: Timestamp) -> Standing {
        match self.state {
            State::Open => Standing::Done,
            State::NeedsAttention => Standing::NeedsAttention,
            State::Admitted | State::ContactCreated | State::Parked if self.is_held_at(now) => Standing::Held,
            // What was refused may be mended by now, and what rests need not wait for its turn when somebody asks. Whoever
            // drove it can write nothing from here on.
            State::Admitted | State::ContactCreated | State::Parked | State::Failed => Standing::Free,
        }
    }

    /// Whether the platform may have forgotten the key of the present step, so that repeating it may make a second one. Where the guest has said
    /// something, nothing is left that could; but without a conversation after so long, somebody should know.
    pub fn is_too_old_at(&self, now: Timestamp) -> bool {
        let life = match (&self.way, &self.message_id, &self.conversation_id) {
            (Way::WebMessaging { .. } | Way::OpenMessaging { .. }, Some(_), Some(_)) => return false,
            // The same sender is the same conversation only for as long as that lives, and an agent may end it.
            (Way::OpenMessaging { .. }, None, _) if self.uncertain && self.state == State::ContactCreated => {
                Self::OPEN_MESSAGE_LIFE
            }
            _ => Self::KEY_LIFE,
        };
        now.since(self.step_since) >= life
    }

    /// Whether nothing of it exists beyond a contact, surely: it may begin anew in another way.
    pub fn may_begin_anew(&self) -> bool {
        self.state == State::Failed && !self.uncertain && self.message_id.is_none()
    }

    /// Whether something may exist on the platform.
    pub fn may_exist(&self) -> bool {
        self.uncertain || self.contact_id.is_some() || self.contact_unknown || self.message_id.is_some()
    }

    fn step(mut self, step: Move) -> Result<Self, IllegalMove> {
        self.state = self.state.after(step, self.contact_id.is_some() || self.contact_unknown)?;
        Ok(self)
    }

    /// The contact exists; or, without an id, one may exist that nobody can find.
    pub fn contact_created(self, contact_id: Option<PlatformId>, tries: u32, now: Timestamp) -> Result<Self, IllegalMove> {
        let next = self.step(Move::ContactCreated)?.begins_step(tries, now);
        Ok(Self { contact_unknown: contact_id.is_none(), contact_id, ..next })
    }

    /// The platform has the guest's first message, and perhaps says at once in which conversation.
    pub fn message_sent(
        self,
        message_id: PlatformId,
        conversation_id: Option<PlatformId>,
        guest_session_ends: Option<Timestamp>,
        tries: u32,
        now: Timestamp,
    ) -> Result<Self, IllegalMove> {
        let next = self.step(Move::MessageSent)?.begins_step(tries, now);
        Ok(Self { message_id: Some(message_id), conversation_id, guest_session_ends, ..next })
    }

    /// The first message's conversation is known.
    pub fn conversation_found(self, conversation_id: PlatformId, tries: u32, now: Timestamp) -> Result<Self, IllegalMove> {
        let next = self.step(Move::ConversationFound)?.begins_step(tries, now);
        Ok(Self { conversation_id: Some(conversation_id), ..next })
    }

    /// The platform has the contact no more. Until another one is [known](Self::contact_replaced) one may exist whose ID is not known:
    /// it is not made a second time.
    pub fn contact_lost(self, now: Timestamp) -> Result<Self, IllegalMove> {
        let next = self.step(Move::ContactReplaced)?;
        Ok(Self { contact_id: None, contact_unknown: true, due_at: now + LEASE, ..next })
    }

    /// Another contact is in the place of the one that the platform has no more.
    pub fn contact_replaced(self, contact_id: PlatformId, tries: u32, now: Timestamp) -> Result<Self, IllegalMove> {
        let next = self.step(Move::ContactReplaced)?;
        let attempts = next.attempts + tries;
        Ok(Self { contact_id: Some(contact_id), contact_unknown: false, attempts, due_at: now + LEASE, ..next })
    }

    /// A step is done; with the next one nothing has happened yet.
    fn begins_step(self, tries: u32, now: Timestamp) -> Self {
        let attempts = self.attempts + tries;
        Self { attempts, step_since: now, uncertain: false, owed: false, due_at: now + LEASE, failure: None, ..self }
    }

    /// The conversation exists.
    pub fn opened(self, conversation_id: PlatformId, tries: u32, since: Timestamp, now: Timestamp) -> Result<Self, IllegalMove> {
        let next = self.step(Move::Opened)?;
        let attempts = next.attempts + tries;
        let latency = Some(now.since(since));
        Ok(Self {
            conversation_id: Some(conversation_id),
            attempts,
            opened_at: Some(now),
            latency,
            uncertain: false,
            failure: None,
            ..next
        })
    }

    /// Whether a setback ends it for good. A «no» does not undo what an earlier attempt may have done, nor what the guest has said already; and
    /// a session that was promised to be completed is not given up because somebody's credentials are wrong today.
    pub fn is_ended_by(&self, setback: Setback, may_exist: bool) -> bool {
        match setback {
            Setback::Refused { about_us } => {
                !(self.uncertain || may_exist || self.message_id.is_some() || (self.owed && about_us))
            }
            Setback::Wait(_) | Setback::GaveUp => false,
        }
    }

    /// A step failed. `may_exist`: one of its attempts may have done the work.
    pub fn set_back(
        self,
        setback: Setback,
        may_exist: bool,
        failure: Failure,
        tries: u32,
        now: Timestamp,
    ) -> Result<Self, IllegalMove> {
        let ends = self.is_ended_by(setback, may_exist);
        let uncertain = self.uncertain || may_exist;
        let session = Self { uncertain, ..self };
        match setback {
            Setback::Refused { .. } if ends => session.refused(failure, tries),
            Setback::Wait(wait) => session.parked(failure, tries, now + wait),
            Setback::Refused { .. } | Setback::GaveUp => session.gave_up(failure, tries, now),
        }
    }

    /// The platform refused.
    pub fn refused(self, failure: Failure, tries: u32) -> Result<Self, IllegalMove> {
        let next = self.step(Move::Refused)?;
        Ok(Self { attempts: next.attempts + tries, failure: Some(failure), ..next })
    }

    /// The platform wants us to wait until then.
    pub fn parked(self, failure: Failure, tries: u32, until: Timestamp) -> Result<Self, IllegalMove> {
        let next = self.step(Move::Park)?;
        // Not past the time in which the platform remembers the key: one try must be left.
        let until = until.min(next.step_since + Self::KEY_LIFE - Self::LONGEST_REST);
        Ok(Self { attempts: next.attempts + tries, failure: Some(failure), due_at: until, ..next })
    }

    /// We stop for now; somebody goes on after a rest.
    pub fn gave_up(self, failure: Failure, tries: u32, now: Timestamp) -> Result<Self, IllegalMove> {
        let next = self.step(Move::GaveUp)?;
        let rest = Self::REST.saturating_mul(1 << next.epoch.saturating_sub(1).min(8)).min(Self::LONGEST_REST);
        Ok(Self { attempts: next.attempts + tries, failure: Some(failure), due_at: now + rest, ..next })
    }

    /// A fresh token takes the place of one that the platform refused as expired.
    pub fn token_renewed(self, token: TokenIdentity, tries: u32, now: Timestamp) -> Result<Self, IllegalMove> {
        let next = self.step(Move::TokenRenewed)?;
        Ok(Self { token, attempts: next.attempts + tries, due_at: now + LEASE, ..next })
    }

    /// Somebody goes on with it, under a new epoch: whoever drove it before can write nothing any more.
    pub fn taken_up(self, now: Timestamp) -> Result<Self, IllegalMove> {
        // Without a word of how it ended, the driver before died with a call under way, perhaps.
        let uncertain = self.uncertain || self.failure.is_none();
        // What was refused, and surely not done before, begins anew: its key is free.
        let step_since = if self.state == State::Failed && !uncertain { now } else { self.step_since };
        let owed = self.state != State::Failed;
        let next = self.step(Move::TakenUp)?;
        Ok(Self { owed, epoch: next.epoch + 1, due_at: now + LEASE, failure: None, uncertain, step_since, ..next })
    }

    /// Too old to be repeated safely.
    pub fn expired(self, failure: Failure) -> Result<Self, IllegalMove> {
        let next = self.step(Move::Expired)?;
        Ok(Self { epoch: next.epoch + 1, failure: Some(failure), ..next })
    }
}
