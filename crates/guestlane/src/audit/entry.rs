//! One record of the audit log.

use guestlane_genesys::{ErrorCounts, PlatformId, Timestamp, foreign::clean};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    request::{GuestId, QueueId},
    session::{SessionId, SessionRecord},
    token,
};

/// How an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It begins: nothing has been created yet.
    Pending,
    /// The conversation exists.
    Success,
    /// It ended without.
    Failed,
}

/// One record. Never a token, a secret or an attribute's value.
#[derive(Debug, Clone, PartialEq)]
pub enum AuditRecord {
    /// An attempt at a session (requirement R11, docs/requirements.md).
    Session(Box<SessionEntry>),
    /// A guest was made unreadable.
    Erasure(Erasure),
    /// This log goes on where another one was closed.
    Rotation(Rotation),
    /// What decides whom or what this store trusts was changed.
    Change(Change),
}

/// An attempt at a session: all fields of requirement R11 (docs/requirements.md).
#[derive(Debug, Clone, PartialEq)]
pub struct SessionEntry {
    timestamp: Timestamp,
    status: Status,
    session_id: Option<SessionId>,
    guest: GuestId,
    queue: QueueId,
    contact_id: Option<String>,
    conversation_id: Option<String>,
    latency_ms: Option<f64>,
    error: Option<String>,
    rates: ErrorRateSnapshot,
}

/// What was made unreadable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// When.
    pub timestamp: Timestamp,
    /// The pseudonym by which the guest's records stay known; none where records have ids in plain.
    pub pseudonym: Option<String>,
    /// Sessions of the guest.
    pub sessions: u64,
    /// Events for the CRM.
    pub events: u64,
}

/// A change of what a store trusts, made by an operator or by the product itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    timestamp: Timestamp,
    action: ChangeAction,
    subject: String,
    detail: Option<String>,
}

/// What was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeAction {
    /// An API key was made; the subject is its ID.
    ApiKeyCreated,
    /// An API key was revoked; the subject is its ID.
    ApiKeyRevoked,
    /// A signing key was made; the subject is its `kid`.
    SigningKeyCreated,
    /// A signing key was revoked; the subject is its `kid`.
    SigningKeyRevoked,
    /// All that the master key seals is sealed under this one; the subject is its ID.
    MasterKeyRotated,
    /// A key that signs a webhook endpoint's events was replaced; the subject is the endpoint's number.
    WebhookKeyRotated,
    /// Events are sent again; the subject is an event's ID, or a period.
    EventsReplayed,
    /// The files of an audit log were written again from the store; the subject is the log's number.
    AuditLogRestored,
    /// The store was moved into this database; the subject is the store's ID.
    StoreMoved,
    /// The move of the store was given up; the subject is the database that it was going to.
    MoveAbandoned,
}

impl ChangeAction {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::ApiKeyCreated,
        Self::ApiKeyRevoked,
        Self::SigningKeyCreated,
        Self::SigningKeyRevoked,
        Self::MasterKeyRotated,
        Self::WebhookKeyRotated,
        Self::EventsReplayed,
        Self::AuditLogRestored,
        Self::StoreMoved,
        Self::MoveAbandoned,
    ];

    /// The `action` of the record.
    pub fn name(self) -> &'static str {
        match self {
            Self::ApiKeyCreated => "api_key.create",
            Self::ApiKeyRevoked => "api_key.revoke",
            Self::SigningKeyCreated => "signing_key.create",
            Self::SigningKeyRevoked => "signing_key.revoke",
            Self::MasterKeyRotated => "master_key.rotate",
            Self::WebhookKeyRotated => "webhook_key.rotate",
            Self::EventsReplayed => "outbox.replay",
            Self::AuditLogRestored => "audit.restore",
            Self::StoreMoved => "store.move",
            Self::MoveAbandoned => "store.abandon_move",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

/// A change that was made where no audit log could be written: a property of the store keeps it until the next start records it.
pub(crate) const UNRECORDED: &str = "unrecorded ";

/// The end of the log before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// When.
    pub timestamp: Timestamp,
    /// The log before, and its last checkpoint: whoever has this log can tell whether that one is whole.
    pub continues: String,
}

/// The counters of requirement R12 (docs/requirements.md) as they stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorRateSnapshot {
    /// All errors.
    pub total: u64,
    /// Guest tokens that did not verify or were refused.
    pub token_validation: u64,
    /// 429s.
    pub rate_limit: u64,
    /// 401s, 403s and failed sign-ins.
    pub auth: u64,
    /// No answers, broken answers, 5xx.
    pub network: u64,
    /// `tokenValidation / total`, four decimals.
    pub token_validation_rate: String,
}

impl From<ErrorCounts> for ErrorRateSnapshot {
    fn from(counts: ErrorCounts) -> Self {
        Self {
            token_validation_rate: counts.token_validation_rate(),
            total: counts.total,
            token_validation: counts.token_validation,
            rate_limit: counts.rate_limit,
            auth: counts.auth,
            network: counts.network,
        }
    }
}

/// The longest text of an error in a record, in characters.
const MAX_ERROR: usize = 2048;

/// An id in a record is cut, whatever the store has: a record must stay one that the next process
/// can read.
fn bounded(id: Option<&PlatformId>) -> Option<String> {
    id.map(|id| clean(id, PlatformId::MAX))
}

/// The five minutes of requirement R3 (docs/requirements.md) as an ISO 8601 duration.
const EXPIRY_POLICY: &str = "PT5M";

impl SessionEntry {
    fn new(status: Status, guest: &GuestId, queue: QueueId, rates: ErrorCounts, now: Timestamp) -> Self {
        debug_assert_eq!(token::TOKEN_TTL.as_secs(), 300);
        Self {
            timestamp: now,
            status,
            session_id: None,
            guest: guest.clone(),
            queue,
            contact_id: None,
            conversation_id: None,
            latency_ms: None,
            error: None,
            rates: rates.into(),
        }
    }
}

impl AuditRecord {
    /// An attempt at a session begins, goes on, or has ended.
    pub fn for_session(session: &SessionRecord, status: Status, rates: ErrorCounts, now: Timestamp) -> Self {
        let request = &session.request;
        Self::Session(Box::new(SessionEntry {
            session_id: Some(session.id),
            contact_id: bounded(session.contact_id.as_ref()),
            conversation_id: bounded(session.conversation_id.as_ref()),
            latency_ms: session.latency.map(|latency| latency.as_secs_f64() * 1000.0),
            error: session.failure.as_ref().map(|failure| clean(&format!("{}: {}", failure.code, failure.message), MAX_ERROR)),
            ..SessionEntry::new(status, &request.guest, request.queue, rates, now)
        }))
    }

    /// An attempt that ended before there was a session: the queue does not exist, or we could not sign in.
    pub fn refused(guest: &GuestId, queue: QueueId, error: String, rates: ErrorCounts, now: Timestamp) -> Self {
        Self::Session(Box::new(SessionEntry {
            error: Some(clean(&error, MAX_ERROR)),
            ..SessionEntry::new(Status::Failed, guest, queue, rates, now)
        }))
    }

    /// A change of what the store trusts. `detail` says more of it, without a secret.
    pub fn change(action: ChangeAction, subject: impl Into<String>, detail: Option<String>, now: Timestamp) -> Self {
        Self::Change(Change { timestamp: now, action, subject: subject.into(), detail })
    }

    /// The record of a change that was kept in a property.
    pub(crate) fn unrecorded(name: &str, subject: String, now: Timestamp) -> Option<Self> {
        let action = ChangeAction::from_name(name.strip_prefix(UNRECORDED)?)?;
        Some(Self::change(action, subject, None, now))
    }

    /// The guest that the record names.
    pub(crate) fn guest(&self) -> Option<&GuestId> {
        match self {
            Self::Session(entry) => Some(&entry.guest),
            Self::Erasure(_) | Self::Rotation(_) | Self::Change(_) => None,
        }
    }

    /// The session that the record is about.
    pub(crate) fn session(&self) -> Option<SessionId> {
        match self {
            Self::Session(entry) => entry.session_id,
            Self::Erasure(_) | Self::Rotation(_) | Self::Change(_) => None,
        }
    }

    /// The line that stands at `index` in a log, without its end. `guest` is how the log calls the guest.
    pub(crate) fn line(&self, index: u64, guest: &str) -> String {
        let line = match self {
            Self::Session(entry) => serde_json::to_string(&SessionLine {
                index,
                timestamp: entry.timestamp,
                action: "session.create",
                status: entry.status,
                session_id: entry.session_id.map(|id| id.0),
                guest_identifier: guest,
                queue_id: entry.queue.0,
                routing_target: entry.queue.0,
                contact_id: entry.contact_id.as_deref(),
                conversation_id: entry.conversation_id.as_deref(),
                latency_ms: entry.latency_ms,
                error: entry.error.as_deref(),
                token_expiry_policy: EXPIRY_POLICY,
                error_rates: &entry.rates,
            }),
            Self::Erasure(erasure) => serde_json::to_string(&ErasureLine {
                index,
                timestamp: erasure.timestamp,
                action: "guest.erase",
                status: Status::Success,
                guest_identifier: erasure.pseudonym.as_deref(),
                sessions: erasure.sessions,
                events: erasure.events,
            }),
            Self::Rotation(rotation) => serde_json::to_string(&RotationLine {
                index,
                timestamp: rotation.timestamp,
                action: "audit.rotate",
                status: Status::Success,
                continues: &rotation.continues,
            }),
            Self::Change(change) => serde_json::to_string(&ChangeLine {
                index,
                timestamp: change.timestamp,
                action: change.action.name(),
                status: Status::Success,
                subject: &change.subject,
                detail: change.detail.as_deref(),
            }),
        };
        line.unwrap_or_default()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionLine<'a> {
    index: u64,
    timestamp: Timestamp,
    action: &'static str,
    status: Status,
    session_id: Option<Uuid>,
    guest_identifier: &'a str,
    queue_id: Uuid,
    routing_target: Uuid,
    contact_id: Option<&'a str>,
    conversation_id: Option<&'a str>,
    latency_ms: Option<f64>,
    error: Option<&'a str>,
    token_expiry_policy: &'static str,
    error_rates: &'a ErrorRateSnapshot,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErasureLine<'a> {
    index: u64,
    timestamp: Timestamp,
    action: &'static str,
    status: Status,
    guest_identifier: Option<&'a str>,
    sessions: u64,
    events: u64,
}

#[derive(Serialize)]
struct ChangeLine<'a> {
    index: u64,
    timestamp: Timestamp,
    action: &'static str,
    status: Status,
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

#[derive(Serialize)]
struct RotationLine<'a> {
    index: u64,
    timestamp: Timestamp,
    action: &'static str,
    status: Status,
    continues: &'a str,
}
