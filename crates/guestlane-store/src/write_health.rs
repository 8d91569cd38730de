//! Whether the store accepts writes: the result of the last commit, for readiness and metrics.

use std::sync::{Arc, Mutex, PoisonError};

use guestlane_runtime::Timestamp;

use super::StoreError;

/// The result of the last commit. It is cheap to clone, and all clones share one value.
#[derive(Debug, Clone, Default)]
pub(crate) struct WriteHealth(Arc<Mutex<LastWrites>>);

/// The results of the last commits, by the monotonic clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LastWrites {
    /// When the last commit succeeded.
    pub succeeded_at: Option<Timestamp>,
    /// When the first commit after that failed.
    pub failing_since: Option<Timestamp>,
}

impl WriteHealth {
    pub(crate) fn succeeded(&self, now: Timestamp) {
        *self.lock() = LastWrites {
            succeeded_at: Some(now),
            failing_since: None,
        };
    }

    /// Records a failed commit, unless its cause is the row: one malformed row must not make a node
    /// unready.
    pub(crate) fn failed(&self, error: &StoreError, now: Timestamp) {
        if is_of_the_storage(error) {
            self.lock().failing_since.get_or_insert(now);
        }
    }

    /// Records that the audit log's files are behind. No session is created then either.
    pub(crate) fn audit_failed(&self, now: Timestamp) {
        self.lock().failing_since.get_or_insert(now);
    }

    pub(crate) fn last(&self) -> LastWrites {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LastWrites> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the next commit would fail too: no space, no privilege, no connection, or another
/// format.
///
/// PostgreSQL's error classes (Appendix A of its manual): 53 insufficient resources, 57 operator
/// intervention, 58 system error, XX internal error; 25006 read-only transaction, 42501
/// insufficient privilege.
fn is_of_the_storage(error: &StoreError) -> bool {
    match error {
        StoreError::Postgres {
            code: Some(code), ..
        } => {
            let code = code.as_str();
            ["53", "57", "58", "XX"]
                .iter()
                .any(|class| code.starts_with(class))
                || code == "25006"
                || code == "42501"
        }
        StoreError::LeaseLost | StoreError::Row(_) | StoreError::IllegalTransition(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_micros(seconds * 1_000_000)
    }

    fn postgres(code: &str) -> StoreError {
        StoreError::Postgres {
            message: String::new(),
            code: Some(code.to_owned()),
            lost: false,
        }
    }

    #[test]
    fn writes_fail_from_first_failure_until_next_success() {
        let health = WriteHealth::default();
        health.succeeded(at(1));
        health.failed(&postgres("53100"), at(2));
        health.failed(&postgres("53100"), at(3));
        assert_eq!(
            health.last(),
            LastWrites {
                succeeded_at: Some(at(1)),
                failing_since: Some(at(2))
            }
        );
        health.succeeded(at(4));
        assert_eq!(
            health.last(),
            LastWrites {
                succeeded_at: Some(at(4)),
                failing_since: None
            }
        );
    }

    #[test]
    fn rejected_row_does_not_mark_the_storage_as_failing() {
        let health = WriteHealth::default();
        health.failed(&postgres("22P05"), at(1));
        health.failed(&StoreError::LeaseLost, at(1));
        assert_eq!(health.last().failing_since, None);
        health.failed(&postgres("25006"), at(1));
        assert_eq!(health.last().failing_since, Some(at(1)));
    }
}
