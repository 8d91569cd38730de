//! Tests of `retry`.

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
    let decision =
        RetryPolicy::default().should_retry(1, NONE, &throttled(90), Duration::from_secs(60), 0.0);
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
