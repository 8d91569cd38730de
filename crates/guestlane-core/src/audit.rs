//! The record types of the audit log.

use guestlane_genesys::{ErrorCounts, PlatformId};
use guestlane_runtime::{Timestamp, text::clean};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    request::{GuestId, QueueId},
    session::{SessionId, SessionRecord},
    token,
};

/// Status of an audited action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The attempt starts. Nothing has been created yet.
    Pending,
    /// The conversation exists, or the change was made.
    Success,
    /// The attempt ended without a conversation.
    Failed,
}

/// One audit record. It never contains a token, a secret or the value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum AuditRecord {
    /// An attempt at a session (requirement R11, docs/requirements.md).
    Session(Box<SessionEntry>),
    /// The erasure of a guest.
    Erasure(Erasure),
    /// The start of a log that continues a closed one.
    Rotation(Rotation),
    /// A change of what the store trusts.
    Change(Change),
}

/// An attempt at a session, with all fields of requirement R11 (docs/requirements.md).
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

/// The erasure of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// When the guest was erased.
    pub timestamp: Timestamp,
    /// The pseudonym in the guest's records, or `None` if records contain guest IDs in plain text.
    pub pseudonym: Option<String>,
    /// Number of the guest's sessions.
    pub sessions: u64,
    /// Number of erased outbox events.
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

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeAction {
    /// An API key was created; the subject is its ID.
    ApiKeyCreated,
    /// An API key was revoked; the subject is its ID.
    ApiKeyRevoked,
    /// A signing key was created; the subject is its `kid`.
    SigningKeyCreated,
    /// A signing key was revoked; the subject is its `kid`.
    SigningKeyRevoked,
    /// All sealed values were sealed again under a new master key; the subject is its ID.
    MasterKeyRotated,
    /// A signing key of a webhook endpoint was replaced; the subject is the endpoint's number.
    WebhookKeyRotated,
    /// Events are delivered again; the subject is an event's ID or a period.
    EventsReplayed,
    /// The files of an audit log were rewritten from the store; the subject is the log's number.
    AuditLogRestored,
    /// The store was moved into this database; the subject is the store's ID.
    StoreMoved,
    /// The move of the store was abandoned; the subject is the target database.
    MoveAbandoned,
}

impl ChangeAction {
    /// All kinds.
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

    /// Returns the `action` field of the record.
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

/// Prefix of the properties that keep changes until the next start records them, because no audit
/// log could be written.
pub const UNRECORDED: &str = "unrecorded ";

/// The first record of a log, which refers to the previous log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// When the log started.
    pub timestamp: Timestamp,
    /// The last checkpoint of the previous log. A reader of this log can check with it that the
    /// previous log is complete.
    pub continues: String,
}

/// A snapshot of the error counters of requirement R12 (docs/requirements.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorRateSnapshot {
    /// All errors.
    pub total: u64,
    /// Guest tokens that failed verification or were refused.
    pub token_validation: u64,
    /// Responses with status 429.
    pub rate_limit: u64,
    /// Responses with status 401 or 403, and failed token requests.
    pub auth: u64,
    /// Missing responses, broken responses, and status 5xx.
    pub network: u64,
    /// `tokenValidation / total` with four decimals.
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

/// Longest error text in a record, in characters.
const MAX_ERROR: usize = 2048;

/// Truncates an ID to the length that the next process accepts, whatever the store contains.
fn bounded(id: Option<&PlatformId>) -> Option<String> {
    id.map(|id| clean(id, PlatformId::MAX))
}

/// The five minutes of requirement R3 (docs/requirements.md) as an ISO 8601 duration.
const EXPIRY_POLICY: &str = "PT5M";

impl SessionEntry {
    fn new(
        status: Status,
        guest: &GuestId,
        queue: QueueId,
        rates: ErrorCounts,
        now: Timestamp,
    ) -> Self {
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
    /// Returns the record of an attempt at a session that starts, continues or ends.
    pub fn for_session(
        session: &SessionRecord,
        status: Status,
        rates: ErrorCounts,
        now: Timestamp,
    ) -> Self {
        let request = &session.request;
        Self::Session(Box::new(SessionEntry {
            session_id: Some(session.id),
            contact_id: bounded(session.contact_id.as_ref()),
            conversation_id: bounded(session.conversation_id.as_ref()),
            latency_ms: session
                .latency
                .map(|latency| latency.as_secs_f64() * 1000.0),
            error: session
                .failure
                .as_ref()
                .map(|failure| clean(&format!("{}: {}", failure.code, failure.message), MAX_ERROR)),
            ..SessionEntry::new(status, &request.guest, request.queue, rates, now)
        }))
    }

    /// Returns the record of an attempt that failed before admission: the queue does not exist, or
    /// the platform refused the product's credentials.
    pub fn refused(
        guest: &GuestId,
        queue: QueueId,
        error: String,
        rates: ErrorCounts,
        now: Timestamp,
    ) -> Self {
        Self::Session(Box::new(SessionEntry {
            error: Some(clean(&error, MAX_ERROR)),
            ..SessionEntry::new(Status::Failed, guest, queue, rates, now)
        }))
    }

    /// Returns the record of a change. `detail` describes it and must not contain a secret.
    pub fn change(
        action: ChangeAction,
        subject: impl Into<String>,
        detail: Option<String>,
        now: Timestamp,
    ) -> Self {
        Self::Change(Change {
            timestamp: now,
            action,
            subject: subject.into(),
            detail,
        })
    }

    /// Returns the record of a change that was kept in a property of the store.
    pub fn unrecorded(name: &str, subject: String, now: Timestamp) -> Option<Self> {
        let action = ChangeAction::from_name(name.strip_prefix(UNRECORDED)?)?;
        Some(Self::change(action, subject, None, now))
    }

    /// Returns the guest that the record names.
    pub fn guest(&self) -> Option<&GuestId> {
        match self {
            Self::Session(entry) => Some(&entry.guest),
            Self::Erasure(_) | Self::Rotation(_) | Self::Change(_) => None,
        }
    }

    /// Returns the session that the record describes.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::Session(entry) => entry.session_id,
            Self::Erasure(_) | Self::Rotation(_) | Self::Change(_) => None,
        }
    }

    /// Formats the line at `index` of a log, without its line feed. `guest` is the log's name for
    /// the guest.
    pub fn line(&self, index: u64, guest: &str) -> String {
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
