//! Retry policy with exponential backoff and full jitter, and the only retry loop of the crate.

use std::{future::Future, sync::Arc, time::Duration};

use guestlane_runtime::{Clock, FailPoint, FailPoints, trace_context};
use tracing::{Instrument, Span, debug, field::Empty, info_span};

use crate::{
    call_context::CallContext,
    client_metrics::ClientMetrics,
    error::{AttemptError, CallError, Operation, RetryAction},
    foreign::CorrelationId,
    health::PlatformHealth,
    retry_budget::RetryBudget,
};

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

/// Whether a call may be retried after an attempt of unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetrySafety {
    /// Retry: the call carries an idempotency key, finds an earlier result, or changes nothing.
    Idempotent,
    /// Do not retry: a second request would take effect twice.
    NotIfOutcomeUnknown,
    /// Retry, and also treat 404 as "not visible yet".
    PollUntilVisible,
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
        let span = attempt_span(operation, tries);
        let ended = attempt().instrument(span.clone()).await;
        let failed = ended.as_ref().err();
        context
            .attempts
            .ended(operation, shared.clock.now(), failed);
        record_on_span(&span, context, failed);
        drop(span);
        let error = match ended {
            Ok(value) => {
                shared.health.record_success();
                let attempts = tries;
                return Ok(Completed { value, attempts });
            }
            Err(error) => error,
        };
        let left = end.since(shared.clock.monotonic());
        shared.record_failure(&error, operation, left);
        shared.fail_points.hit(FailPoint::AttemptFailed).await;
        may_exist |= matches!(error, AttemptError::OutcomeUnknown { .. });
        let now = shared.clock.now();
        let decision = shared.decide(repeat, tries, free, &error, left);
        let correlation_id = error.correlation_id().map(CorrelationId::as_str);
        debug!(%operation, tries, error = error.redacted(), correlation_id, ?decision, "attempt failed");
        match decision {
            RetryDecision::Backoff(wait) => {
                free.unpaid += u32::from(error.costs_no_retry());
                shared.pause(wait, context).await;
            }
            RetryDecision::Poll(wait) => {
                free.polls += 1;
                shared.pause(wait, context).await;
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

impl RetryContext {
    /// Records what a failed attempt says about the platform. `left` is the time until the deadline.
    fn record_failure(&self, error: &AttemptError, operation: Operation, left: Duration) {
        // Neither a local failure nor an expired deadline says anything about the platform.
        if !error.is_local() && !left.is_zero() {
            if error.counts_as_outage() {
                self.health.record_failure();
            } else {
                self.health.record_success();
            }
        }
        self.metrics.failed(error, operation);
    }

    /// Decides what follows a failed attempt: by the safety of a retry, the policy, and the retry
    /// budget, from which a retry that adds load withdraws.
    fn decide(
        &self,
        repeat: RetrySafety,
        tries: u32,
        free: FreeAttempts,
        error: &AttemptError,
        left: Duration,
    ) -> RetryDecision {
        let is_unknown = matches!(error, AttemptError::OutcomeUnknown { .. });
        if is_unknown && repeat == RetrySafety::NotIfOutcomeUnknown {
            return RetryDecision::Stop { wait: None };
        }
        match self
            .policy
            .should_retry(tries, free, error, left, fastrand::f64())
        {
            RetryDecision::Backoff(_)
                if !error.costs_no_retry() && self.budget.withdraw(1) == 0 =>
            {
                RetryDecision::Stop {
                    wait: error.retry_after(),
                }
            }
            decision => decision,
        }
    }

    async fn pause(&self, wait: Duration, context: &CallContext) {
        let _resting = self.health.backoff(context.priority);
        self.clock.sleep(wait).await;
    }
}

fn attempt_span(operation: Operation, tries: u32) -> Span {
    info_span!(
        target: trace_context::TARGET,
        "call",
        otel.name = operation.name(),
        otel.kind = "client",
        otel.status_code = Empty,
        guestlane.attempt = tries,
        http.response.status_code = Empty,
        guestlane.correlation_id = Empty,
        error.type = Empty,
    )
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
mod tests;
