//! One record of the audit log.

use guestlane_genesys::{ErrorCounts, Timestamp};
use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::{
    ledger::Session,
    request::{GuestId, QueueId},
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

/// One record: all fields of R11. Never a token, a secret or an attribute's value.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    timestamp: Timestamp,
    action: &'static str,
    status: Status,
    session_id: Option<Uuid>,
    #[serde(serialize_with = "plain")]
    guest_identifier: GuestId,
    queue_id: Uuid,
    routing_target: Uuid,
    contact_id: Option<String>,
    conversation_id: Option<String>,
    latency_ms: Option<f64>,
    error: Option<String>,
    token_expiry_policy: &'static str,
    error_rates: ErrorRates,
}

/// The counters of R12 as they stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorRates {
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

impl From<ErrorCounts> for ErrorRates {
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

fn plain<S: Serializer>(guest: &GuestId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(guest.as_str())
}

impl Entry {
    /// R3's five minutes, as ISO 8601 has them.
    const EXPIRY_POLICY: &'static str = "PT5M";

    fn new(status: Status, guest: &GuestId, queue: QueueId, rates: ErrorCounts, now: Timestamp) -> Self {
        debug_assert_eq!(token::LIFE.as_secs(), 300);
        Self {
            timestamp: now,
            action: "session.create",
            status,
            session_id: None,
            guest_identifier: guest.clone(),
            queue_id: queue.0,
            routing_target: queue.0,
            contact_id: None,
            conversation_id: None,
            latency_ms: None,
            error: None,
            token_expiry_policy: Self::EXPIRY_POLICY,
            error_rates: rates.into(),
        }
    }

    /// An attempt at a session begins, goes on, or has ended.
    pub fn of(session: &Session, status: Status, rates: ErrorCounts, now: Timestamp) -> Self {
        let request = &session.request;
        Self {
            session_id: Some(session.id.0),
            contact_id: session.contact_id.clone(),
            conversation_id: session.conversation_id.clone(),
            latency_ms: session.latency.map(|latency| latency.as_secs_f64() * 1000.0),
            error: session.failure.as_ref().map(|failure| format!("{}: {}", failure.code, failure.message)),
            ..Self::new(status, &request.guest, request.queue, rates, now)
        }
    }

    /// An attempt that ended before there was a session: the queue does not exist, or we could not sign in.
    pub fn refused(guest: &GuestId, queue: QueueId, error: String, rates: ErrorCounts, now: Timestamp) -> Self {
        Self { error: Some(error), ..Self::new(Status::Failed, guest, queue, rates, now) }
    }

    /// The line that stands at `index` in the log, without its end.
    pub fn line(&self, index: u64) -> String {
        #[derive(Serialize)]
        struct Indexed<'a> {
            index: u64,
            #[serde(flatten)]
            entry: &'a Entry,
        }
        serde_json::to_string(&Indexed { index, entry: self }).unwrap_or_default()
    }
}
