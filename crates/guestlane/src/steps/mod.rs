//! The steps of the saga: the call that each sends, and the transition that it commits.

mod arranging;
mod gateway;
mod public_api;

use std::sync::Arc;

use guestlane_genesys::{AttemptError, AttemptLog, CallError, Category, PlatformId};
use guestlane_runtime::{FailPoint, Timestamp, trace_context};
use tracing::{Instrument, Span, field::Empty, info_span};

use crate::{
    engine::SessionEngine, error::Error, executor::CreatedSession, workspace::open_guest_session,
};
use guestlane_core::{
    audit::{AuditRecord, Status},
    session::{Failure, IllegalTransition, SessionId, SessionRecord, SessionState, SurfaceBinding},
    token::{self, GuestToken, MasterKeyError, TokenIdentity},
};
use guestlane_store::{CommitRequest, CommitResult, RecordFilter, StoreError};

/// Why a step failed.
pub(crate) enum StepError {
    /// The platform call failed after its retries.
    Call(CallError),
    /// A store operation failed.
    Store(StoreError),
    /// The guest session token cannot be decrypted.
    MasterKey(MasterKeyError),
    /// A transition that the state table does not allow, which is a defect in this product.
    Transition(IllegalTransition),
}

impl StepError {
    pub(crate) fn tries(&self) -> u32 {
        match self {
            Self::Call(failed) => failed.tries,
            Self::Store(_) | Self::MasterKey(_) | Self::Transition(_) => 0,
        }
    }

    /// Whether the platform refused the guest token, for any reason.
    pub(crate) fn is_of_guest_token(&self) -> bool {
        match self {
            Self::Call(failed) => {
                matches!(&failed.cause, AttemptError::Rejected(refusal) if refusal.is_guest_token())
            }
            Self::Store(_) | Self::MasterKey(_) | Self::Transition(_) => false,
        }
    }

    /// Whether the platform refused the guest token as expired.
    pub(crate) fn is_of_expired_token(&self) -> bool {
        match self {
            Self::Call(failed) => {
                matches!(&failed.cause, AttemptError::Rejected(refusal) if refusal.is_expired_guest_token())
            }
            Self::Store(_) | Self::MasterKey(_) | Self::Transition(_) => false,
        }
    }
}

impl From<CallError> for StepError {
    fn from(failed: CallError) -> Self {
        Self::Call(failed)
    }
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<IllegalTransition> for StepError {
    fn from(illegal: IllegalTransition) -> Self {
        Self::Transition(illegal)
    }
}

impl SessionEngine {
    /// Runs the next step of the saga, and returns the transition to commit.
    pub(crate) async fn next_step(
        &self,
        session: &SessionRecord,
        token: &GuestToken,
        since: Timestamp,
        deadline: Timestamp,
    ) -> Result<CommitRequest, StepError> {
        let has_contact = session.state != SessionState::Admitted;
        match (
            &session.surface_binding,
            &session.message_id,
            &session.conversation_id,
        ) {
            (SurfaceBinding::Rest, ..) if has_contact => {
                self.open_conversation(session, token, since, deadline)
                    .await
            }
            (SurfaceBinding::Rest, ..) => self.create_contact(session, token, deadline).await,
            (
                SurfaceBinding::WebMessaging { .. } | SurfaceBinding::OpenMessaging { .. },
                message,
                conversation,
            ) => match (message, conversation) {
                _ if !has_contact => self.upsert_contact(session, deadline).await,
                (None, _) => self.send_first_message(session, token, deadline).await,
                (Some(message), None) => self.find_conversation(session, message, deadline).await,
                (Some(_), Some(conversation)) => {
                    self.link_and_route(session, conversation, since, deadline)
                        .await
                }
            },
        }
    }

    /// Returns the last transition, with the audit record «success» and the outbox events.
    fn complete(
        &self,
        session: &SessionRecord,
        conversation_id: PlatformId,
        tries: u32,
        since: Timestamp,
    ) -> Result<CommitRequest, StepError> {
        let now = self.clock.now();
        let after = session
            .clone()
            .completed(conversation_id, tries, since, now)?;
        let events = self
            .outbox
            .as_ref()
            .map(|outbox| outbox.session_created(&after, now))
            .unwrap_or_default();
        Ok(CommitRequest {
            events,
            ..self.transition(session, after, Some(Status::Success))
        })
    }

    pub(crate) fn transition(
        &self,
        before: &SessionRecord,
        after: SessionRecord,
        status: Option<Status>,
    ) -> CommitRequest {
        let audit = status.map(|status| {
            AuditRecord::for_session(&after, status, self.errors.totals(), self.clock.now())
        });
        let calls = AttemptLog::current()
            .map(|trail| trail.drain())
            .unwrap_or_default();
        CommitRequest {
            before: before.clone(),
            after,
            audit,
            events: Vec::new(),
            errors: self.errors.take(),
            calls,
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
            self.record_admission(&span, id).await;
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
    async fn record_admission(&self, span: &Span, session: SessionId) {
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
            self.figures.opened(session);
        } else if session.failure.is_none() {
            return;
        }
        if self.news.receiver_count() > 0 {
            let _ = self.news.send(Arc::new(session.clone()));
        }
    }

    /// Signs the guest token, for the first time or again.
    ///
    /// The same identity gives the same bytes. The platform refuses a repeated key with a different
    /// body.
    pub(crate) async fn sign(&self, session: &SessionRecord) -> Result<GuestToken, Error> {
        match self.sign_for(session) {
            Ok(token) => Ok(token),
            Err(error) => {
                self.platform.stats().count(Category::TokenValidation);
                let failure = Failure {
                    code: "token_validation".to_owned(),
                    message: error.to_string(),
                };
                let after = session.clone().backed_off(failure, 0, self.clock.now())?;
                self.commit(self.transition(session, after, Some(Status::Failed)))
                    .await?;
                Err(error.into())
            }
        }
    }

    /// Returns the signed guest token of a session.
    ///
    /// # Errors
    /// Returns [`token::TokenError`] if the key ring cannot sign for the session's token identity.
    pub fn sign_for(&self, session: &SessionRecord) -> Result<GuestToken, token::TokenError> {
        self.keyring().sign(
            &session.request.guest,
            &session.request.attributes,
            &session.token,
        )
    }

    pub(crate) fn created(
        &self,
        session: SessionRecord,
        replayed: bool,
    ) -> Result<CreatedSession, Error> {
        let guest_token = self.sign_for(&session)?;
        let guest_session = open_guest_session(&self.master, &session)?;
        Ok(CreatedSession {
            session,
            guest_token,
            guest_session,
            replayed,
        })
    }

    /// Replaces the guest token by a fresh one, signed with the signing key that is active now.
    ///
    /// This is safe only if the platform has not taken the platform key with the old token: it
    /// refused that token, or never received it.
    pub(crate) async fn reissue_guest_token(
        &self,
        session: SessionRecord,
        tries: u32,
    ) -> Result<SessionRecord, Error> {
        let now = self.clock.now();
        let identity = TokenIdentity::new(self.keyring().active(now).kid(), now);
        let after = session.clone().token_renewed(identity, tries, now)?;
        let renewed = self.commit(self.transition(&session, after, None)).await?;
        self.fail_points.hit(FailPoint::TokenRenewed).await;
        Ok(renewed)
    }
}

/// Returns the fail point that follows the commit of a session in this state.
fn fail_point_after(session: &SessionRecord) -> Option<FailPoint> {
    match session.state {
        SessionState::Open => Some(FailPoint::OpenStored),
        SessionState::NeedsAttention => Some(FailPoint::SetAside),
        SessionState::Failed | SessionState::Parked => Some(FailPoint::FailureStored),
        SessionState::Admitted | SessionState::ContactCreated if session.failure.is_some() => {
            Some(FailPoint::FailureStored)
        }
        SessionState::ContactCreated if session.conversation_id.is_some() => {
            Some(FailPoint::ConversationStored)
        }
        SessionState::ContactCreated if session.message_id.is_some() => {
            Some(FailPoint::MessageStored)
        }
        SessionState::ContactCreated => Some(FailPoint::ContactStored),
        // Only a reissued token commits in this state, and that has its own fail point.
        SessionState::Admitted => None,
    }
}
