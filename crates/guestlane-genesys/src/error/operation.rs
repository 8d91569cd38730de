//! Operations of the platform, and the error of a call.

use std::{fmt, time::Duration};

use http::StatusCode;

use super::AttemptError;

/// Which of the platform's operations a call performs.
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
    /// `POST /api/v2/externalcontacts/contacts` on the public platform
    CreateContact,
    /// `POST /api/v2/externalcontacts/identifierlookup/contacts`
    FindContact,
    /// `POST /api/v2/conversations/messaging`
    OpenConversation,
    /// The guest socket: connect, configure the session, send a message
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
    /// A read-only probe request
    Probe,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token => "fetch an access token",
            Self::Queue => "look up the queue",
            Self::Contact => "register the contact",
            Self::EnrichContact => "find or create the contact",
            Self::CreateContact => "create the contact",
            Self::FindContact => "find the contact",
            Self::OpenConversation => "open the conversation",
            Self::FirstMessage => "send the guest's first message",
            Self::OpenMessage => "submit the guest's inbound message",
            Self::Details => "find the conversation of the first message",
            Self::Conversation => "read the conversation",
            Self::LinkContact => "link the contact to the conversation",
            Self::MoveToQueue => "move the conversation to its queue",
            Self::Probe => "probe the platform",
        })
    }
}

/// A call that failed for good: the operation, the number of attempts, and the last failure.
#[derive(Debug, Clone, thiserror::Error)]
#[error("failed to {operation} ({} in {:.1} s)", Tries(*.attempts), .elapsed.as_secs_f32())]
pub struct CallError {
    /// The operation that failed.
    pub operation: Operation,
    /// Number of attempts.
    pub attempts: u32,
    /// Time from the first attempt to the failure of the call.
    pub elapsed: Duration,
    /// How the last attempt failed.
    #[source]
    pub cause: AttemptError,
    /// Whether any attempt may have taken effect, regardless of how the last one failed.
    pub may_exist: bool,
    /// The platform's `Retry-After`, if it ends after the caller's deadline.
    pub retry_after: Option<Duration>,
}

impl CallError {
    /// Whether the call failed because no access token could be obtained.
    pub fn is_sign_in(&self) -> bool {
        self.operation == Operation::Token
            || matches!(self.cause, AttemptError::AuthenticationFailed(_))
    }

    /// How the last attempt failed, or that of the token request if there was no access token.
    pub fn root_cause(&self) -> &AttemptError {
        match &self.cause {
            AttemptError::AuthenticationFailed(cause) => cause,
            cause => cause,
        }
    }
}

impl Operation {
    /// Returns a stable name, for labels.
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

    /// Returns the public platform's permissions of which any one is sufficient
    /// (`contract/rest.json`). The calls of the surface `rest` have other names (requirement R18,
    /// docs/requirements.md).
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
            Self::Details => &[
                "conversation:message:view",
                "conversation:webmessaging:view",
            ],
            Self::Conversation => &["conversation:communication:view"],
            Self::LinkContact => &[
                "externalContacts:conversation:associate",
                "relate:conversation:associate",
            ],
            Self::MoveToQueue => &[
                "conversation:communication:blindTransfer",
                "conversation:communication:blindTransferQueue",
            ],
        }
    }
}

impl CallError {
    /// Returns the error of a call for which no attempt could be made.
    pub fn not_sent(operation: Operation, reason: &str) -> Self {
        let cause = AttemptError::NotSent(reason.to_owned());
        Self {
            operation,
            attempts: 0,
            elapsed: Duration::ZERO,
            cause,
            may_exist: false,
            retry_after: None,
        }
    }

    /// Whether the platform reported a conflict with an existing resource (409).
    pub fn is_conflict(&self) -> bool {
        matches!(&self.cause, AttemptError::Rejected(refusal) if refusal.status == StatusCode::CONFLICT)
    }

    /// Whether the resource does not exist (404).
    pub fn is_not_found(&self) -> bool {
        matches!(&self.cause, AttemptError::Rejected(refusal) if refusal.status == StatusCode::NOT_FOUND)
    }
}

struct Tries(u32);

impl fmt::Display for Tries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 attempt"),
            n => write!(f, "{n} attempts"),
        }
    }
}
