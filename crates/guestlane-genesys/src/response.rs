//! What a response of the platform means: whether the request may have taken effect, the reason of
//! a refusal, and the state of the rate limit.

use std::time::Duration;

use http::StatusCode;
use serde::de::DeserializeOwned;

use crate::{
    error::{AttemptError, ErrorResponse},
    foreign::{CorrelationId, ErrorCode, PlatformMessage, lenient},
};
use guestlane_runtime::{
    Timestamp,
    http_client::{HttpResponse, TransportError, retry_after},
};

/// 4xx statuses that do not tell whether an earlier attempt took effect: the request was too slow,
/// or was sent too early.
const AMBIGUOUS_STATUSES: [StatusCode; 3] = [
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::LOCKED,
    StatusCode::TOO_EARLY,
];

/// Upper bound of a `Retry-After` from the platform. The platform's rate limit windows last a
/// minute; a longer wait counts as an outage, and a call finds out when that ends.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

impl From<TransportError> for AttemptError {
    fn from(no_answer: TransportError) -> Self {
        match no_answer {
            TransportError::Local(reason) => Self::Local(reason),
            TransportError::NotSent(reason) => Self::NotSent(reason),
            TransportError::Lost(reason) => Self::OutcomeUnknown {
                reason,
                retry_after: None,
                correlation_id: None,
            },
        }
    }
}

/// What a response of the platform means.
pub(crate) trait PlatformResponse: Sized {
    /// Returns the response if its status is 2xx, and otherwise the error that the status means. A
    /// 409 of a call with an idempotency key means that a request with the same key is in progress.
    /// Any other 409 means a conflict with an existing resource.
    ///
    /// # Errors
    ///
    /// Fails for every status but 2xx; the variant states whether the request may have taken
    /// effect.
    fn error_for_status(self, now: Timestamp, carried_key: bool) -> Result<Self, AttemptError>;

    /// Parses the JSON body of a 2xx response.
    ///
    /// # Errors
    ///
    /// An unreadable body leaves the outcome unknown ([`AttemptError::OutcomeUnknown`]).
    fn json<T: DeserializeOwned>(&self) -> Result<T, AttemptError>;

    /// Returns the `ININ-Correlation-Id` header, or else the body's `contextId`
    /// (docs/platform.md#errors).
    fn correlation_id(&self) -> Option<CorrelationId>;

    /// Returns the calls made in the current window, the calls allowed in it, and the time until it
    /// ends (headers `inin-ratelimit-…`, docs/platform.md#rate-limits).
    fn rate_limit_headers(&self) -> Option<(u32, u32, Duration)>;

    /// Returns the platform's reason for a refusal.
    fn refusal(&self) -> ErrorResponse;
}

impl PlatformResponse for HttpResponse {
    fn error_for_status(self, now: Timestamp, carried_key: bool) -> Result<Self, AttemptError> {
        let status = self.status;
        if status.is_success() {
            return Ok(self);
        }
        let retry_after = retry_after(&self.headers, now, MAX_RETRY_AFTER);
        let refusal = self.refusal();
        if status == StatusCode::TOO_MANY_REQUESTS {
            // Some layers of the platform name the wait in the error message only.
            let retry_after = retry_after.or_else(|| Some(bounded(refusal.message.seconds()?)));
            return Err(AttemptError::Throttled {
                retry_after,
                correlation_id: refusal.correlation_id,
            });
        }
        let under_way =
            AMBIGUOUS_STATUSES.contains(&status) || (carried_key && status == StatusCode::CONFLICT);
        Err(if status.is_server_error() || under_way {
            let correlation_id = refusal.correlation_id.clone();
            AttemptError::OutcomeUnknown {
                reason: refusal.to_string(),
                retry_after,
                correlation_id,
            }
        } else if status == StatusCode::UNAUTHORIZED {
            AttemptError::Unauthorized(refusal)
        } else {
            AttemptError::Rejected(refusal)
        })
    }

    fn json<T: DeserializeOwned>(&self) -> Result<T, AttemptError> {
        serde_json::from_slice(&self.body).map_err(|error| AttemptError::OutcomeUnknown {
            // Omit serde's own message, which may quote the body: this text is stored.
            reason: format!(
                "HTTP {} with a body that could not be parsed (line {}, column {})",
                self.status.as_u16(),
                error.line(),
                error.column()
            ),
            retry_after: None,
            correlation_id: self.correlation_id(),
        })
    }

    fn correlation_id(&self) -> Option<CorrelationId> {
        let header = self
            .headers
            .get("inin-correlation-id")
            .and_then(|value| CorrelationId::new(value.to_str().ok()?));
        header.or_else(|| CorrelationId::new(&error_body(self).context_id?))
    }

    fn rate_limit_headers(&self) -> Option<(u32, u32, Duration)> {
        let number = |name| {
            self.headers
                .get(name)?
                .to_str()
                .ok()?
                .trim()
                .parse::<u32>()
                .ok()
        };
        let (count, allowed) = (
            number("inin-ratelimit-count")?,
            number("inin-ratelimit-allowed")?,
        );
        Some((
            count,
            allowed,
            Duration::from_secs(number("inin-ratelimit-reset").unwrap_or(1).into()),
        ))
    }

    fn refusal(&self) -> ErrorResponse {
        let body = error_body(self);
        let said_as_code = body.code.or(body.error).unwrap_or_default();
        let code = ErrorCode::new(&said_as_code);
        // If a gateway put a sentence into the code field, use it as the message.
        let spare = Some(said_as_code).filter(|_| code.is_empty());
        let message = body
            .message
            .or(body.error_description)
            .or(body.description)
            .or(spare)
            .unwrap_or_default();
        ErrorResponse {
            status: self.status,
            code,
            message: PlatformMessage::new(&message),
            correlation_id: self.correlation_id(),
        }
    }
}

fn error_body(response: &HttpResponse) -> ErrorBody {
    serde_json::from_slice(&response.body).unwrap_or_default()
}

/// The platform's `ErrorBody` and OAuth's error in one type. No field of either is guaranteed
/// (docs/platform.md#errors).
#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ErrorBody {
    #[serde(deserialize_with = "lenient")]
    code: Option<String>,
    #[serde(deserialize_with = "lenient")]
    message: Option<String>,
    #[serde(deserialize_with = "lenient")]
    context_id: Option<String>,
    #[serde(deserialize_with = "lenient")]
    error: Option<String>,
    #[serde(rename = "error_description", deserialize_with = "lenient")]
    error_description: Option<String>,
    #[serde(deserialize_with = "lenient")]
    description: Option<String>,
}

/// Returns a wait in seconds as a duration, at most `MAX_RETRY_AFTER`.
pub(crate) fn bounded(seconds: u64) -> Duration {
    Duration::from_secs(seconds).min(MAX_RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &'static str) -> HttpResponse {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        HttpResponse {
            status: StatusCode::from_u16(status).unwrap(),
            headers: map,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    const NOW: Timestamp = Timestamp::from_unix_micros(1_795_361_029_000_000);

    #[test]
    fn status_is_classified_by_whether_the_request_took_effect() {
        let sort = |status| answer(status, &[], "").error_for_status(NOW, true);
        assert!(sort(200).is_ok() && sort(201).is_ok() && sort(202).is_ok());
        assert!(matches!(sort(429), Err(AttemptError::Throttled { .. })));
        for status in [408, 409, 423, 425, 500, 502, 503, 504] {
            assert!(
                matches!(sort(status), Err(AttemptError::OutcomeUnknown { .. })),
                "{status}"
            );
        }
        assert!(matches!(sort(401), Err(AttemptError::Unauthorized(_))));
        for status in [301, 302, 307, 400, 403, 404, 413, 415, 422] {
            assert!(
                matches!(sort(status), Err(AttemptError::Rejected(_))),
                "{status}"
            );
        }
        assert!(
            matches!(
                answer(409, &[], "").error_for_status(NOW, false),
                Err(AttemptError::Rejected(_))
            ),
            "something is taken"
        );
    }

    #[test]
    fn response_429_without_retry_after_uses_wait_from_message() {
        let wait =
            |headers: &[(&'static str, &str)], body: &'static str| match answer(429, headers, body)
                .error_for_status(NOW, false)
            {
                Err(AttemptError::Throttled { retry_after, .. }) => {
                    retry_after.map(|wait| wait.as_secs())
                }
                other => panic!("{other:?}"),
            };
        let sentence = r#"{"message":"Rate limit exceeded the maximum. Retry the request in [42] seconds","code":"too.many"}"#;
        assert_eq!(wait(&[], sentence), Some(42));
        assert_eq!(
            wait(&[("retry-after", "7")], sentence),
            Some(7),
            "the header is first"
        );
        assert_eq!(
            wait(&[], r#"{"message":"in [99999999] seconds"}"#),
            Some(3600),
            "bounded"
        );
        assert_eq!(wait(&[], r#"{"message":"later"}"#), None);
        assert_eq!(wait(&[("retry-after", "4294967295")], ""), Some(3600));
    }

    #[test]
    fn platform_text_in_errors_is_bounded_and_redacted() {
        let long: &'static str = "x".repeat(900_000).leak();
        let body: &'static str =
            serde_json::json!({"contextId": long, "code": long, "message": long})
                .to_string()
                .leak();
        let Err(error) = answer(500, &[], body).error_for_status(NOW, false) else {
            panic!()
        };
        assert!(
            error.redacted().len() < 1000 && error.correlation_id().unwrap().len() <= 2 * 256,
            "{}",
            error.redacted().len()
        );

        let forged = r#"{"contextId":"c\u001b[2K\r\nThe session of ann is open.","code":"The value gold is bad","status":[]}"#;
        let Err(error) = answer(400, &[], forged).error_for_status(NOW, false) else {
            panic!()
        };
        assert_eq!(
            error.redacted(),
            "HTTP 400 (correlation id c [2K  The session of ann is open.)"
        );
        assert_eq!(
            error.for_caller().rsplit(": ").next(),
            Some("The value gold is bad")
        );
        assert!(
            !format!("{error} {error:?}").contains("gold"),
            "only its caller gets the sentence"
        );
    }

    #[test]
    fn platform_and_oauth_error_shapes_are_parsed() {
        let platform = r#"{"message":"The requested resource was not found.","code":"not.found","status":404,"contextId":"c-1"}"#;
        let Err(AttemptError::Rejected(refusal)) =
            answer(404, &[], platform).error_for_status(NOW, false)
        else {
            unreachable!()
        };
        assert_eq!(refusal.code, "not.found");
        assert_eq!(refusal.correlation_id.as_deref(), Some("c-1"));

        let oauth = r#"{"error":"invalid_client","description":"d","error_description":"authentication failed"}"#;
        let Err(AttemptError::Rejected(refusal)) =
            answer(400, &[("inin-correlation-id", "c-2")], oauth).error_for_status(NOW, false)
        else {
            unreachable!()
        };
        assert_eq!(
            (refusal.code.as_str(), refusal.message.for_caller()),
            ("invalid_client", "authentication failed")
        );
        assert_eq!(refusal.correlation_id.as_deref(), Some("c-2"));
    }

    #[test]
    fn unreadable_success_response_leaves_outcome_unknown() {
        for body in ["", "<html>", "{", "[]", r#"{"id":5}"#] {
            #[derive(Debug, serde::Deserialize)]
            struct Created {
                #[expect(dead_code)]
                id: String,
            }
            let read = answer(200, &[], body).json::<Created>();
            assert!(
                matches!(read, Err(AttemptError::OutcomeUnknown { .. })),
                "{body}"
            );
        }
    }
}
