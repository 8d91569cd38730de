//! What a call's failure says about the platform: may the thing asked for exist by now?

use std::{fmt, time::Duration};

use http::StatusCode;

use crate::{
    foreign::{CorrelationId, ErrorCode, Sentence},
    guest::connection::GUEST_CODE,
};

/// Why one attempt at a call did not end well, sorted by what the platform may have done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AttemptError {
    /// The request never left: nothing can have happened.
    #[error("the request was not sent: {0}")]
    NotSent(String),

    /// This machine has no file descriptor, port or memory left for a connection. The request never
    /// left, and the platform has no part in it.
    #[error("this machine cannot open a connection: {0}")]
    Local(String),

    /// The platform asked us to slow down (429), and did nothing else.
    #[error("the platform asked us to slow down{}", RetryAfter(*.retry_after))]
    Throttled {
        /// The `Retry-After` of the answer, or the wait that its sentence names.
        retry_after: Option<Duration>,
        /// `ININ-Correlation-Id` of the answer.
        correlation_id: Option<CorrelationId>,
    },

    /// No answer, a broken one, or a 5xx: what was asked for may or may not exist.
    #[error("it is unknown whether the platform acted: {reason}")]
    OutcomeUnknown {
        /// What happened instead of an answer.
        reason: String,
        /// The `Retry-After` of a 503, for example.
        retry_after: Option<Duration>,
        /// `ININ-Correlation-Id`, where there was an answer.
        correlation_id: Option<CorrelationId>,
    },

    /// 401: the access token is not (or no longer) good. Nothing was done.
    #[error("the platform did not accept the access token: {0}")]
    Unauthorized(ErrorResponse),

    /// The platform understood and said no. Nothing was done, and repeating changes nothing.
    #[error("the platform refused: {0}")]
    Rejected(ErrorResponse),

    /// 404 of something that will be there in a while: it is asked for again.
    #[error("it is not there yet: {0}")]
    NotReady(ErrorResponse),

    /// Our own pace leaves no room for the call before the caller's deadline: it was not sent.
    #[error("the quota leaves no room for the call before the deadline")]
    RateLimitTimeout,

    /// The access token could not be had, so the call was not made.
    #[error("no access token: {0}")]
    AuthenticationFailed(Box<AttemptError>),

    /// One OAuth client was refused, or was told to wait; there is another.
    #[error("{0}")]
    Failover(Box<AttemptError>),
}

struct RetryAfter(Option<Duration>);

impl fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |wait| write!(f, " for {} s", wait.as_secs_f32()))
    }
}

/// The platform's error body (`ErrorBody`, or OAuth's three fields) as far as a person needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorResponse {
    /// HTTP status.
    pub status: StatusCode,
    /// The platform's dotted code, or OAuth's `error`; empty when the body had none.
    pub code: ErrorCode,
    /// The platform's sentence; empty when the body had none.
    pub message: Sentence,
    /// To quote to the platform's support.
    pub correlation_id: Option<CorrelationId>,
}

/// Status, code and correlation id, without the platform's sentence: it may repeat what was sent,
/// and a `Display` ends in logs and records.
impl fmt::Display for ErrorResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What was refused over the guest socket has a code of its own, and no HTTP status.
        if !self.is_guest_api() {
            write!(f, "HTTP {}", self.status.as_u16())?;
        }
        if !self.code.is_empty() {
            let space = if self.is_guest_api() { "" } else { " " };
            write!(f, "{space}{}", self.code)?;
        }
        if let Some(id) = &self.correlation_id {
            write!(f, " (correlation id {id})")?;
        }
        Ok(())
    }
}

impl ErrorResponse {
    /// Whether the platform refused the guest token because its time is over, and so cannot have taken the key that came with
    /// it. The code is the simulator's; no public document names one.
    pub fn is_expired_guest_token(&self) -> bool {
        self.code == "guest.token.expired"
    }

    /// Whether the guest's session on the platform is over: expired, or not known any more (4006,
    /// 4007; docs/platform.md#guest-codes).
    pub fn is_conversation_ended(&self) -> bool {
        matches!(self.code.strip_prefix(GUEST_CODE), Some("4006" | "4007"))
    }

    /// Whether it was refused over the guest socket.
    pub fn is_guest_api(&self) -> bool {
        self.code.starts_with(GUEST_CODE)
    }

    /// Whether the platform refused the guest token, for whatever reason.
    pub fn is_guest_token(&self) -> bool {
        self.code.starts_with("guest.token.")
    }
}

/// What may be done after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAction {
    /// Send the same again, under the same key, not before this long.
    Retry {
        /// The platform's own wish, a lower bound of the wait.
        at_least: Duration,
    },
    /// Ask again in a while, as often as there is time.
    Poll,
    /// Get a new access token, and send the same again, once.
    RefreshToken,
    /// Send the same again at once, as another OAuth client.
    Failover,
    /// Nothing: the answer is final.
    Stop,
}

/// The error categories of requirement R12 (docs/requirements.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Category {
    /// The guest token did not verify, or the platform refused it.
    TokenValidation,
    /// 429.
    RateLimit,
    /// 401, 403 and failures to sign in.
    Auth,
    /// No answer, broken answers, 5xx.
    Network,
    /// All else (a refused payload, for example): in the total only.
    Other,
}

impl AttemptError {
    /// The next move. No catch-all: a new variant must choose.
    ///
    /// An unknown outcome is repeated because a call that creates something carries a key that is the same for every attempt, or finds what
    /// an earlier attempt made. The few that do neither say so ([`RetrySafety`](crate::client::Repeat)).
    #[deny(clippy::wildcard_enum_match_arm)]
    pub fn classify(&self) -> RetryAction {
        match self {
            Self::NotSent(_) | Self::Local(_) => RetryAction::Retry { at_least: Duration::ZERO },
            Self::Throttled { retry_after, .. } | Self::OutcomeUnknown { retry_after, .. } => {
                RetryAction::Retry { at_least: retry_after.unwrap_or_default() }
            }
            Self::Unauthorized(_) => RetryAction::RefreshToken,
            Self::Failover(_) => RetryAction::Failover,
            Self::NotReady(_) => RetryAction::Poll,
            // The sign-in has been retried by itself already.
            Self::Rejected(_) | Self::AuthenticationFailed(_) | Self::RateLimitTimeout => RetryAction::Stop,
        }
    }

    /// The category that this failure of `operation` counts under; `None` when it was counted already, where it happened, or is none of the
    /// platform's doing.
    pub fn category(&self, operation: Operation) -> Option<Category> {
        Some(match self {
            Self::AuthenticationFailed(_) | Self::RateLimitTimeout | Self::Local(_) | Self::NotReady(_) => return None,
            Self::Failover(cause) => return cause.category(operation),
            Self::NotSent(_) | Self::OutcomeUnknown { .. } => Category::Network,
            Self::Throttled { .. } => Category::RateLimit,
            Self::Unauthorized(_) => Category::Auth,
            Self::Rejected(_) if operation == Operation::Token => Category::Auth,
            Self::Rejected(refusal) if refusal.is_guest_token() => Category::TokenValidation,
            Self::Rejected(refusal) if refusal.status == StatusCode::FORBIDDEN => Category::Auth,
            Self::Rejected(_) => Category::Other,
        })
    }

    /// The correlation id of the answer, if there was one.
    pub fn correlation_id(&self) -> Option<&CorrelationId> {
        match self {
            Self::NotSent(_) | Self::Local(_) | Self::RateLimitTimeout => None,
            Self::Throttled { correlation_id, .. } | Self::OutcomeUnknown { correlation_id, .. } => correlation_id.as_ref(),
            Self::Unauthorized(refusal) | Self::Rejected(refusal) | Self::NotReady(refusal) => refusal.correlation_id.as_ref(),
            Self::AuthenticationFailed(cause) | Self::Failover(cause) => cause.correlation_id(),
        }
    }

    /// With what to quote to the platform's support, where the answer had nothing: over the guest socket, the tracing id.
    pub(crate) fn with_correlation_id(mut self, id: CorrelationId) -> Self {
        match &mut self {
            Self::Throttled { correlation_id, .. } | Self::OutcomeUnknown { correlation_id, .. } => {
                correlation_id.get_or_insert(id);
            }
            Self::Unauthorized(refusal) | Self::Rejected(refusal) | Self::NotReady(refusal) => {
                refusal.correlation_id.get_or_insert(id);
            }
            Self::NotSent(_) | Self::Local(_) | Self::RateLimitTimeout | Self::AuthenticationFailed(_) | Self::Failover(_) => {}
        }
        self
    }

    /// What the platform says of it in its own words, if it says something. It is for the caller
    /// whose request caused it.
    pub fn sentence(&self) -> Option<&Sentence> {
        let refusal = match self {
            Self::Unauthorized(refusal) | Self::Rejected(refusal) | Self::NotReady(refusal) => refusal,
            Self::AuthenticationFailed(cause) | Self::Failover(cause) => return cause.sentence(),
            Self::NotSent(_) | Self::Local(_) | Self::RateLimitTimeout | Self::Throttled { .. } | Self::OutcomeUnknown { .. } => {
                return None;
            }
        };
        Some(&refusal.message).filter(|sentence| !sentence.is_empty())
    }

    /// The failure with the platform's own words, for the caller whose request caused it.
    pub fn for_caller(&self) -> String {
        match self.sentence() {
            Some(sentence) => format!("{self}: {}", sentence.for_caller()),
            None => self.to_string(),
        }
    }

    /// The refusal that is final, if this is one.
    pub fn refusal(&self) -> Option<&ErrorResponse> {
        match self {
            Self::Unauthorized(refusal) | Self::Rejected(refusal) => Some(refusal),
            Self::AuthenticationFailed(cause) | Self::Failover(cause) => cause.refusal(),
            Self::NotSent(_)
            | Self::Local(_)
            | Self::RateLimitTimeout
            | Self::Throttled { .. }
            | Self::OutcomeUnknown { .. }
            | Self::NotReady(_) => None,
        }
    }

    /// Whether the platform refused us, and not the request: wrong credentials, a missing permission. Somebody may mend it at any time.
    pub fn is_authorization_failure(&self) -> bool {
        match self {
            Self::AuthenticationFailed(_) | Self::Unauthorized(_) => true,
            Self::Failover(cause) => cause.is_authorization_failure(),
            Self::Rejected(refusal) => refusal.status == StatusCode::FORBIDDEN,
            Self::NotSent(_)
            | Self::Local(_)
            | Self::RateLimitTimeout
            | Self::Throttled { .. }
            | Self::OutcomeUnknown { .. }
            | Self::NotReady(_) => false,
        }
    }

    /// The platform's own wish, if it is more than nothing.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self.classify() {
            RetryAction::Retry { at_least } if !at_least.is_zero() => Some(at_least),
            RetryAction::Retry { .. }
            | RetryAction::Poll
            | RetryAction::RefreshToken
            | RetryAction::Failover
            | RetryAction::Stop => None,
        }
    }

    /// Whether it is a 429.
    pub(crate) fn is_throttled(&self) -> bool {
        match self {
            Self::Failover(cause) => cause.is_throttled(),
            Self::Throttled { .. } => true,
            Self::NotSent(_)
            | Self::Local(_)
            | Self::OutcomeUnknown { .. }
            | Self::Unauthorized(_)
            | Self::Rejected(_)
            | Self::NotReady(_)
            | Self::RateLimitTimeout
            | Self::AuthenticationFailed(_) => false,
        }
    }

    /// Whether it is none of the platform's doing, but this machine's.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::AuthenticationFailed(cause) | Self::Failover(cause) => cause.is_local(),
            Self::Local(_) | Self::RateLimitTimeout => true,
            Self::NotSent(_)
            | Self::Throttled { .. }
            | Self::OutcomeUnknown { .. }
            | Self::Unauthorized(_)
            | Self::Rejected(_)
            | Self::NotReady(_) => false,
        }
    }

    /// Whether a repetition adds no load to the platform: it is paced after a 429, and nothing was
    /// sent for want of a descriptor.
    pub(crate) fn costs_no_retry(&self) -> bool {
        self.is_throttled() || self.is_local()
    }

    /// Whether the platform is not there, or not able: the sign of an outage.
    pub(crate) fn counts_as_outage(&self) -> bool {
        match self {
            Self::NotSent(_) | Self::OutcomeUnknown { .. } => true,
            Self::AuthenticationFailed(cause) | Self::Failover(cause) => cause.counts_as_outage(),
            Self::Throttled { .. }
            | Self::Local(_)
            | Self::Unauthorized(_)
            | Self::Rejected(_)
            | Self::NotReady(_)
            | Self::RateLimitTimeout => false,
        }
    }

    /// The failure as it may stand in a record.
    pub fn record(&self) -> String {
        match self {
            Self::Unauthorized(refusal) | Self::Rejected(refusal) => refusal.to_string(),
            Self::AuthenticationFailed(cause) => format!("no access token: {}", cause.record()),
            Self::Failover(cause) => cause.record(),
            Self::NotReady(_)
            | Self::NotSent(_)
            | Self::Local(_)
            | Self::RateLimitTimeout
            | Self::Throttled { .. }
            | Self::OutcomeUnknown { .. } => self.to_string(),
        }
    }
}

/// Which of the platform's operations a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `POST /oauth/token`, or `/api/v2/oauth/token` on the surface `rest`
    Token,
    /// `GET /api/v2/routing/queues/{queueId}`
    Queue,
    /// `POST /api/v2/externalcontacts/contacts` on the surface `rest`
    Contact,
    /// `POST /api/v2/externalcontacts/contacts/enrich`
    EnrichContact,
    /// `POST /api/v2/externalcontacts/contacts`, as the public platform has it
    CreateContact,
    /// `POST /api/v2/externalcontacts/identifierlookup/contacts`
    FindContact,
    /// `POST /api/v2/conversations/messaging`
    OpenConversation,
    /// The guest socket: connect, configure, say something
    FirstMessage,
    /// `POST /api/v2/conversations/messages/{integrationId}/inbound/open/message`
    OpenMessage,
    /// `GET /api/v2/conversations/messages/{messageId}/details`
    Details,
    /// `GET /api/v2/conversations/{conversationId}`
    Conversation,
    /// `PUT /api/v2/externalcontacts/conversations/{conversationId}`
    LinkContact,
    /// `POST /api/v2/conversations/{conversationId}/participants/{participantId}/replace/queue`
    MoveToQueue,
    /// Anything that is only looked at
    Probe,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token => "sign in",
            Self::Queue => "look up the queue",
            Self::Contact => "register the contact",
            Self::EnrichContact => "find or make the contact",
            Self::CreateContact => "make the contact",
            Self::FindContact => "find the contact",
            Self::OpenConversation => "open the conversation",
            Self::FirstMessage => "send the guest's first message",
            Self::OpenMessage => "bring in the guest's message",
            Self::Details => "find the conversation of the first message",
            Self::Conversation => "look into the conversation",
            Self::LinkContact => "link the contact to the conversation",
            Self::MoveToQueue => "move the conversation to its queue",
            Self::Probe => "look at the platform",
        })
    }
}

/// A call that was given up: what it was for, how hard we tried, and the last failure.
#[derive(Debug, Clone, thiserror::Error)]
#[error("could not {operation} ({} in {:.1} s)", Tries(*.tries), .elapsed.as_secs_f32())]
pub struct CallError {
    /// Which call.
    pub operation: Operation,
    /// How often it was sent.
    pub tries: u32,
    /// From the first attempt to giving up.
    pub elapsed: Duration,
    /// How the last attempt ended.
    #[source]
    pub cause: AttemptError,
    /// Whether any of the attempts may have done its work, whatever the last one said.
    pub may_exist: bool,
    /// When the platform said that it may be tried again, if that is later than the caller could wait.
    pub wait: Option<Duration>,
}

impl Operation {
    /// A stable name, for labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Queue => "queue",
            Self::Contact => "contact",
            Self::EnrichContact => "enrich_contact",
            Self::CreateContact => "create_contact",
            Self::FindContact => "find_contact",
            Self::OpenConversation => "open_conversation",
            Self::FirstMessage => "first_message",
            Self::OpenMessage => "open_message",
            Self::Details => "message_details",
            Self::Conversation => "conversation",
            Self::LinkContact => "link_contact",
            Self::MoveToQueue => "move_to_queue",
            Self::Probe => "look",
        }
    }

    /// The permissions of the public platform of which any one will do (`contract/rest.json`). The
    /// calls of the surface `rest` have other names (requirement R18, docs/requirements.md).
    pub fn permissions(self) -> &'static [&'static str] {
        match self {
            Self::Token | Self::FirstMessage | Self::Probe => &[],
            Self::Queue => &["routing:queue:view"],
            Self::Contact => &["externalcontacts:create"],
            Self::OpenConversation => &["conversations:messaging"],
            Self::EnrichContact => &["externalContacts:contact:enrich"],
            Self::CreateContact => &["externalContacts:contact:add", "relate:contact:add"],
            Self::FindContact => &["externalContacts:contact:view"],
            Self::OpenMessage => &["conversation:message:receive"],
            Self::Details => &["conversation:message:view", "conversation:webmessaging:view"],
            Self::Conversation => &["conversation:communication:view"],
            Self::LinkContact => &["externalContacts:conversation:associate", "relate:conversation:associate"],
            Self::MoveToQueue => &["conversation:communication:blindTransfer", "conversation:communication:blindTransferQueue"],
        }
    }
}

impl CallError {
    /// A call that could not even be tried.
    pub fn not_sent(operation: Operation, reason: &str) -> Self {
        let cause = AttemptError::NotSent(reason.to_owned());
        Self { operation, tries: 0, elapsed: Duration::ZERO, cause, may_exist: false, wait: None }
    }

    /// Something that shall be unique is taken (409).
    pub fn is_conflict(&self) -> bool {
        matches!(&self.cause, AttemptError::Rejected(refusal) if refusal.status == StatusCode::CONFLICT)
    }

    /// There is no such thing (404).
    pub fn is_not_found(&self) -> bool {
        matches!(&self.cause, AttemptError::Rejected(refusal) if refusal.status == StatusCode::NOT_FOUND)
    }
}

struct Tries(u32);

impl fmt::Display for Tries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 try"),
            n => write!(f, "{n} tries"),
        }
    }
}
