//! Creating and resuming sessions: what happens before and around the saga.

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use guestlane_core::{
    audit::{AuditRecord, Status},
    request::{QueueId, SessionRequest},
    session::{Failure, SessionContext, SessionRecord, SurfaceBinding},
    surface::Surface,
    token::{GuestToken, TokenError, TokenIdentity},
};
use guestlane_genesys::{
    AttemptError, AttemptLog, CallContext, CallError, Priority, guest::frame::SessionToken,
};
use guestlane_runtime::{FailPoint, Timestamp, trace_context};
use guestlane_store::{BeginOutcome, StoreError};
use http::StatusCode;
use tracing::{Instrument, Span, field::Empty, info_span};

use super::SessionEngine;
use crate::{
    Error,
    error::SessionOutcome,
    messaging,
    saga::SagaRun,
    workspace::{new_guest_session, open_guest_session},
};

/// How often a caller polls a session whose lease another caller holds.
const WAIT_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A session that is open, and the token that vouches for its guest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedSession {
    /// The session record as it is stored.
    pub session: SessionRecord,
    /// The guest token that was sent to the platform.
    pub guest_token: GuestToken,
    /// The guest session token of the guest API, on the surface `web-messaging` only. With it and
    /// the deployment, a browser or app takes the session over.
    pub guest_session: Option<SessionToken>,
    /// Whether the session was open already, so that the result is a replay.
    pub replayed: bool,
}

impl SessionEngine {
    /// Creates a session, or returns the existing session of the same idempotency key.
    ///
    /// If the future is dropped before the session is admitted, nothing exists. If it is dropped
    /// later, [`Workers`](crate::Workers) complete the session after its lease has expired.
    ///
    /// # Errors
    /// The error says what exists on the platform, and whether the engine completes the session
    /// later.
    pub async fn create(&self, request: SessionRequest) -> Result<CreatedSession, Error> {
        self.create_with(request, Priority::Interactive, AttemptLog::default())
            .await
    }

    /// Creates a session like [`create`](Self::create), with a priority of its calls, and with a log
    /// of its attempts that the caller can watch. The log also names the trace of the caller.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub async fn create_with(
        &self,
        request: SessionRequest,
        priority: Priority,
        attempts: AttemptLog,
    ) -> Result<CreatedSession, Error> {
        let span = self.span("create session");
        let since = self.saga.clock.now();
        let run = SagaRun {
            since,
            call: CallContext {
                deadline: since + self.deadline,
                priority,
                attempts,
            },
        };
        let created = self.create_or_replay(request, &run).instrument(span).await;
        self.record_outcome(created)
    }

    async fn create_or_replay(
        &self,
        request: SessionRequest,
        run: &SagaRun,
    ) -> Result<CreatedSession, Error> {
        if let Err(invalid) = messaging::validate(&self.surface, &request)
            && self
                .saga
                .store
                .find_by_key(request.key.clone())
                .await?
                .is_none()
        {
            return Err(invalid.into()); // An existing session continues on the surface it began on.
        }
        self.check_organization(&run.call).await?;
        self.verify_queue(&request).await?;
        loop {
            match self.begin_session(&request, run).await? {
                BeginOutcome::Acquired(session) => match self.run_saga(session, run).await {
                    // Another process claimed the session after this lease expired. Loop to return
                    // the result of that process.
                    Err(Error::Store(StoreError::LeaseLost))
                        if self.saga.clock.now() < run.call.deadline => {}
                    ended => return ended,
                },
                BeginOutcome::AlreadyCompleted(session) => {
                    self.saga.keys.ensure_loaded(&session.token.kid).await;
                    return self.created(session, true);
                }
                BeginOutcome::InProgress(session) => {
                    self.wait_until_released(&session, run.call.deadline)
                        .await?
                }
                BeginOutcome::KeyReused(session) => {
                    return Err(key_reuse_error(&session, &request));
                }
                BeginOutcome::NeedsAttention(session) => {
                    return Err(Error::needs_attention(&session));
                }
            }
        }
    }

    /// Resumes an abandoned session until it is open or its failure is stored.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub async fn resume(&self, session: SessionRecord) -> Result<CreatedSession, Error> {
        self.resume_with(session, Priority::Interactive).await
    }

    pub(crate) async fn resume_with(
        &self,
        session: SessionRecord,
        priority: Priority,
    ) -> Result<CreatedSession, Error> {
        let span = self.span("resume session");
        trace_context::set_parent(&span, session.trace);
        let run = SagaRun {
            since: session.admitted_at,
            call: CallContext {
                deadline: self.saga.clock.now() + self.deadline,
                priority,
                attempts: AttemptLog::of(session.trace),
            },
        };
        let resumed = async {
            self.check_organization(&run.call).await?;
            self.run_saga(session, &run).await
        };
        let ended = resumed.instrument(span).await;
        self.record_outcome(ended)
    }

    /// Runs the saga in a future on the heap: it is large, and a caller's futures nest around it up to
    /// the compiler's limit of depth.
    fn run_saga<'a>(
        &'a self,
        session: SessionRecord,
        run: &'a SagaRun,
    ) -> BoxFuture<'a, Result<CreatedSession, Error>> {
        self.saga.run(session, run).boxed()
    }

    /// Checks that the queue exists (requirement R14, docs/requirements.md). No call is made if the
    /// cache has the queue, or if the idempotency key was admitted before. A failed lookup is
    /// recorded in the audit log.
    async fn verify_queue(&self, request: &SessionRequest) -> Result<(), Error> {
        if self.saga.queues.contains(request.queue) {
            return Ok(());
        }
        if self
            .saga
            .store
            .find_by_key(request.key.clone())
            .await?
            .is_some()
        {
            return Ok(());
        }
        match self.saga.queues.fetch(request.queue).await {
            Ok(()) => {
                self.saga.fail_points.hit(FailPoint::QueueLookedUp).await;
                Ok(())
            }
            Err(failed) => {
                let error = queue_error(request.queue, failed);
                let text = format!("{}: {}", error.code(), error.redacted());
                let entry = AuditRecord::refused(
                    &request.guest,
                    request.queue,
                    text,
                    self.saga.errors.totals(),
                    self.saga.clock.now(),
                );
                self.saga
                    .store
                    .record_refusal(entry, self.saga.errors.take())
                    .await?;
                self.saga.fail_points.hit(FailPoint::RefusalStored).await;
                Err(error)
            }
        }
    }

    /// Claims the idempotency key: stores a new session, or finds the existing one.
    ///
    /// If the audit file cannot be written, the attempt ends here, before anything is created. A
    /// session that may have succeeded on the platform before is still returned, so that it is not
    /// hidden.
    async fn begin_session(
        &self,
        request: &SessionRequest,
        run: &SagaRun,
    ) -> Result<BeginOutcome, Error> {
        let now = self.saga.clock.now();
        let identity = TokenIdentity::new(self.keyring().active(now).kid(), now);
        let context = self.session_context(request, run)?;
        let new = SessionRecord::new(request.clone(), context, identity, now);
        let admitted = self
            .saga
            .store
            .begin(new, self.saga.errors.totals())
            .await?;
        match (admitted.value, admitted.audit) {
            (BeginOutcome::Acquired(session), Err(error)) if !session.may_have_succeeded() => {
                let failure = Failure {
                    code: "audit_unavailable".to_owned(),
                    message: guestlane_runtime::text::display_chain(&*error),
                };
                let after = session.clone().refused(failure, 0, now)?;
                let transition = self
                    .saga
                    .transition(&session, after, Some(Status::Failed), run);
                self.saga.commit(transition).await?;
                Err(Error::Audit(error))
            }
            (admission, _) => {
                self.saga.fail_points.hit(FailPoint::Admitted).await;
                if let BeginOutcome::Acquired(session) | BeginOutcome::InProgress(session) =
                    &admission
                {
                    run.call.attempts.mark_admitted(session.id.0);
                }
                Ok(admission)
            }
        }
    }

    /// The surface of a new session, with what must be stored before its first call.
    fn session_context(
        &self,
        request: &SessionRequest,
        run: &SagaRun,
    ) -> Result<SessionContext, Error> {
        let way = match self.surface {
            Surface::Rest => SurfaceBinding::Rest,
            Surface::WebMessaging { deployment } => SurfaceBinding::WebMessaging {
                deployment,
                token: new_guest_session(&self.saga.master)?,
            },
            Surface::OpenMessaging { integration } => SurfaceBinding::OpenMessaging { integration },
        };
        let contact_without_identifier =
            self.surface.is_public_api() && self.saga.messaging.identifiers(request).is_empty();
        Ok(SessionContext {
            surface: way,
            contact_without_identifier,
            trace: run.call.attempts.parent(),
        })
    }

    /// Waits until the session is finished, or its lease expires.
    async fn wait_until_released(
        &self,
        session: &SessionRecord,
        deadline: Timestamp,
    ) -> Result<(), Error> {
        let mut held = session.clone();
        while held.state.is_unfinished() && held.is_blocked(self.saga.clock.now()) {
            if self.saga.clock.now() >= deadline {
                return Err(Error::InProgress {
                    session: held.id,
                    retry_at: held.blocked_until().unwrap_or(deadline),
                });
            }
            self.saga.clock.sleep(WAIT_POLL_INTERVAL).await;
            match self.saga.store.session(session.id).await? {
                Some(now) => held = now,
                None => break,
            }
        }
        Ok(())
    }

    fn span(&self, name: &'static str) -> Span {
        info_span!(
            target: trace_context::TARGET,
            "session",
            otel.name = name,
            otel.status_code = Empty,
            guestlane.surface = self.surface.name(),
            guestlane.session.id = Empty,
            guestlane.session.state = Empty,
            error.type = Empty,
        )
    }

    fn record_outcome(
        &self,
        ended: Result<CreatedSession, Error>,
    ) -> Result<CreatedSession, Error> {
        if let Err(error) = &ended {
            let diagnosis = (self.diagnose)(error).for_others();
            self.saga.metrics.failed(diagnosis, self.saga.clock.now());
        }
        ended
    }

    pub(crate) fn created(
        &self,
        session: SessionRecord,
        replayed: bool,
    ) -> Result<CreatedSession, Error> {
        let guest_token = self.sign_for(&session)?;
        let guest_session = open_guest_session(&self.saga.master, &session)?;
        Ok(CreatedSession {
            session,
            guest_token,
            guest_session,
            replayed,
        })
    }

    /// Returns the signed guest token of a session.
    ///
    /// # Errors
    /// Returns [`TokenError`] if the key ring cannot sign for the session's token identity.
    pub fn sign_for(&self, session: &SessionRecord) -> Result<GuestToken, TokenError> {
        self.saga.sign_for(session)
    }
}

fn key_reuse_error(known: &SessionRecord, request: &SessionRequest) -> Error {
    let fields = known.request.differences(request);
    Error::IdempotencyKeyReused {
        key: request.key.clone(),
        fields,
        session: known.id,
    }
}

fn queue_error(queue: QueueId, failed: CallError) -> Error {
    let refusal = failed.cause.refusal();
    let unknown = refusal.is_some_and(|refusal| {
        matches!(
            refusal.status,
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST
        )
    });
    let signed_in = !matches!(failed.cause, AttemptError::AuthenticationFailed(_));
    if unknown && signed_in {
        let correlation_id = failed.cause.correlation_id().cloned();
        return Error::UnknownQueue {
            queue,
            correlation_id,
        };
    }
    Error::Platform {
        session: None,
        then: SessionOutcome::NothingCreated,
        failed,
    }
}
