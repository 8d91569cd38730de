//! JSON models of the service overview, which the dashboard shows.

use guestlane::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::{ErrorRates, RecentError};

/// How it goes.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// When this was so.
    #[schema(value_type = String, format = DateTime, max_length = 40, example = "2026-11-23T04:00:00.000000Z")]
    pub(crate) now: Timestamp,
    /// Of guestlane.
    #[schema(max_length = 32, example = "0.1.0")]
    pub(crate) version: &'static str,
    /// Which of the platform's APIs opens conversations.
    #[schema(max_length = 32, example = "rest")]
    pub(crate) surface: &'static str,
    /// Since when this process serves.
    #[schema(value_type = String, format = DateTime, max_length = 40, example = "2026-11-23T03:00:00.000000Z")]
    pub(crate) started_at: Timestamp,
    /// What the API key that asked allows.
    #[schema(max_items = 4, example = json!(["sessions:read"]))]
    pub(crate) scopes: Vec<&'static str>,
    pub(crate) sessions: SessionCounts,
    pub(crate) series: Series,
    /// Of the last five minutes; null where none was opened.
    #[schema(required)]
    pub(crate) latency: Option<Latency>,
    /// Each OAuth client, in the order of GENESYS_CLIENT_ID.
    #[schema(max_items = 64)]
    pub(crate) clients: Vec<ClientQuota>,
    pub(crate) errors: ErrorRates,
    /// Kinds of failure that somebody was told since the service started, the latest first.
    #[schema(max_items = 64)]
    pub(crate) problems: Vec<RecentError>,
    pub(crate) outbox: OutboxStatus,
    pub(crate) audit: AuditStatus,
    /// The signing keys.
    #[schema(max_items = 1000)]
    pub(crate) keys: Vec<SigningKeyStatus>,
}

/// Sessions by state.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionCounts {
    /// Opened by this process.
    #[schema(minimum = 0, example = 1234)]
    pub(crate) open: u64,
    /// Refused for good, all that are kept.
    #[schema(minimum = 0, example = 3)]
    pub(crate) failed: u64,
    /// On their way, or waiting to be completed.
    #[schema(minimum = 0, example = 2)]
    pub(crate) unfinished: u64,
    /// Waiting for a person.
    #[schema(minimum = 0, example = 1)]
    pub(crate) needs_attention: u64,
    /// How long the oldest unfinished one has been recorded.
    #[schema(required, minimum = 0, example = 12.5)]
    pub(crate) oldest_unfinished_seconds: Option<f64>,
}

/// The last sixty seconds, one figure for each, oldest first.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Series {
    /// The end of the last second.
    #[schema(value_type = String, format = DateTime, max_length = 40, example = "2026-11-23T04:00:00.000000Z")]
    pub(crate) until: Timestamp,
    /// Sessions that were opened.
    #[schema(min_items = 60, max_items = 60)]
    pub(crate) opened: Vec<u64>,
    /// Failures that callers were told.
    #[schema(min_items = 60, max_items = 60)]
    pub(crate) failed: Vec<u64>,
    /// Half of the sessions of that second took less; null where none was opened.
    #[schema(min_items = 60, max_items = 60)]
    pub(crate) p50_ms: Vec<Option<f64>>,
    /// 99 of 100 took less.
    #[schema(min_items = 60, max_items = 60)]
    pub(crate) p99_ms: Vec<Option<f64>>,
}

/// How long sessions took, from the request to the conversation.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// Sessions that were opened.
    #[schema(minimum = 1, example = 812)]
    pub(crate) count: u64,
    /// Half took less.
    #[schema(minimum = 0, example = 41.2)]
    pub(crate) p50_ms: f64,
    /// 90 of 100 took less.
    #[schema(minimum = 0, example = 60.0)]
    pub(crate) p90_ms: f64,
    /// 99 of 100 took less.
    #[schema(minimum = 0, example = 120.5)]
    pub(crate) p99_ms: f64,
}

/// What one OAuth client has used of its quota.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientQuota {
    /// Which: from 1, in the order of GENESYS_CLIENT_ID.
    #[schema(max_length = 8, example = "1")]
    pub(crate) client: String,
    /// Calls allowed in a second; null without a quota.
    #[schema(required, minimum = 0, example = 100.0)]
    pub(crate) limit_per_second: Option<f64>,
    /// How much of the last window's calls was used: 0 to 1.
    #[schema(minimum = 0, example = 0.63)]
    pub(crate) used_share: f64,
    /// Calls of the last second.
    #[schema(minimum = 0, example = 63.0)]
    pub(crate) calls_per_second: f64,
    /// Calls that the platform answered 429, since the service started.
    #[schema(minimum = 0, example = 0)]
    pub(crate) throttled: u64,
    /// Why it is not used at the moment.
    #[schema(required, max_length = 128, example = "its authentication failed")]
    pub(crate) left_out: Option<&'static str>,
}

/// Events for the CRM.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutboxStatus {
    /// Events that wait.
    #[schema(minimum = 0, example = 3)]
    pub(crate) pending: u64,
    /// Dead letters.
    #[schema(minimum = 0, example = 1)]
    pub(crate) dead: u64,
    /// How long the oldest waits.
    #[schema(required, minimum = 0, example = 4.0)]
    pub(crate) oldest_pending_seconds: Option<f64>,
    /// Who is told.
    #[schema(minimum = 0, example = 1)]
    pub(crate) receivers: usize,
}

/// The audit log.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditStatus {
    /// Records of the log that is written.
    #[schema(minimum = 0, example = 2468)]
    pub(crate) size: u64,
    /// Records that the store has and the file has not.
    #[schema(minimum = 0, example = 0)]
    pub(crate) behind: u64,
}

/// A signing key.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SigningKeyStatus {
    /// Its id.
    #[schema(max_length = 128, example = "webchat-guest-key-v1")]
    pub(crate) kid: String,
    /// `next`, `active`, `retiring`, `retired` or `revoked`.
    #[schema(max_length = 16, example = "active")]
    pub(crate) state: &'static str,
    /// When it was made.
    #[schema(value_type = String, format = DateTime, max_length = 40, example = "2026-11-23T04:00:00.000000Z")]
    pub(crate) created_at: Timestamp,
    /// Since when it signs, or will.
    #[schema(value_type = String, format = DateTime, max_length = 40, example = "2026-11-23T04:00:00.000000Z")]
    pub(crate) active_from: Timestamp,
    /// How long it has existed.
    #[schema(minimum = 0, example = 86400.0)]
    pub(crate) age_seconds: f64,
}
