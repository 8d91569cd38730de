//! JSON models of error counts (requirement R12, docs/requirements.md).

use guestlane::{ErrorCounts, FailureCount as CameUp, Timestamp, error::ErrorCode};
use serde::Serialize;
use utoipa::ToSchema;

/// Errors by category, one for each failed attempt, of this process and of those before it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorRates {
    /// All of them.
    #[schema(minimum = 0, example = 7)]
    total: u64,
    /// Guest tokens that did not verify or were refused.
    #[schema(minimum = 0, example = 0)]
    token_validation: u64,
    /// 429s.
    #[schema(minimum = 0, example = 2)]
    rate_limit: u64,
    /// 401s, 403s and failed sign-ins.
    #[schema(minimum = 0, example = 0)]
    auth: u64,
    /// No answers, broken answers, 5xx.
    #[schema(minimum = 0, example = 5)]
    network: u64,
    /// `tokenValidation / total` with four decimals; `0.0000` when nothing failed.
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

/// A kind of failure that somebody was told since the service started.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecentError {
    /// Its stable name.
    #[schema(max_length = 64, example = "platform_failing")]
    code: &'static str,
    /// Its page.
    #[serde(rename = "type")]
    #[schema(format = UriReference, max_length = 128, example = "/problems/platform_failing")]
    page: String,
    /// What it is.
    #[schema(max_length = 128, example = "Platform failing")]
    title: &'static str,
    /// How often.
    #[schema(minimum = 1, example = 5)]
    count: u64,
    /// The last time.
    #[schema(value_type = String, format = DateTime, max_length = 40, example = "2026-11-23T04:00:00.000000Z")]
    last_at: Timestamp,
    /// Why it was, the last time.
    #[schema(max_length = 8192, example = "HTTP 503")]
    cause: String,
    /// What to do.
    #[schema(max_length = 8192, example = "no change is needed here")]
    fix: String,
}

impl RecentError {
    pub(crate) fn new(code: ErrorCode, problem: CameUp) -> Self {
        Self {
            code: code.name(),
            page: code.page_path(),
            title: code.title(),
            count: problem.count,
            last_at: problem.last_at,
            cause: problem.advice.cause,
            fix: problem.advice.fix,
        }
    }
}
