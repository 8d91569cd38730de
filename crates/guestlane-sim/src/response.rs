//! Responses of the platform: JSON bodies and its error body (docs/platform.md#errors).

use std::io;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full, combinators::BoxBody};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::rate_window::RateHeaders;

/// The response body. It is complete except with some faults.
pub(crate) type Body = Either<Full<Bytes>, BoxBody<Bytes, io::Error>>;

/// An error response before its correlation ID is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// Seconds.
    pub(crate) retry_after: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            retry_after: None,
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad.request", message)
    }

    pub(crate) fn unauthorized(code: &'static str, message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, message)
    }

    pub(crate) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not.found",
            "The requested resource was not found.",
        )
    }

    /// 429 as it is since November 2021 (docs/platform.md#rate-limits).
    pub(crate) fn too_many_requests(seconds: u64) -> Self {
        let message =
            format!("Rate limit exceeded the maximum. Retry the request in [{seconds}] seconds");
        let refusal = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too.many.requests.retry.after",
            message,
        );
        Self {
            retry_after: Some(seconds),
            ..refusal
        }
    }

    /// `ErrorBody`; its `contextId` is the correlation id.
    pub(crate) fn answer(&self, correlation_id: Uuid) -> Response<Body> {
        let body = json!({
            "message": self.message, "code": self.code, "status": self.status.as_u16(),
            "contextId": correlation_id, "details": [], "errors": [],
        });
        let mut response = json(self.status, &body);
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    bytes(
        status,
        "application/json",
        serde_json::to_vec(body).unwrap_or_default().into(),
    )
}

pub(crate) fn bytes(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = status;
    response
}

/// Adds the headers that every response has (docs/platform.md#rate-limits).
pub(crate) fn tagged(
    mut response: Response<Body>,
    correlation_id: Uuid,
    rate: RateHeaders,
) -> Response<Body> {
    let headers = response.headers_mut();
    let mut text = Uuid::encode_buffer();
    if let Ok(value) = HeaderValue::from_str(correlation_id.hyphenated().encode_lower(&mut text)) {
        headers.insert("inin-correlation-id", value);
    }
    if rate.allowed > 0 {
        let [count, allowed, reset] = RateHeaders::NAMES;
        headers.insert(count, rate.count.into());
        headers.insert(allowed, rate.allowed.into());
        headers.insert(reset, rate.reset.into());
    }
    response
}
