//! The steps of a session: what each sends, and what it writes.

use guestlane_genesys::{CallError, CallFailed, Category, NewContact, NewConversation, Timestamp};

use crate::{
    audit::{Entry, Status},
    error::Error,
    lane::Lane,
    ledger::{Failure, IllegalMove, Session},
    orchestrator::Opened,
    outbox::Event,
    store::Transition,
    token::{self, GuestToken, TokenIdentity},
};

/// A step did not end well.
pub(crate) enum StepFailed {
    /// The call was given up.
    Call(CallFailed),
    /// A defect of ours.
    Move(IllegalMove),
}

impl StepFailed {
    pub(crate) fn tries(&self) -> u32 {
        match self {
            Self::Call(failed) => failed.tries,
            Self::Move(_) => 0,
        }
    }

    /// The platform refused the guest token as expired.
    pub(crate) fn is_of_expired_token(&self) -> bool {
        match self {
            Self::Call(failed) => matches!(&failed.cause, CallError::Refused(refusal) if refusal.is_expired_guest_token()),
            Self::Move(_) => false,
        }
    }
}

impl From<CallFailed> for StepFailed {
    fn from(failed: CallFailed) -> Self {
        Self::Call(failed)
    }
}

impl From<IllegalMove> for StepFailed {
    fn from(illegal: IllegalMove) -> Self {
        Self::Move(illegal)
    }
}

impl Lane {
    /// Step A (R4).
    pub(crate) async fn create_contact(
        &self,
        session: &Session,
        token: &GuestToken,
        deadline: Timestamp,
    ) -> Result<Transition, StepFailed> {
        let request = &session.request;
        let contact = NewContact::new(request.guest.as_str(), token.expose(), request.attributes.as_map());
        let key = format!("{}-contact", request.key.upstream());
        let done = self.platform.register_contact(&contact, key, deadline).await?;
        let after = session.clone().contact_created(done.value.id, done.tries, self.clock.now())?;
        Ok(self.transition(session, after, None, None))
    }

    /// Step B (R5). Its transition carries the audit record «success» and the CRM's event.
    pub(crate) async fn open_conversation(
        &self,
        session: &Session,
        token: &GuestToken,
        since: Timestamp,
        deadline: Timestamp,
    ) -> Result<Transition, StepFailed> {
        let request = &session.request;
        let conversation = NewConversation::new(request.guest.as_str(), request.queue.0, token.expose());
        let key = format!("{}-conversation", request.key.upstream());
        let done = self.platform.open_conversation(&conversation, key, deadline).await?;
        let now = self.clock.now();
        let after = session.clone().opened(done.value.id, done.tries, since, now)?;
        let event = self.outbox.is_some().then(|| Event::session_created(&after, now));
        Ok(self.transition(session, after, Some(Status::Success), event))
    }

    pub(crate) fn transition(
        &self,
        before: &Session,
        after: Session,
        status: Option<Status>,
        event: Option<Event>,
    ) -> Transition {
        let audit = status.map(|status| Entry::of(&after, status, self.errors.totals(), self.clock.now()));
        Transition { before: before.clone(), after, audit, event, errors: self.errors.take() }
    }

    /// The session as it is from now on. An audit file that lags behind hides nothing: the record is in the store.
    pub(crate) async fn commit(&self, transition: Transition) -> Result<Session, Error> {
        let event = transition.event.clone();
        let session = self.store.advance(transition).await?.value;
        if let (Some(outbox), Some(event)) = (&self.outbox, event) {
            outbox.send_soon(event);
        }
        Ok(session)
    }

    /// Signs, or signs again: the same identity gives the same bytes, and the platform refuses a key that comes back with others.
    pub(crate) async fn sign(&self, session: &Session) -> Result<GuestToken, Error> {
        match self.sign_for(session) {
            Ok(token) => Ok(token),
            Err(error) => {
                self.platform.stats().count(Category::TokenValidation);
                let failure = Failure { code: "token_validation".to_owned(), message: error.to_string() };
                let after = session.clone().gave_up(failure, 0, self.clock.now())?;
                self.commit(self.transition(session, after, Some(Status::Failed), None)).await?;
                Err(error.into())
            }
        }
    }

    /// The token that a session's guest is vouched for by.
    pub fn sign_for(&self, session: &Session) -> Result<GuestToken, token::TokenError> {
        self.keyring.sign(&session.request.guest, &session.request.attributes, &session.token)
    }

    pub(crate) fn opened(&self, session: Session, replayed: bool) -> Result<Opened, Error> {
        let guest_token = self.sign_for(&session)?;
        Ok(Opened { session, guest_token, replayed })
    }

    /// The platform has not taken the key with this token (it refused it as expired, or never saw it): a fresh one may go under it.
    pub(crate) async fn renew_token(&self, session: Session, tries: u32) -> Result<Session, Error> {
        let now = self.clock.now();
        let identity = TokenIdentity::new(self.keyring.active().kid(), now);
        let after = session.clone().token_renewed(identity, tries, now)?;
        self.commit(self.transition(&session, after, None, None)).await
    }
}
