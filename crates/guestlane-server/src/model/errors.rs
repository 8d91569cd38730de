//! JSON models of error counts (requirement R12, docs/requirements.md).

use crate::error_pages;
use guestlane::{ErrorCounts, FailureCount as CameUp, error::ErrorCode};
use guestlane_runtime::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// Failed attempts by category, counted by this process and by earlier ones.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorRates {
    /// The number of all failed attempts.
    #[schema(minimum = 0, example = 7)]
    total: u64,
    /// The number of guest tokens that failed verification or were refused.
    #[schema(minimum = 0, example = 0)]
    token_validation: u64,
    /// The number of responses 429.
    #[schema(minimum = 0, example = 2)]
    rate_limit: u64,
    /// The number of responses 401 and 403, and of failed requests for an access token.
    #[schema(minimum = 0, example = 0)]
    auth: u64,
    /// The number of missing responses, invalid responses and responses 5xx.
    #[schema(minimum = 0, example = 5)]
    network: u64,
    /// `tokenValidation / total` with four decimals; `0.0000` without any failure.
    #[schema(pattern = "^[01][.][0-9]{4}$", example = "0.0000")]
    token_validation_rate: String,
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

/// One kind of failure that callers received since the service started.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecentError {
    /// The stable code of the failure.
    #[schema(max_length = 64, example = "platform_failing")]
    code: &'static str,
    /// The documentation page of the failure.
    #[serde(rename = "type")]
    #[schema(format = UriReference, max_length = 128, example = "/problems/platform_failing")]
    page: String,
    /// The title of the failure.
    #[schema(max_length = 128, example = "Platform failing")]
    title: &'static str,
    /// The number of occurrences.
    #[schema(minimum = 1, example = 5)]
    count: u64,
    /// The time of the last occurrence.
    #[schema(value_type = String, format = DateTime, max_length = 40, example = "2026-11-23T04:00:00.000000Z")]
    last_at: Timestamp,
    /// The cause of the last occurrence.
    #[schema(max_length = 8192, example = "HTTP 503")]
    cause: String,
    /// The recommended action.
    #[schema(max_length = 8192, example = "no change is needed here")]
    fix: String,
}

impl RecentError {
    pub(crate) fn new(code: ErrorCode, problem: CameUp) -> Self {
        Self {
            code: code.name(),
            page: error_pages::page_path(code),
            title: code.title(),
            count: problem.count,
            last_at: problem.last_at,
            cause: problem.diagnosis.cause,
            fix: problem.diagnosis.fix,
        }
    }
}
