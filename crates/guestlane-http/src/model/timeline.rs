//! JSON models of a session's timeline.

use guestlane::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::Session;

/// One session, and all that is known to have happened to it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeline {
    /// As it is now.
    pub session: Session,
    /// Oldest first.
    #[schema(max_items = 1000)]
    pub entries: Vec<Entry>,
    /// The trace of whoever asked first (W3C Trace Context).
    #[schema(
        required,
        min_length = 32,
        max_length = 32,
        example = "4bf92f3577b34da6a3ce929d0e0e4736"
    )]
    pub trace_id: Option<String>,
}

/// One thing that happened.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// When.
    #[schema(value_type = String, format = DateTime, max_length = 40, example = "2026-11-23T04:00:00.000000Z")]
    pub at: Timestamp,
    /// What sort of thing: `admitted`, `call`, `opened`, `failed`, `audit`, `delivery`.
    #[schema(max_length = 32, example = "call")]
    pub kind: &'static str,
    /// What, in a few words.
    #[schema(max_length = 256, example = "Register the contact")]
    pub title: String,
    /// More of it.
    #[schema(required, max_length = 8192, example = "HTTP 200")]
    pub detail: Option<String>,
    /// How it went.
    pub status: EntryStatus,
    /// The platform's, to quote to its support.
    #[schema(
        required,
        max_length = 256,
        example = "c5a9c1e0-1111-4222-8333-444455556666"
    )]
    pub correlation_id: Option<String>,
    /// How long it took.
    #[schema(required, minimum = 0, example = 23.1)]
    pub milliseconds: Option<f64>,
    /// The audit log that has the record.
    #[schema(required, minimum = 1, example = 1)]
    pub audit_log: Option<u32>,
    /// The record's place in it, from 0.
    #[schema(required, minimum = 0, example = 42)]
    pub audit_index: Option<u64>,
    /// The event for the CRM.
    #[schema(
        required,
        max_length = 64,
        example = "msg_019ab1234567700080000123456789ab"
    )]
    pub event_id: Option<String>,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EntryStatus {
    /// Well.
    Ok,
    /// Not well; it was tried again.
    Retried,
    /// Not well.
    Failed,
    /// It is not over.
    Waiting,
}
