//! The executor of the saga: runs the steps of a session in order and commits each transition.

use std::sync::Arc;

use guestlane_core::{
    audit::{AuditRecord, Status},
    event::Event,
    session::{
        SessionId, SessionRecord, SessionState, SurfaceBinding,
        plan::{Step, next_step},
    },
    token::{GuestToken, MasterKey, TokenIdentity},
};
use guestlane_genesys::{CallContext, GenesysClient, PlatformId};
use guestlane_runtime::{Clock, FailPoint, FailPoints, Timestamp, trace_context};
use guestlane_store::{CommitRequest, CommitResult, RecordFilter, Store, StoreError};
use tokio::sync::broadcast;
use tracing::{Instrument, Span, field::Empty, info_span};

use super::step_error::StepError;
use crate::{
    Error,
    engine::{CreatedSession, queues::QueueCache},
    keyring_cache::KeyringCache,
    lease_registry::LeaseRegistry,
    messaging::MessagingConfig,
    metrics::{ErrorCounters, SessionMetrics},
    outbox::Outbox,
    workspace::open_guest_session,
};

/// Runs sagas. One executor serves all sessions of a process.
#[derive(Debug)]
pub(crate) struct SagaExecutor {
    pub(crate) clock: Clock,
    pub(crate) platform: Arc<GenesysClient>,
    pub(crate) queues: QueueCache,
    pub(crate) messaging: MessagingConfig,
    pub(crate) store: Store,
    pub(crate) master: Arc<MasterKey>,
    pub(crate) keys: KeyringCache,
    pub(crate) outbox: Option<Outbox>,
    pub(crate) leases: LeaseRegistry,
    pub(crate) errors: ErrorCounters,
    pub(crate) metrics: SessionMetrics,
    pub(crate) changes: broadcast::Sender<Arc<SessionRecord>>,
    pub(crate) fail_points: FailPoints,
}

/// One run of a saga.
#[derive(Debug)]
pub(crate) struct SagaRun {
    /// From when the latency of the session counts.
    pub(crate) since: Timestamp,
    /// The context of the calls.
    pub(crate) call: CallContext,
}

impl SagaExecutor {
    /// Runs the saga of a session whose lease this process holds, until the session is open or a
    /// step has failed. The result of each step is stored before the next one begins.
    pub(crate) async fn run(
        &self,
        mut session: SessionRecord,
        run: &SagaRun,
    ) -> Result<CreatedSession, Error> {
        let _lease = self.leases.start(session.id, session.epoch);
        if session.is_past_idempotency_window(self.clock.now()) {
            return Err(self.mark_needs_attention(session, run).await?);
        }
        self.keys.ensure_loaded(&session.token.kid).await;
        let mut signed: Option<(TokenIdentity, GuestToken)> = None;
        loop {
            // The token is renewed before the platform rejects it, where that is safe. On the
            // public surfaces, no idempotency key is sent with the token. On `rest`, the platform
            // cannot have stored the key with the old token unless the outcome of a call is
            // unknown.
            let may_renew =
                session.surface_binding != SurfaceBinding::Rest || !session.outcome_unknown;
            let revoked = self.keys.ring().is_revoked(&session.token.kid);
            if may_renew
                && session.message_id.is_none()
                && (revoked || session.token.is_expired_at(self.clock.now()))
            {
                session = self.reissue_guest_token(session, 0, run).await?;
            }
            // One signature serves all steps: signing is most of the processor time of a session.
            let token = match signed.take_if(|(identity, _)| *identity == session.token) {
                Some((_, token)) => token,
                None => self.sign(&session, run).await?,
            };
            let identity = session.token.clone();
            session = match self.run_step(&session, &token, run).await {
                Ok(transition) => self.commit(transition).await?,
                Err(failed)
                    if failed.is_of_expired_token()
                        && !token_is_fresh(&session, self.clock.now()) =>
                {
                    self.reissue_guest_token(session, failed.tries(), run)
                        .await?
                }
                // A revoked key is no longer known to the platform, so the token must be signed
                // with another. This cannot make a duplicate: a platform that knows the idempotency
                // key does not look at the token.
                Err(failed)
                    if failed.is_of_guest_token()
                        && self.keys.ring().is_revoked(&session.token.kid) =>
                {
                    self.reissue_guest_token(session, failed.tries(), run)
                        .await?
                }
                Err(failed) => return Err(self.record_failure(session, failed, run).await?),
            };
            if session.state == SessionState::Open {
                let guest_session = open_guest_session(&self.master, &session)?;
                return Ok(CreatedSession {
                    session,
                    guest_token: token,
                    guest_session,
                    replayed: false,
                });
            }
            signed = Some((identity, token));
        }
    }

    /// Runs the next step of the saga, and returns the transition to commit.
    async fn run_step(
        &self,
        session: &SessionRecord,
        token: &GuestToken,
        run: &SagaRun,
    ) -> Result<CommitRequest, StepError> {
        match next_step(session).ok_or(StoreError::Row("state"))? {
            Step::RegisterContact => self.register_contact(session, token, run).await,
            Step::OpenConversation => self.open_conversation(session, token, run).await,
            Step::UpsertContact => self.upsert_contact(session, run).await,
            Step::SendGuestMessage { deployment } => {
                self.send_guest_message(session, deployment, token, run)
                    .await
            }
            Step::SendInboundMessage { integration } => {
                self.send_inbound_message(session, integration, token, run)
                    .await
            }
            Step::FindConversation { message } => {
                self.find_conversation(session, message, run).await
            }
            Step::LinkAndRoute { conversation } => {
                self.link_and_route(session, conversation, run).await
            }
        }
    }

    /// Returns the last transition, with the audit record «success» and the outbox events.
    pub(super) fn complete(
        &self,
        session: &SessionRecord,
        conversation_id: PlatformId,
        tries: u32,
        run: &SagaRun,
    ) -> Result<CommitRequest, StepError> {
        let now = self.clock.now();
        let after = session
            .clone()
            .completed(conversation_id, tries, run.since, now)?;
        let endpoints = self.outbox.iter().flat_map(Outbox::endpoint_numbers);
        let events = endpoints
            .map(|endpoint| Event::session_created(&after, endpoint, now))
            .collect();
        Ok(CommitRequest {
            events,
            ..self.transition(session, after, Some(Status::Success), run)
        })
    }

    /// Returns the transition from `before` to `after`, with an audit record if there is a `status`,
    /// and the attempts and errors that no transition has stored yet.
    pub(crate) fn transition(
        &self,
        before: &SessionRecord,
        after: SessionRecord,
        status: Option<Status>,
        run: &SagaRun,
    ) -> CommitRequest {
        let audit = status.map(|status| {
            AuditRecord::for_session(&after, status, self.errors.totals(), self.clock.now())
        });
        CommitRequest {
            epoch: before.epoch,
            after,
            audit,
            events: Vec::new(),
            errors: self.errors.take(),
            calls: run.call.attempts.drain(),
        }
    }

    /// Commits a transition and returns the session as stored.
    ///
    /// An audit file that lags behind loses nothing, because the store has the audit record.
    pub(crate) async fn commit(&self, transition: CommitRequest) -> Result<SessionRecord, Error> {
        let span = info_span!(
            target: trace_context::TARGET,
            "commit",
            guestlane.session.state = transition.after.state.name(),
            guestlane.audit.log = Empty,
            guestlane.audit.index = Empty,
        );
        let (id, audited) = (transition.after.id, transition.audit.is_some());
        let CommitResult { session, first } = self
            .store
            .commit_transition(transition)
            .instrument(span.clone())
            .await?
            .value;
        if audited && !span.is_disabled() {
            self.record_audit_position(&span, id).await;
        }
        if let Some(fail_point) = fail_point_after(&session) {
            self.fail_points.hit(fail_point).await;
        }
        self.publish(&session);
        if let Some(outbox) = &self.outbox {
            first
                .into_iter()
                .for_each(|event| outbox.dispatch_now(event));
        }
        Ok(session)
    }

    /// Records in the span which audit record belongs to the session's transition.
    async fn record_audit_position(&self, span: &Span, session: SessionId) {
        let filter = RecordFilter {
            session: Some(session),
            guest: None,
            limit: 1,
        };
        if let Some(record) = self
            .store
            .records(filter)
            .await
            .ok()
            .and_then(|records| records.into_iter().last())
        {
            span.record("guestlane.audit.log", record.log);
            span.record("guestlane.audit.index", record.index);
        }
    }

    /// Counts the result of a session in the metrics, and publishes it to the subscribers.
    fn publish(&self, session: &SessionRecord) {
        let span = Span::current();
        span.record("guestlane.session.id", tracing::field::display(session.id));
        span.record("guestlane.session.state", session.state.name());
        if let Some(failure) = &session.failure {
            span.record("error.type", &failure.code);
            span.record("otel.status_code", "ERROR");
        }
        if session.state == SessionState::Open {
            self.metrics.opened(session);
        } else if session.failure.is_none() {
            return;
        }
        if self.changes.receiver_count() > 0 {
            let _ = self.changes.send(Arc::new(session.clone()));
        }
    }
}

/// Returns the fail point that follows the commit of a session in this state.
fn fail_point_after(session: &SessionRecord) -> Option<FailPoint> {
    match session.state {
        SessionState::Open => Some(FailPoint::OpenStored),
        SessionState::NeedsAttention => Some(FailPoint::NeedsAttentionStored),
        SessionState::Failed | SessionState::Parked => Some(FailPoint::FailureStored),
        SessionState::Admitted
        | SessionState::ContactReady
        | SessionState::MessageSent
        | SessionState::ConversationFound
            if session.failure.is_some() =>
        {
            Some(FailPoint::FailureStored)
        }
        SessionState::ConversationFound => Some(FailPoint::ConversationStored),
        SessionState::MessageSent => Some(FailPoint::MessageStored),
        SessionState::ContactReady => Some(FailPoint::ContactStored),
        // Only a reissued token commits in this state, and that has its own fail point.
        SessionState::Admitted => None,
    }
}

/// Whether the token was issued less than 60 s ago by the local clock. If the platform rejects such
/// a token as expired, the clocks differ, and another fresh token would be rejected too.
fn token_is_fresh(session: &SessionRecord, now: Timestamp) -> bool {
    now.unix_seconds() - session.token.issued_at < 60
}
