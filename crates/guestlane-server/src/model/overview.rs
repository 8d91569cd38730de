//! JSON models of the service overview, which the dashboard shows.

use guestlane_runtime::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::{ErrorRates, RecentError};

/// The current state of the service.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// The time of this overview.
    #[schema(value_type = String, format = DateTime, max_length = 40, example = "2026-11-23T04:00:00.000000Z")]
    pub(crate) now: Timestamp,
    /// The version of guestlane.
    #[schema(max_length = 32, example = "0.1.0")]
    pub(crate) version: &'static str,
    /// The surface: which of the platform's APIs opens conversations.
    #[schema(max_length = 32, example = "rest")]
    pub(crate) surface: &'static str,
    /// The time at which this process started to serve.
    #[schema(value_type = String, format = DateTime, max_length = 40, example = "2026-11-23T03:00:00.000000Z")]
    pub(crate) started_at: Timestamp,
    /// The scopes of the API key that sent this request.
    #[schema(max_items = 4, example = json!(["sessions:read"]))]
    pub(crate) scopes: Vec<&'static str>,
    pub(crate) sessions: SessionCounts,
    pub(crate) series: Series,
    /// Latency of the sessions that were opened in the last five minutes; null if there were none.
    #[schema(required)]
    pub(crate) latency: Option<Latency>,
    /// The OAuth clients, in the order of GENESYS_CLIENT_ID.
    #[schema(max_items = 64)]
    pub(crate) clients: Vec<ClientQuota>,
    pub(crate) errors: ErrorRates,
    /// The kinds of failure that callers received since the service started, latest first.
    #[schema(max_items = 64)]
    pub(crate) problems: Vec<RecentError>,
    pub(crate) outbox: OutboxStatus,
    pub(crate) audit: AuditStatus,
    /// The signing keys.
    #[schema(max_items = 1000)]
    pub(crate) keys: Vec<SigningKeyStatus>,
}

/// The number of sessions by state.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionCounts {
    /// Sessions that this process has opened.
    #[schema(minimum = 0, example = 1234)]
    pub(crate) open: u64,
    /// Stored sessions that the platform has refused.
    #[schema(minimum = 0, example = 3)]
    pub(crate) failed: u64,
    /// Sessions that are in progress or wait for another attempt.
    #[schema(minimum = 0, example = 2)]
    pub(crate) unfinished: u64,
    /// Sessions that need a person's decision.
    #[schema(minimum = 0, example = 1)]
    pub(crate) needs_attention: u64,
    /// The age of the oldest unfinished session, in seconds; null if there is none.
    #[schema(required, minimum = 0, example = 12.5)]
    pub(crate) oldest_unfinished_seconds: Option<f64>,
}

/// Samples of the last sixty seconds, one per second, oldest first.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Series {
    /// The end of the last second.
    #[schema(value_type = String, format = DateTime, max_length = 40, example = "2026-11-23T04:00:00.000000Z")]
    pub(crate) until: Timestamp,
    /// The number of sessions opened in each second.
    #[schema(min_items = 60, max_items = 60)]
    pub(crate) opened: Vec<u64>,
    /// The number of failures that callers received in each second.
    #[schema(min_items = 60, max_items = 60)]
    pub(crate) failed: Vec<u64>,
    /// The median latency of the sessions opened in each second, in milliseconds; null if there
    /// were none.
    #[schema(min_items = 60, max_items = 60)]
    pub(crate) p50_ms: Vec<Option<f64>>,
    /// The 99th percentile of the latency in each second, in milliseconds; null if no session was
    /// opened.
    #[schema(min_items = 60, max_items = 60)]
    pub(crate) p99_ms: Vec<Option<f64>>,
}

/// Latency of sessions, from the request to the open conversation, in milliseconds.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// The number of opened sessions.
    #[schema(minimum = 1, example = 812)]
    pub(crate) count: u64,
    /// The median.
    #[schema(minimum = 0, example = 41.2)]
    pub(crate) p50_ms: f64,
    /// The 90th percentile.
    #[schema(minimum = 0, example = 60.0)]
    pub(crate) p90_ms: f64,
    /// The 99th percentile.
    #[schema(minimum = 0, example = 120.5)]
    pub(crate) p99_ms: f64,
}

/// The rate limit of one OAuth client and its use.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientQuota {
    /// The number of the client, from 1, in the order of GENESYS_CLIENT_ID.
    #[schema(max_length = 8, example = "1")]
    pub(crate) client: String,
    /// The rate limit, in calls per second; null if there is no limit.
    #[schema(required, minimum = 0, example = 100.0)]
    pub(crate) limit_per_second: Option<f64>,
    /// The used share of the rate limit in the last window, from 0 to 1.
    #[schema(minimum = 0, example = 0.63)]
    pub(crate) used_share: f64,
    /// The number of calls in the last second.
    #[schema(minimum = 0, example = 63.0)]
    pub(crate) calls_per_second: f64,
    /// The number of calls that the platform answered with 429 since the service started.
    #[schema(minimum = 0, example = 0)]
    pub(crate) throttled: u64,
    /// The reason why the client is quarantined; null unless it is.
    #[schema(required, max_length = 128, example = "its authentication failed")]
    pub(crate) quarantine_reason: Option<&'static str>,
}

/// The state of the outbox, which holds the events for the CRM.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutboxStatus {
    /// The number of events that wait for delivery.
    #[schema(minimum = 0, example = 3)]
    pub(crate) pending: u64,
    /// The number of dead letters.
    #[schema(minimum = 0, example = 1)]
    pub(crate) dead: u64,
    /// The age of the oldest waiting event, in seconds; null if there is none.
    #[schema(required, minimum = 0, example = 4.0)]
    pub(crate) oldest_pending_seconds: Option<f64>,
    /// The number of webhook endpoints.
    #[schema(minimum = 0, example = 1)]
    pub(crate) endpoints: usize,
}

/// The state of the audit log.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditStatus {
    /// The number of records in the current log.
    #[schema(minimum = 0, example = 2468)]
    pub(crate) size: u64,
    /// The number of records that the store has and the log's file does not have yet.
    #[schema(minimum = 0, example = 0)]
    pub(crate) behind: u64,
}

/// A signing key.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SigningKeyStatus {
    /// The key ID, as in the header `kid` of guest tokens.
    #[schema(max_length = 128, example = "webchat-guest-key-v1")]
    pub(crate) kid: String,
    /// The state of the key: `next`, `active`, `retiring`, `retired` or `revoked`.
    #[schema(max_length = 16, example = "active")]
    pub(crate) state: &'static str,
    /// The time at which the key was created.
    #[schema(value_type = String, format = DateTime, max_length = 40, example = "2026-11-23T04:00:00.000000Z")]
    pub(crate) created_at: Timestamp,
    /// The time from which the key signs guest tokens.
    #[schema(value_type = String, format = DateTime, max_length = 40, example = "2026-11-23T04:00:00.000000Z")]
    pub(crate) active_from: Timestamp,
    /// The age of the key, in seconds.
    #[schema(minimum = 0, example = 86400.0)]
    pub(crate) age_seconds: f64,
}
