//! Retry policy with exponential backoff and full jitter, and the only retry loop of the crate.

use std::{future::Future, sync::Arc, time::Duration};

use tracing::{Instrument, Span, debug, field::Empty, info_span};

use crate::{
    call_context::CallContext,
    client::RetrySafety,
    client_metrics::ClientMetrics,
    error::{AttemptError, CallError, Operation, RetryAction},
    foreign::CorrelationId,
    health::PlatformHealth,
    retry_budget::RetryBudget,
};
use guestlane_runtime::{Clock, FailPoint, FailPoints, trace_context};

/// How often and how soon a call is retried (requirement R8, docs/requirements.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Number of retries, that is, attempts after the first.
    pub retries: u32,
    /// The shortest wait between two attempts.
    pub min: Duration,
    /// The longest wait, unless the platform's `Retry-After` is longer.
    pub max: Duration,
}

impl Default for RetryPolicy {
    /// 3 retries, 1 s to 5 s (requirement R8, docs/requirements.md).
    fn default() -> Self {
        Self {
            retries: 3,
            min: Duration::from_secs(1),
            max: Duration::from_secs(5),
        }
    }
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RetryDecision {
    /// Retry after this backoff.
    Backoff(Duration),
    /// Poll again after this wait.
    Poll(Duration),
    /// Retry immediately with a refreshed access token.
    RetryNow,
    /// Retry immediately with another OAuth client.
    Failover,
    /// Do not retry. `wait` is the platform's `Retry-After`, if it has one.
    Stop { wait: Option<Duration> },
}

/// Attempts that do not count against the retries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct FreeAttempts {
    /// Whether an attempt with a refreshed access token was made.
    renewed: bool,
    /// Number of polls that found the resource not visible yet.
    polls: u32,
    /// Number of failovers to another OAuth client.
    others: u32,
    /// Number of attempts whose retry adds no load: the platform answered 429, or the local machine
    /// could not connect.
    unpaid: u32,
}

impl RetryPolicy {
    /// First wait before a resource that is not visible yet is polled again; doubles each time.
    const POLL: Duration = Duration::from_millis(500);

    /// Returns the wait before retry `n` (from 1). `spread` (0 to 1) selects a point between `min`
    /// and the exponential bound: full jitter between the two.
    fn backoff(&self, n: u32, spread: f64) -> Duration {
        let ceiling = self
            .min
            .saturating_mul(2_u32.saturating_pow(n))
            .min(self.max)
            .max(self.min);
        self.min + (ceiling - self.min).mul_f64(spread)
    }

    /// Decides what follows a failed attempt. `tries` counts all attempts so far, `free` those that
    /// do not count against the retries. `left` is the time until the deadline, `spread` the jitter
    /// (0 to 1).
    fn should_retry(
        &self,
        tries: u32,
        free: FreeAttempts,
        error: &AttemptError,
        left: Duration,
        spread: f64,
    ) -> RetryDecision {
        let renewed = free.renewed;
        match error.classify() {
            RetryAction::Poll => {
                let wait = Self::POLL
                    .saturating_mul(2_u32.saturating_pow(free.polls))
                    .min(self.max)
                    .max(Self::POLL);
                let wait = wait.mul_f64(0.5 + spread / 2.0);
                if wait >= left {
                    RetryDecision::Stop { wait: None }
                } else {
                    RetryDecision::Poll(wait)
                }
            }
            RetryAction::Failover => RetryDecision::Failover,
            RetryAction::Stop => RetryDecision::Stop { wait: None },
            RetryAction::RefreshToken if renewed => RetryDecision::Stop { wait: None },
            RetryAction::RefreshToken => RetryDecision::RetryNow,
            RetryAction::Retry { at_least } => {
                // Token refreshes, failovers and polls do not count as retries. Nor do attempts
                // whose retry adds no load, after a 429 for example: those continue until the
                // deadline.
                let unpaid = error.costs_no_retry();
                let retries_done =
                    tries - 1 - u32::from(renewed) - free.polls - free.others - free.unpaid;
                let before = if unpaid { free.unpaid } else { retries_done };
                let backoff = self.backoff(before + 1, spread);
                // `Retry-After` is a floor. Add jitter, so that clients that got the same
                // `Retry-After` do not return at the same moment.
                let wait = if at_least > backoff {
                    at_least + (backoff - self.min).min(self.min)
                } else {
                    backoff
                };
                if (!unpaid && retries_done >= self.retries) || wait >= left {
                    RetryDecision::Stop {
                        wait: Some(wait).filter(|_| !at_least.is_zero()),
                    }
                } else {
                    RetryDecision::Backoff(wait)
                }
            }
        }
    }
}

/// State that all calls of a client share.
#[derive(Debug, Clone)]
pub(crate) struct RetryContext {
    pub(crate) policy: RetryPolicy,
    pub(crate) budget: Arc<RetryBudget>,
    pub(crate) health: Arc<PlatformHealth>,
    pub(crate) metrics: Arc<ClientMetrics>,
    pub(crate) clock: Clock,
    pub(crate) fail_points: FailPoints,
}

/// The result of a call and the number of attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completed<T> {
    /// The result of the last attempt.
    pub value: T,
    /// Number of attempts; 1 when the first succeeded.
    pub attempts: u32,
}

/// Runs `attempt` until it succeeds, fails for good, or the deadline or the retries are exhausted.
/// A 401 is retried once and immediately: the attempt must have discarded the rejected access
/// token.
pub(crate) async fn execute<T, F>(
    shared: &RetryContext,
    context: &CallContext,
    operation: Operation,
    repeat: RetrySafety,
    mut attempt: impl FnMut() -> F,
) -> Result<Completed<T>, CallError>
where
    F: Future<Output = Result<T, AttemptError>>,
{
    let started = shared.clock.now();
    // Measure with the monotonic clock, so that a change of the wall clock does not extend the
    // deadline.
    let end = shared.clock.monotonic() + context.deadline.since(started);
    let mut free = FreeAttempts::default();
    let mut may_exist = false;
    let mut tries = 0;
    shared.budget.deposit();
    loop {
        tries += 1;
        if tries > 1 {
            shared.metrics.repeated(tries);
        }
        let span = info_span!(
            target: trace_context::TARGET,
            "call",
            otel.name = operation.name(),
            otel.kind = "client",
            otel.status_code = Empty,
            guestlane.attempt = tries,
            http.response.status_code = Empty,
            guestlane.correlation_id = Empty,
            error.type = Empty,
        );
        let error = match attempt().instrument(span.clone()).await {
            Ok(value) => {
                shared.health.record_success();
                context.attempts.ended(operation, shared.clock.now(), None);
                record_on_span(&span, context, None);
                return Ok(Completed {
                    value,
                    attempts: tries,
                });
            }
            Err(error) => error,
        };
        context
            .attempts
            .ended(operation, shared.clock.now(), Some(&error));
        record_on_span(&span, context, Some(&error));
        drop(span);
        let left = end.since(shared.clock.monotonic());
        match &error {
            // Neither a local failure nor an expired deadline says anything about the platform.
            error if error.is_local() => {}
            _ if left.is_zero() => {}
            error if error.counts_as_outage() => shared.health.record_failure(),
            _ => shared.health.record_success(),
        }
        shared.metrics.failed(&error, operation);
        shared.fail_points.hit(FailPoint::AttemptFailed).await;
        may_exist |= matches!(error, AttemptError::OutcomeUnknown { .. });
        let now = shared.clock.now();
        let decision = match &error {
            AttemptError::OutcomeUnknown { .. } if repeat == RetrySafety::NotIfOutcomeUnknown => {
                RetryDecision::Stop { wait: None }
            }
            _ => shared
                .policy
                .should_retry(tries, free, &error, left, fastrand::f64()),
        };
        let decision = match decision {
            // A retry that adds load withdraws from the retry budget.
            RetryDecision::Backoff(_)
                if !error.costs_no_retry() && shared.budget.withdraw(1) == 0 =>
            {
                RetryDecision::Stop {
                    wait: error.retry_after(),
                }
            }
            decision => decision,
        };
        let correlation_id = error.correlation_id().map(CorrelationId::as_str);
        debug!(%operation, tries, error = error.redacted(), correlation_id, ?decision, "attempt failed");
        match decision {
            RetryDecision::Backoff(wait) => {
                free.unpaid += u32::from(error.costs_no_retry());
                let _resting = shared.health.backoff(context.priority);
                shared.clock.sleep(wait).await;
            }
            RetryDecision::Poll(wait) => {
                free.polls += 1;
                let _resting = shared.health.backoff(context.priority);
                shared.clock.sleep(wait).await;
            }
            RetryDecision::RetryNow => free.renewed = true,
            RetryDecision::Failover => free.others += 1,
            RetryDecision::Stop { wait } => {
                return Err(CallError {
                    operation,
                    attempts: tries,
                    elapsed: now.since(started),
                    cause: error,
                    may_exist,
                    retry_after: wait,
                });
            }
        }
    }
}

/// Records the result of an attempt on its trace span.
fn record_on_span(span: &Span, context: &CallContext, error: Option<&AttemptError>) {
    if span.is_disabled() {
        return;
    }
    if let Some(attempt) = context.attempts.last() {
        if let Some(status) = attempt.status {
            span.record("http.response.status_code", status);
        }
        if let Some(id) = &attempt.correlation_id {
            span.record("guestlane.correlation_id", id.as_str());
        }
    }
    if let Some(error) = error {
        span.record("error.type", error.redacted());
        span.record("otel.status_code", "ERROR");
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        error::ErrorResponse,
        foreign::{ErrorCode, PlatformMessage},
    };

    const FAR: Duration = Duration::from_secs(3600);
    const NONE: FreeAttempts = FreeAttempts {
        renewed: false,
        polls: 0,
        others: 0,
        unpaid: 0,
    };
    const RENEWED: FreeAttempts = FreeAttempts {
        renewed: true,
        ..NONE
    };

    fn refusal(status: StatusCode) -> ErrorResponse {
        ErrorResponse {
            status,
            code: ErrorCode::default(),
            message: PlatformMessage::default(),
            correlation_id: None,
        }
    }

    fn throttled(seconds: u64) -> AttemptError {
        AttemptError::Throttled {
            retry_after: Some(Duration::from_secs(seconds)),
            correlation_id: None,
        }
    }

    fn lost() -> AttemptError {
        AttemptError::OutcomeUnknown {
            reason: String::new(),
            retry_after: None,
            correlation_id: None,
        }
    }

    #[test]
    fn rejected_request_is_not_retried() {
        for status in [
            StatusCode::BAD_REQUEST,
            StatusCode::FORBIDDEN,
            StatusCode::NOT_FOUND,
        ] {
            let error = AttemptError::Rejected(refusal(status));
            let decision = RetryPolicy::default().should_retry(1, NONE, &error, FAR, 0.5);
            assert_eq!(decision, RetryDecision::Stop { wait: None }, "{status}");
        }
    }

    #[test]
    fn response_401_is_retried_once_without_costing_a_retry() {
        let policy = RetryPolicy::default();
        let error = AttemptError::Unauthorized(refusal(StatusCode::UNAUTHORIZED));
        assert_eq!(
            policy.should_retry(1, NONE, &error, FAR, 0.5),
            RetryDecision::RetryNow
        );
        assert_eq!(
            policy.should_retry(2, RENEWED, &error, FAR, 0.5),
            RetryDecision::Stop { wait: None }
        );
        // The attempt with the refreshed token does not count against the retries.
        assert!(matches!(
            policy.should_retry(4, RENEWED, &lost(), FAR, 0.5),
            RetryDecision::Backoff(_)
        ));
        assert!(matches!(
            policy.should_retry(5, RENEWED, &lost(), FAR, 0.5),
            RetryDecision::Stop { .. }
        ));
    }

    #[test]
    fn unknown_outcome_is_retried_three_times() {
        let policy = RetryPolicy::default();
        assert!((1..=3).all(|tries| matches!(
            policy.should_retry(tries, NONE, &lost(), FAR, 0.5),
            RetryDecision::Backoff(_)
        )));
        assert_eq!(
            policy.should_retry(4, NONE, &lost(), FAR, 0.5),
            RetryDecision::Stop { wait: None }
        );
    }

    #[test]
    fn response_429_is_retried_until_deadline_without_costing_retries() {
        let policy = RetryPolicy::default();
        let slow_down = AttemptError::Throttled {
            retry_after: None,
            correlation_id: None,
        };
        for unpaid in 0..50 {
            let free = FreeAttempts { unpaid, ..NONE };
            assert!(
                matches!(
                    policy.should_retry(unpaid + 1, free, &slow_down, FAR, 0.5),
                    RetryDecision::Backoff(_)
                ),
                "{unpaid}"
            );
        }
        let free = FreeAttempts { unpaid: 50, ..NONE };
        for tries in 51..=53 {
            assert!(
                matches!(
                    policy.should_retry(tries, free, &lost(), FAR, 0.5),
                    RetryDecision::Backoff(_)
                ),
                "{tries}"
            );
        }
        assert!(matches!(
            policy.should_retry(54, free, &lost(), FAR, 0.5),
            RetryDecision::Stop { .. }
        ));
        let no_time = Duration::from_millis(1);
        assert_eq!(
            policy.should_retry(1, NONE, &slow_down, no_time, 0.5),
            RetryDecision::Stop { wait: None }
        );
    }

    #[test]
    fn not_ready_is_polled_until_deadline_without_costing_retries() {
        let policy = RetryPolicy::default();
        let not_yet = AttemptError::NotReady(refusal(StatusCode::NOT_FOUND));
        for polls in 0..50 {
            let RetryDecision::Poll(wait) = policy.should_retry(
                polls + 1,
                FreeAttempts { polls, ..NONE },
                &not_yet,
                FAR,
                1.0,
            ) else {
                panic!("gave up after {polls}");
            };
            assert!(
                wait >= Duration::from_millis(250) && wait <= policy.max,
                "{wait:?}"
            );
        }
        assert!(matches!(
            policy.should_retry(53, FreeAttempts { polls: 50, ..NONE }, &lost(), FAR, 0.5),
            RetryDecision::Backoff(_)
        ));
        assert_eq!(
            policy.should_retry(9, NONE, &not_yet, Duration::from_millis(1), 0.5),
            RetryDecision::Stop { wait: None }
        );
    }

    #[test]
    fn wait_beyond_the_deadline_is_returned_instead_of_slept() {
        let decision = RetryPolicy::default().should_retry(
            1,
            NONE,
            &throttled(90),
            Duration::from_secs(60),
            0.0,
        );
        assert_eq!(
            decision,
            RetryDecision::Stop {
                wait: Some(Duration::from_secs(90))
            }
        );
    }

    proptest! {
        #[test]
        fn backoff_stays_within_bounds_and_honors_retry_after(
            tries in 1_u32..=3, spread in 0.0_f64..1.0, min_ms in 1_u64..2000, more_ms in 0_u64..8000, after_s in 0_u64..30,
        ) {
            let (min, max) = (Duration::from_millis(min_ms), Duration::from_millis(min_ms + more_ms));
            let policy = RetryPolicy { retries: 3, min, max };
            let RetryDecision::Backoff(wait) = policy.should_retry(tries, NONE, &throttled(after_s), FAR, spread) else {
                return Err(TestCaseError::fail("gave up"));
            };
            let floor = Duration::from_secs(after_s);
            prop_assert!(wait >= min.max(floor));
            prop_assert!(wait <= max.max(floor + min));
        }

        #[test]
        fn backoff_adds_jitter(spread in 0.01_f64..1.0) {
            let policy = RetryPolicy::default();
            prop_assert!(policy.backoff(1, spread) > policy.backoff(1, 0.0));
        }
    }
}
