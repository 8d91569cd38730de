//! Attempt log of a session, and the trace context on whose behalf its calls are made.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    error::{AttemptError, Operation},
    foreign::CorrelationId,
};
use guestlane_runtime::{Timestamp, TraceParent};

/// One attempt at a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When the request was sent, or when the attempt failed without sending it.
    pub at: Timestamp,
    /// The operation.
    pub operation: Operation,
    /// Time from sending to the response, or to the end of waiting for it.
    pub took: Duration,
    /// The HTTP status of the response, if there was one.
    pub status: Option<u16>,
    /// Why the attempt failed, in a form that may be stored.
    pub failure: Option<String>,
    /// The platform's correlation ID, to quote to its support.
    pub correlation_id: Option<CorrelationId>,
}

/// The attempts of one session, and whether the session is in the store. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct AttemptLog(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    admitted: watch::Sender<Option<Uuid>>,
    parent: Option<TraceParent>,
    sent: Option<Sent>,
    attempts: Vec<Attempt>,
}

/// What is known of an attempt while it is in flight.
#[derive(Debug, Clone, Default)]
struct Sent {
    at: Timestamp,
    status: Option<u16>,
    correlation_id: Option<CorrelationId>,
}

impl AttemptLog {
    /// Maximum number of attempts kept; the oldest are dropped.
    const CAPACITY: usize = 32;

    /// Creates an attempt log for a session that belongs to the given trace.
    pub fn of(parent: Option<TraceParent>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            parent,
            ..Inner::default()
        })))
    }

    /// Returns the trace of the session.
    pub fn parent(&self) -> Option<TraceParent> {
        self.inner().parent
    }

    /// Marks the session as stored under this ID.
    pub fn mark_admitted(&self, session: Uuid) {
        self.inner().admitted.send_replace(Some(session));
    }

    /// Returns a receiver that is notified once the session is stored.
    pub fn admitted(&self) -> watch::Receiver<Option<Uuid>> {
        self.inner().admitted.subscribe()
    }

    /// Returns the attempts since the last call and removes them.
    pub fn drain(&self) -> Vec<Attempt> {
        std::mem::take(&mut self.inner().attempts)
    }

    /// Returns the last attempt that was not drained yet.
    pub(crate) fn last(&self) -> Option<Attempt> {
        self.inner().attempts.last().cloned()
    }

    /// Records that a request is being sent.
    pub(crate) fn sent(&self, at: Timestamp) {
        self.inner().sent = Some(Sent {
            at,
            ..Sent::default()
        });
    }

    /// Records that the response arrived.
    pub(crate) fn answered(&self, status: u16, correlation_id: Option<CorrelationId>) {
        if let Some(sent) = &mut self.inner().sent {
            (sent.status, sent.correlation_id) = (Some(status), correlation_id);
        }
    }

    /// Records the end of an attempt.
    pub(crate) fn ended(&self, operation: Operation, now: Timestamp, error: Option<&AttemptError>) {
        let mut inner = self.inner();
        let sent = inner.sent.take();
        if inner.attempts.len() == Self::CAPACITY {
            inner.attempts.remove(0);
        }
        let at = sent.as_ref().map_or(now, |sent| sent.at);
        let (status, correlation_id) = sent
            .map(|sent| (sent.status, sent.correlation_id))
            .unwrap_or_default();
        let correlation_id = correlation_id.or_else(|| error?.correlation_id().cloned());
        let failure = error.map(AttemptError::redacted);
        inner.attempts.push(Attempt {
            at,
            operation,
            took: now.since(at),
            status,
            failure,
            correlation_id,
        });
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempt_log_keeps_the_last_attempts() {
        let log = AttemptLog::default();
        let at = |second: i64| Timestamp::from_unix_micros(second * 1_000_000);
        for second in 0..40 {
            log.sent(at(second));
            log.answered(200, CorrelationId::new(&format!("c-{second}")));
            log.ended(Operation::Contact, at(second + 1), None);
        }
        log.ended(
            Operation::Queue,
            at(50),
            Some(&AttemptError::RateLimitTimeout),
        );
        let attempts = log.drain();
        assert_eq!(
            (attempts.len(), log.drain().len()),
            (AttemptLog::CAPACITY, 0)
        );
        let [.., contact, queue] = attempts.as_slice() else {
            panic!()
        };
        assert_eq!(
            (
                contact.status,
                contact.correlation_id.as_deref(),
                contact.took.as_secs()
            ),
            (Some(200), Some("c-39"), 1)
        );
        assert_eq!(
            (queue.status, queue.at, queue.failure.is_some()),
            (None, at(50), true)
        );
    }
}
