//! The steps of a session: what each sends, and what it writes.

mod arranging;
mod cloud;
mod rest;

use std::sync::Arc;

use guestlane_genesys::{CallError, CallFailed, Category, PlatformId, Seam, Timestamp, Trail, trace};
use tracing::{Instrument, Span, field::Empty, info_span};

use crate::{
    audit::{Entry, Status},
    error::Error,
    lane::Lane,
    ledger::{Failure, IllegalMove, Session, SessionId, State, Way},
    orchestrator::Opened,
    state::open_guest_session,
    store::{Advanced, RecordFilter, StoreError, Transition},
    token::{self, GuestToken, MasterKeyError, TokenIdentity},
};

/// A step did not end well.
pub(crate) enum StepFailed {
    /// The call was given up.
    Call(CallFailed),
    /// The store could not be asked.
    Store(StoreError),
    /// The guest's session cannot be opened.
    MasterKey(MasterKeyError),
    /// A defect of ours.
    Move(IllegalMove),
}

impl StepFailed {
    pub(crate) fn tries(&self) -> u32 {
        match self {
            Self::Call(failed) => failed.tries,
            Self::Store(_) | Self::MasterKey(_) | Self::Move(_) => 0,
        }
    }

    /// The platform refused the guest token, for whatever is wrong with it.
    pub(crate) fn is_of_guest_token(&self) -> bool {
        match self {
            Self::Call(failed) => matches!(&failed.cause, CallError::Refused(refusal) if refusal.is_guest_token()),
            Self::Store(_) | Self::MasterKey(_) | Self::Move(_) => false,
        }
    }

    /// The platform refused the guest token as expired.
    pub(crate) fn is_of_expired_token(&self) -> bool {
        match self {
            Self::Call(failed) => matches!(&failed.cause, CallError::Refused(refusal) if refusal.is_expired_guest_token()),
            Self::Store(_) | Self::MasterKey(_) | Self::Move(_) => false,
        }
    }
}

impl From<CallFailed> for StepFailed {
    fn from(failed: CallFailed) -> Self {
        Self::Call(failed)
    }
}

impl From<StoreError> for StepFailed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<IllegalMove> for StepFailed {
    fn from(illegal: IllegalMove) -> Self {
        Self::Move(illegal)
    }
}

impl Lane {
    /// The next step of a session, and what it writes.
    pub(crate) async fn next_step(
        &self,
        session: &Session,
        token: &GuestToken,
        since: Timestamp,
        deadline: Timestamp,
    ) -> Result<Transition, StepFailed> {
        let has_contact = session.state != State::Admitted;
        match (&session.way, &session.message_id, &session.conversation_id) {
            (Way::Rest, ..) if has_contact => self.open_conversation(session, token, since, deadline).await,
            (Way::Rest, ..) => self.create_contact(session, token, deadline).await,
            (Way::WebMessaging { .. } | Way::OpenMessaging { .. }, message, conversation) => match (message, conversation) {
                _ if !has_contact => self.find_or_make_contact(session, deadline).await,
                (None, _) => self.send_first_message(session, token, deadline).await,
                (Some(message), None) => self.find_conversation(session, message, deadline).await,
                (Some(_), Some(conversation)) => self.arrange(session, conversation, since, deadline).await,
            },
        }
    }

    /// The last transition: it carries the audit record «success» and the CRM's event.
    fn now_open(
        &self,
        session: &Session,
        conversation_id: PlatformId,
        tries: u32,
        since: Timestamp,
    ) -> Result<Transition, StepFailed> {
        let now = self.clock.now();
        let after = session.clone().opened(conversation_id, tries, since, now)?;
        let events = self.outbox.as_ref().map(|outbox| outbox.session_created(&after, now)).unwrap_or_default();
        Ok(Transition { events, ..self.transition(session, after, Some(Status::Success)) })
    }

    pub(crate) fn transition(&self, before: &Session, after: Session, status: Option<Status>) -> Transition {
        let audit = status.map(|status| Entry::of(&after, status, self.errors.totals(), self.clock.now()));
        let calls = Trail::current().map(|trail| trail.take()).unwrap_or_default();
        Transition { before: before.clone(), after, audit, events: Vec::new(), errors: self.errors.take(), calls }
    }

    /// The session as it is from now on. An audit file that lags behind hides nothing: the record is in the store.
    pub(crate) async fn commit(&self, transition: Transition) -> Result<Session, Error> {
        let span = info_span!(
            target: trace::TARGET,
            "commit",
            guestlane.session.state = transition.after.state.name(),
            guestlane.audit.log = Empty,
            guestlane.audit.index = Empty,
        );
        let (id, audited) = (transition.after.id, transition.audit.is_some());
        let Advanced { session, first } = self.store.advance(transition).instrument(span.clone()).await?.value;
        if audited && !span.is_disabled() {
            self.tell_record(&span, id).await;
        }
        if let Some(seam) = seam_after(&session) {
            self.seams.pass(seam).await;
        }
        self.tell(&session);
        if let Some(outbox) = &self.outbox {
            first.into_iter().for_each(|event| outbox.send_soon(event));
        }
        Ok(session)
    }

    /// Which record of the audit log says it.
    async fn tell_record(&self, span: &Span, session: SessionId) {
        let filter = RecordFilter { session: Some(session), guest: None, limit: 1 };
        if let Some(record) = self.store.records(filter).await.ok().and_then(|records| records.into_iter().last()) {
            span.record("guestlane.audit.log", record.log);
            span.record("guestlane.audit.index", record.index);
        }
    }

    /// Counts what became of a session, and tells those who watch.
    fn tell(&self, session: &Session) {
        let span = Span::current();
        span.record("guestlane.session.id", tracing::field::display(session.id));
        span.record("guestlane.session.state", session.state.name());
        if let Some(failure) = &session.failure {
            span.record("error.type", &failure.code);
            span.record("otel.status_code", "ERROR");
        }
        if session.state == State::Open {
            self.figures.opened(session);
        } else if session.failure.is_none() {
            return;
        }
        if self.news.receiver_count() > 0 {
            let _ = self.news.send(Arc::new(session.clone()));
        }
    }

    /// Signs, or signs again: the same identity gives the same bytes, and the platform refuses a key that comes back with others.
    pub(crate) async fn sign(&self, session: &Session) -> Result<GuestToken, Error> {
        match self.sign_for(session) {
            Ok(token) => Ok(token),
            Err(error) => {
                self.platform.stats().count(Category::TokenValidation);
                let failure = Failure { code: "token_validation".to_owned(), message: error.to_string() };
                let after = session.clone().gave_up(failure, 0, self.clock.now())?;
                self.commit(self.transition(session, after, Some(Status::Failed))).await?;
                Err(error.into())
            }
        }
    }

    /// The token that a session's guest is vouched for by.
    pub fn sign_for(&self, session: &Session) -> Result<GuestToken, token::TokenError> {
        self.keyring().sign(&session.request.guest, &session.request.attributes, &session.token)
    }

    pub(crate) fn opened(&self, session: Session, replayed: bool) -> Result<Opened, Error> {
        let guest_token = self.sign_for(&session)?;
        let guest_session = open_guest_session(&self.master, &session)?;
        Ok(Opened { session, guest_token, guest_session, replayed })
    }

    /// The platform has not taken the key with this token (it refused it, or never saw it): a fresh one, by the key that is active now, may go
    /// under it.
    pub(crate) async fn renew_token(&self, session: Session, tries: u32) -> Result<Session, Error> {
        let now = self.clock.now();
        let identity = TokenIdentity::new(self.keyring().active(now).kid(), now);
        let after = session.clone().token_renewed(identity, tries, now)?;
        let renewed = self.commit(self.transition(&session, after, None)).await?;
        self.seams.pass(Seam::TokenRenewed).await;
        Ok(renewed)
    }
}

/// Where the process may die once a session stands in the ledger as it is.
fn seam_after(session: &Session) -> Option<Seam> {
    match session.state {
        State::Open => Some(Seam::OpenStored),
        State::NeedsAttention => Some(Seam::SetAside),
        State::Failed | State::Parked => Some(Seam::FailureStored),
        State::Admitted | State::ContactCreated if session.failure.is_some() => Some(Seam::FailureStored),
        State::ContactCreated if session.conversation_id.is_some() => Some(Seam::ConversationStored),
        State::ContactCreated if session.message_id.is_some() => Some(Seam::MessageStored),
        State::ContactCreated => Some(Seam::ContactStored),
        State::Admitted => None, // its token was renewed, and that has a seam of its own
    }
}
