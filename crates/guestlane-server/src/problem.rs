//! Error responses as problem details (RFC 9457).

use crate::{diagnosis, error_pages};
use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use guestlane::{Error, error::ErrorCode};
use guestlane_core::request::ValidationError;
use guestlane_runtime::Timestamp;
use http::{HeaderValue, header};
use serde::Serialize;
use utoipa::ToSchema;

/// What went wrong, why, and what to do now (RFC 9457). `type` leads to a page about this kind of problem.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The kind of problem: a reference to its page. It never changes.
    #[serde(rename = "type")]
    #[schema(format = UriReference, max_length = 128, example = "/problems/unknown_queue")]
    page: String,
    /// What it is, in words that are the same each time.
    #[schema(max_length = 128, example = "Unknown queue")]
    title: &'static str,
    /// The answer's status.
    #[schema(minimum = 400, maximum = 599, example = 422)]
    status: u16,
    /// The last part of `type`: what a program compares.
    #[schema(max_length = 64, example = "unknown_queue")]
    code: &'static str,
    /// What happened this time.
    #[schema(
        max_length = 2048,
        example = "the queue 5e0c0000-0000-4000-8000-000000000009 does not exist in this organization"
    )]
    detail: String,
    /// The field of the request that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256, example = "queueId")]
    field: Option<String>,
    /// All fields that it is about, where they are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64, example = json!(["queueId", "attributes.tier"]))]
    fields: Vec<String>,
    /// Why.
    #[schema(
        max_length = 2048,
        example = "the organization has no queue with this ID"
    )]
    cause: String,
    /// What to do now.
    #[schema(
        max_length = 2048,
        example = "copy the id from Admin > Contact Center > Queues; nothing was created"
    )]
    fix: String,
    /// Whether the same request may succeed later without any change.
    #[schema(example = false)]
    retryable: bool,
    /// Seconds to wait before that: as in the header `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, example = 1)]
    retry_after: Option<u64>,
    /// The platform's, to quote to its support.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256, example = "c5a9c1e0-1111-4222-8333-444455556666")]
    correlation_id: Option<String>,
    /// The session it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = Uuid, max_length = 36, example = "019ab123-4567-7000-8000-0123456789ab")]
    session_id: Option<String>,
    /// The idempotency key of the request, for a retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255, example = "order-2231-chat")]
    idempotency_key: Option<String>,
}

/// The media type of problem details (RFC 9457, section 6.1).
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Maximum length of a text, in characters, so that a long request value is not echoed in full.
const MAX_TEXT: usize = 2048;

/// Maximum length of a field name, in characters.
const MAX_FIELD: usize = 256;

fn bounded(text: String, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text,
        Some(_) => text.chars().take(most - 1).chain(['…']).collect(),
    }
}

impl Problem {
    /// A problem with the status, title and cause of `code`.
    pub fn new(code: ErrorCode, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        let detail = bounded(detail.into(), MAX_TEXT);
        Self {
            page: error_pages::page_path(code),
            title: code.title(),
            status: error_pages::status(code),
            code: code.name(),
            cause: bounded(error_pages::cause(code), MAX_TEXT),
            detail,
            field: None,
            fields: Vec::new(),
            fix: bounded(fix.into(), MAX_TEXT),
            retryable: code.is_retryable(),
            retry_after: None,
            correlation_id: None,
            session_id: None,
            idempotency_key: None,
        }
    }

    /// Sets the request field that the problem is about.
    pub fn of_field(self, field: impl Into<String>) -> Self {
        Self {
            field: Some(bounded(field.into(), MAX_FIELD)),
            ..self
        }
    }

    /// Sets the seconds to wait before a retry.
    pub fn retry_after(self, seconds: u64) -> Self {
        Self {
            retry_after: Some(seconds),
            ..self
        }
    }

    /// Sets the idempotency key under which the request can be repeated.
    pub fn with_session_key(self, key: impl ToString) -> Self {
        Self {
            idempotency_key: Some(key.to_string()),
            ..self
        }
    }

    /// The problem that describes `error`. `now` converts the error's retry time to
    /// seconds.
    pub fn of(error: &Error, now: Timestamp) -> Self {
        let diagnosis = diagnosis::of(error);
        let retry_after = match error {
            Error::InProgress { retry_at, .. } => Some(retry_at.since(now).as_secs() + 1),
            Error::Platform { failed, .. } => failed.retry_after.map(|wait| wait.as_secs() + 1),
            _ => None,
        };
        let default = match diagnosis.code {
            ErrorCode::StoreFailed
            | ErrorCode::LeaseLost
            | ErrorCode::RateLimitTimeout
            | ErrorCode::RateLimited
            | ErrorCode::NotReady => Some(1),
            ErrorCode::PlatformFailing | ErrorCode::Unreachable | ErrorCode::AuditUnavailable => {
                Some(5)
            }
            _ => None,
        };
        let fields = match error {
            Error::IdempotencyKeyReused { fields, .. } => fields.clone(),
            Error::Settings(invalid) => invalid
                .iter()
                .map(|invalid| diagnosis::with_setting_names(error, invalid.field.clone()))
                .collect(),
            _ => Vec::new(),
        };
        let detail = match error {
            Error::Invalid(_) => diagnosis.cause.clone(),
            _ => diagnosis.message.clone(),
        };
        // A cause that repeats the detail is replaced by the general cause of the code.
        let cause =
            Some(diagnosis.cause_for_caller()).filter(|cause| !detail.contains(cause.as_str()));
        let cause = cause.unwrap_or_else(|| error_pages::cause(diagnosis.code));
        Self {
            cause: bounded(cause, MAX_TEXT),
            field: diagnosis::field(error).map(|field| bounded(field, MAX_FIELD)),
            fields,
            retry_after: retry_after.or(default),
            correlation_id: error.correlation_id().map(str::to_owned),
            session_id: error.session().map(|id| id.to_string()),
            ..Self::new(diagnosis.code, detail, diagnosis.fix)
        }
    }

    /// The problem's code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The HTTP status of the response.
    pub fn status(&self) -> u16 {
        self.status
    }
}

impl From<ValidationError> for Problem {
    fn from(invalid: ValidationError) -> Self {
        Self::new(ErrorCode::InvalidInput, invalid.sentence(), invalid.fix).of_field(invalid.field)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(serde_json::to_vec(&self).unwrap_or_default()));
        *response.status_mut() = http::StatusCode::from_u16(self.status)
            .unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.code == ErrorCode::Unauthorized.name() {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"guestlane\""),
            );
        }
        response.extensions_mut().insert(LoggedCode(self.code));
        response
    }
}

/// The problem code of a response, for the request log and the metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoggedCode(pub(crate) &'static str);
