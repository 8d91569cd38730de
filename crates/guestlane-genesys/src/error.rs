//! Errors of calls to the platform, sorted by whether the request may have taken effect.

mod operation;
mod response;

use std::{fmt, time::Duration};

use http::StatusCode;

use crate::foreign::{CorrelationId, PlatformMessage};
pub use operation::{CallError, Operation};
pub use response::ErrorResponse;
pub(crate) use response::GUEST_CODE;

/// Why one attempt at a call failed, sorted by what the platform may have done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AttemptError {
    /// The request was not sent, so it had no effect.
    #[error("the request was not sent: {0}")]
    NotSent(String),

    /// The local machine has no file descriptor, port or memory left for a connection. The request
    /// was not sent, and the failure says nothing about the platform.
    #[error("this machine cannot open a connection: {0}")]
    Local(String),

    /// The platform rate-limited the request (429) and did nothing else.
    #[error("the platform's rate limit was reached{}", RetryAfter(*.retry_after))]
    Throttled {
        /// The response's `Retry-After`, or the wait that the error message names.
        retry_after: Option<Duration>,
        /// The response's `ININ-Correlation-Id`.
        correlation_id: Option<CorrelationId>,
    },

    /// The outcome is unknown: no response, an unreadable response, or a 5xx. The requested
    /// resource may or may not exist.
    #[error("the outcome of the request is unknown: {reason}")]
    OutcomeUnknown {
        /// What happened instead of a usable response.
        reason: String,
        /// The response's `Retry-After`, on a 503 for example.
        retry_after: Option<Duration>,
        /// The response's `ININ-Correlation-Id`, if there was a response.
        correlation_id: Option<CorrelationId>,
    },

    /// 401: the access token is not valid, or no longer valid. The request had no effect.
    #[error("the platform rejected the access token: {0}")]
    Unauthorized(ErrorResponse),

    /// The platform rejected the request. It had no effect, and a retry would get the same
    /// response.
    #[error("the platform rejected the request: {0}")]
    Rejected(ErrorResponse),

    /// 404 for a resource that is expected to become visible soon (eventual consistency); the call
    /// polls.
    #[error("the resource is not visible yet: {0}")]
    NotReady(ErrorResponse),

    /// The rate limiter has no permit before the caller's deadline. The request was not sent.
    #[error("the rate limiter has no permit for the call before the deadline")]
    RateLimitTimeout,

    /// No access token could be obtained, so the call was not made.
    #[error("no access token: {0}")]
    AuthenticationFailed(Box<AttemptError>),

    /// One OAuth client was rejected or throttled, and the pool has another one for this call.
    #[error("{0}")]
    Failover(Box<AttemptError>),
}

struct RetryAfter(Option<Duration>);

impl fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |wait| {
            write!(f, "; retry after {} s", wait.as_secs_f32())
        })
    }
}

/// What the retry loop may do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAction {
    /// Send the same request with the same idempotency key, after a backoff.
    Retry {
        /// The platform's `Retry-After`, a lower bound of the wait.
        at_least: Duration,
    },
    /// Send the same request after a wait, until the deadline.
    Poll,
    /// Fetch a new access token and send the same request once more.
    RefreshToken,
    /// Send the same request immediately, with another OAuth client.
    Failover,
    /// Do not retry; the result is final.
    Stop,
}

/// The error categories of requirement R12 (docs/requirements.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Category {
    /// The guest token did not verify, or the platform rejected it.
    TokenValidation,
    /// The platform answered 429.
    RateLimit,
    /// 401, 403 and authentication failures.
    Auth,
    /// No response, unreadable responses and 5xx.
    Network,
    /// Everything else, a rejected payload for example. Counted in the total only.
    Other,
}

impl AttemptError {
    /// Returns what the retry loop may do after this error. There is no catch-all arm, so that a
    /// new variant cannot compile without a decision.
    ///
    /// An unknown outcome is retried: a call that creates something carries the same idempotency
    /// key on every attempt, or finds what an earlier attempt created. The few calls that do
    /// neither declare `RetrySafety::NotIfOutcomeUnknown`.
    #[deny(clippy::wildcard_enum_match_arm)]
    pub fn classify(&self) -> RetryAction {
        match self {
            Self::NotSent(_) | Self::Local(_) => RetryAction::Retry {
                at_least: Duration::ZERO,
            },
            Self::Throttled { retry_after, .. } | Self::OutcomeUnknown { retry_after, .. } => {
                RetryAction::Retry {
                    at_least: retry_after.unwrap_or_default(),
                }
            }
            Self::Unauthorized(_) => RetryAction::RefreshToken,
            Self::Failover(_) => RetryAction::Failover,
            Self::NotReady(_) => RetryAction::Poll,
            // The token source has already retried the token request on its own.
            Self::Rejected(_) | Self::AuthenticationFailed(_) | Self::RateLimitTimeout => {
                RetryAction::Stop
            }
        }
    }

    /// Returns the category under which this failure of `operation` counts. Returns `None` when the
    /// failure was already counted where it happened, or is not the platform's fault.
    pub fn category(&self, operation: Operation) -> Option<Category> {
        Some(match self {
            Self::AuthenticationFailed(_)
            | Self::RateLimitTimeout
            | Self::Local(_)
            | Self::NotReady(_) => return None,
            Self::Failover(cause) => return cause.category(operation),
            Self::NotSent(_) | Self::OutcomeUnknown { .. } => Category::Network,
            Self::Throttled { .. } => Category::RateLimit,
            Self::Unauthorized(_) => Category::Auth,
            Self::Rejected(_) if operation == Operation::Token => Category::Auth,
            Self::Rejected(refusal) if refusal.is_guest_token() => Category::TokenValidation,
            Self::Rejected(refusal) if refusal.status == StatusCode::FORBIDDEN => Category::Auth,
            Self::Rejected(_) => Category::Other,
        })
    }

    /// Returns the response's correlation ID, if there was a response that had one.
    pub fn correlation_id(&self) -> Option<&CorrelationId> {
        match self {
            Self::NotSent(_) | Self::Local(_) | Self::RateLimitTimeout => None,
            Self::Throttled { correlation_id, .. }
            | Self::OutcomeUnknown { correlation_id, .. } => correlation_id.as_ref(),
            Self::Unauthorized(refusal) | Self::Rejected(refusal) | Self::NotReady(refusal) => {
                refusal.correlation_id.as_ref()
            }
            Self::AuthenticationFailed(cause) | Self::Failover(cause) => cause.correlation_id(),
        }
    }

    /// Sets the correlation ID if the error has none. On the guest socket, `id` is the tracing ID,
    /// which the platform's support can look up.
    pub(crate) fn with_correlation_id(mut self, id: CorrelationId) -> Self {
        match &mut self {
            Self::Throttled { correlation_id, .. }
            | Self::OutcomeUnknown { correlation_id, .. } => {
                correlation_id.get_or_insert(id);
            }
            Self::Unauthorized(refusal) | Self::Rejected(refusal) | Self::NotReady(refusal) => {
                refusal.correlation_id.get_or_insert(id);
            }
            Self::NotSent(_)
            | Self::Local(_)
            | Self::RateLimitTimeout
            | Self::AuthenticationFailed(_)
            | Self::Failover(_) => {}
        }
        self
    }

    /// Returns the platform's own error message, if there is one. Show it only to the caller whose
    /// request caused the error.
    pub fn sentence(&self) -> Option<&PlatformMessage> {
        let refusal = match self {
            Self::Unauthorized(refusal) | Self::Rejected(refusal) | Self::NotReady(refusal) => {
                refusal
            }
            Self::AuthenticationFailed(cause) | Self::Failover(cause) => return cause.sentence(),
            Self::NotSent(_)
            | Self::Local(_)
            | Self::RateLimitTimeout
            | Self::Throttled { .. }
            | Self::OutcomeUnknown { .. } => {
                return None;
            }
        };
        Some(&refusal.message).filter(|sentence| !sentence.is_empty())
    }

    /// Formats the error with the platform's own message, for the caller whose request caused it.
    pub fn for_caller(&self) -> String {
        match self.sentence() {
            Some(sentence) => format!("{self}: {}", sentence.for_caller()),
            None => self.to_string(),
        }
    }

    /// Returns the error response if the platform rejected the request, or `None`.
    pub fn refusal(&self) -> Option<&ErrorResponse> {
        match self {
            Self::Unauthorized(refusal) | Self::Rejected(refusal) => Some(refusal),
            Self::AuthenticationFailed(cause) | Self::Failover(cause) => cause.refusal(),
            Self::NotSent(_)
            | Self::Local(_)
            | Self::RateLimitTimeout
            | Self::Throttled { .. }
            | Self::OutcomeUnknown { .. }
            | Self::NotReady(_) => None,
        }
    }

    /// Whether the platform rejected the credentials rather than the request: wrong credentials or
    /// a missing permission. An operator can correct either at any time.
    pub fn is_authorization_failure(&self) -> bool {
        match self {
            Self::AuthenticationFailed(_) | Self::Unauthorized(_) => true,
            Self::Failover(cause) => cause.is_authorization_failure(),
            Self::Rejected(refusal) => refusal.status == StatusCode::FORBIDDEN,
            Self::NotSent(_)
            | Self::Local(_)
            | Self::RateLimitTimeout
            | Self::Throttled { .. }
            | Self::OutcomeUnknown { .. }
            | Self::NotReady(_) => false,
        }
    }

    /// Returns the platform's `Retry-After`, if it is not zero.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self.classify() {
            RetryAction::Retry { at_least } if !at_least.is_zero() => Some(at_least),
            RetryAction::Retry { .. }
            | RetryAction::Poll
            | RetryAction::RefreshToken
            | RetryAction::Failover
            | RetryAction::Stop => None,
        }
    }

    /// Whether the platform answered 429.
    pub(crate) fn is_throttled(&self) -> bool {
        match self {
            Self::Failover(cause) => cause.is_throttled(),
            Self::Throttled { .. } => true,
            Self::NotSent(_)
            | Self::Local(_)
            | Self::OutcomeUnknown { .. }
            | Self::Unauthorized(_)
            | Self::Rejected(_)
            | Self::NotReady(_)
            | Self::RateLimitTimeout
            | Self::AuthenticationFailed(_) => false,
        }
    }

    /// Whether the local machine caused the failure, and not the platform.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::AuthenticationFailed(cause) | Self::Failover(cause) => cause.is_local(),
            Self::Local(_) | Self::RateLimitTimeout => true,
            Self::NotSent(_)
            | Self::Throttled { .. }
            | Self::OutcomeUnknown { .. }
            | Self::Unauthorized(_)
            | Self::Rejected(_)
            | Self::NotReady(_) => false,
        }
    }

    /// Whether a retry adds no load to the platform. After a 429 the rate limiter paces the retry;
    /// after a local failure nothing had been sent.
    pub(crate) fn costs_no_retry(&self) -> bool {
        self.is_throttled() || self.is_local()
    }

    /// Whether the platform is unreachable or unable to respond. Such failures open the circuit
    /// breaker.
    pub(crate) fn counts_as_outage(&self) -> bool {
        match self {
            Self::NotSent(_) | Self::OutcomeUnknown { .. } => true,
            Self::AuthenticationFailed(cause) | Self::Failover(cause) => cause.counts_as_outage(),
            Self::Throttled { .. }
            | Self::Local(_)
            | Self::Unauthorized(_)
            | Self::Rejected(_)
            | Self::NotReady(_)
            | Self::RateLimitTimeout => false,
        }
    }

    /// Formats the failure for logs, audit records and the store, without the platform's own
    /// message.
    pub fn redacted(&self) -> String {
        match self {
            Self::Unauthorized(refusal) | Self::Rejected(refusal) => refusal.to_string(),
            Self::AuthenticationFailed(cause) => format!("no access token: {}", cause.redacted()),
            Self::Failover(cause) => cause.redacted(),
            Self::NotReady(_)
            | Self::NotSent(_)
            | Self::Local(_)
            | Self::RateLimitTimeout
            | Self::Throttled { .. }
            | Self::OutcomeUnknown { .. } => self.to_string(),
        }
    }
}
