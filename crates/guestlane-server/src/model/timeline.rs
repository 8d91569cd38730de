//! JSON models of a session's timeline.

use guestlane_runtime::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::Session;

/// A session and its history.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeline {
    /// The current state of the session.
    pub session: Session,
    /// The events of the history, oldest first.
    #[schema(max_items = 1000)]
    pub entries: Vec<Entry>,
    /// The trace ID of the first request for the session (W3C Trace Context); null without one.
    #[schema(
        required,
        min_length = 32,
        max_length = 32,
        example = "4bf92f3577b34da6a3ce929d0e0e4736"
    )]
    pub trace_id: Option<String>,
}

/// One event in the history of a session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The time of the event.
    #[schema(value_type = String, format = DateTime, max_length = 40, example = "2026-11-23T04:00:00.000000Z")]
    pub at: Timestamp,
    /// The kind of event: `admitted`, `call`, `opened`, `failed`, `audit` or `delivery`.
    #[schema(max_length = 32, example = "call")]
    pub kind: &'static str,
    /// A short title.
    #[schema(max_length = 256, example = "Register the contact")]
    pub title: String,
    /// More details; null without any.
    #[schema(required, max_length = 8192, example = "HTTP 200")]
    pub detail: Option<String>,
    /// The result.
    pub status: EntryStatus,
    /// The platform's correlation ID, for requests to the platform's support; null without one.
    #[schema(
        required,
        max_length = 256,
        example = "c5a9c1e0-1111-4222-8333-444455556666"
    )]
    pub correlation_id: Option<String>,
    /// The duration, in milliseconds; null if it was not measured.
    #[schema(required, minimum = 0, example = 23.1)]
    pub milliseconds: Option<f64>,
    /// The number of the audit log that has the record; null unless the kind is `audit`.
    #[schema(required, minimum = 1, example = 1)]
    pub audit_log: Option<u32>,
    /// The index of the record in its audit log, from 0; null unless the kind is `audit`.
    #[schema(required, minimum = 0, example = 42)]
    pub audit_index: Option<u64>,
    /// The ID of the event for the CRM; null unless the kind is `delivery`.
    #[schema(
        required,
        max_length = 64,
        example = "msg_019ab1234567700080000123456789ab"
    )]
    pub event_id: Option<String>,
}

/// The result of an event in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EntryStatus {
    /// It succeeded.
    Ok,
    /// It failed, and was tried again.
    Retried,
    /// It failed.
    Failed,
    /// It is not complete yet.
    Waiting,
}
