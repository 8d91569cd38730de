//! The order of things.

use guestlane_genesys::{CallError, CallFailed, Category, NewContact, NewConversation, Timestamp};

use crate::{
    audit::{Entry, Status},
    error::{Error, Then},
    lane::Lane,
    ledger::{Failure, Session},
    outbox::Event,
    request::SessionRequest,
    store::{Admission, Transition},
    token::{self, GuestToken, TokenIdentity},
};

/// A session that is open, and the token that vouches for its guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// As the ledger has it.
    pub session: Session,
    /// The token that the platform was given.
    pub guest_token: GuestToken,
    /// Whether it was open already when it was asked for.
    pub replayed: bool,
}

impl Lane {
    /// Creates a session, or finds the one of the same key. When this returns an error, the error says what exists and what becomes of it.
    pub async fn create(&self, request: SessionRequest) -> Result<Opened, Error> {
        let asked_at = self.clock.now();
        let deadline = asked_at + self.deadline;

        self.check_queue(&request).await?;
        loop {
            let admission = self.admit(&request).await?;
            match admission {
                Admission::Drive(session) => return self.drive(session, asked_at, deadline).await,
                Admission::Done(session) => return self.opened(session, true),
                Admission::Running(session) => self.wait_for(&session, deadline).await?,
                Admission::Mismatch(session) => return Err(mismatch(&session, &request)),
                Admission::NeedsAttention(session) => return Err(needs_attention(&session)),
            }
        }
    }

    /// Goes on with a session that was left behind, until it is open or there is a reason why not.
    pub async fn resume(&self, session: Session) -> Result<Opened, Error> {
        let deadline = self.clock.now() + self.deadline;
        let since = session.admitted_at;
        self.drive(session, since, deadline).await
    }

    /// Drives a session that is ours: contact, then conversation, each repeated alone and each on record before the next.
    async fn drive(&self, mut session: Session, since: Timestamp, deadline: Timestamp) -> Result<Opened, Error> {
        let _driving = self.driving.start(&session);
        if session.is_too_old_at(self.clock.now()) {
            return Err(self.set_aside(session).await?);
        }
        let mut signed: Option<(TokenIdentity, GuestToken)> = None;
        loop {
            if !session.uncertain && session.token.is_expired_at(self.clock.now()) {
                // Nobody can have taken the key with it: the platform need not be asked to refuse it.
                session = self.renew_token(session, 0).await?;
            }
            // Once for both steps: a signature is most of a session's processor time.
            let token = match signed.take_if(|(identity, _)| *identity == session.token) {
                Some((_, token)) => token,
                None => self.sign(&session).await?,
            };
            let identity = session.token.clone();
            let step = match &session.contact_id {
                None => self.create_contact(&session, &token, deadline).await,
                Some(_) => self.open_conversation(&session, &token, since, deadline).await,
            };
            session = match step {
                Ok(transition) => self.commit(transition).await?,
                Err(failed) if is_expired_token(&failed) && !token_is_fresh(&session, self.clock.now()) => {
                    self.renew_token(session, failed.tries()).await?
                }
                Err(failed) => return Err(self.settle(session, failed).await?),
            };
            if session.conversation_id.is_some() {
                return Ok(Opened { session, guest_token: token, replayed: false });
            }
            signed = Some((identity, token));
        }
    }

    /// Step A (R4).
    async fn create_contact(&self, session: &Session, token: &GuestToken, deadline: Timestamp) -> Result<Transition, StepFailed> {
        let request = &session.request;
        let contact = NewContact::new(request.guest.as_str(), token.expose(), request.attributes.as_map());
        let key = format!("{}-contact", request.key.upstream());
        let done = self.platform.register_contact(&contact, key, deadline).await?;
        let after = session.clone().contact_created(done.value.id, done.tries, self.clock.now())?;
        Ok(self.transition(session, after, None, None))
    }

    /// Step B (R5). Its transition carries the audit record «success» and the CRM's event.
    async fn open_conversation(
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

    fn transition(&self, before: &Session, after: Session, status: Option<Status>, event: Option<Event>) -> Transition {
        let audit = status.map(|status| Entry::of(&after, status, self.errors.totals(), self.clock.now()));
        Transition { before: before.clone(), after, audit, event, errors: self.errors.take() }
    }

    /// The session as it is from now on. An audit file that lags behind hides nothing: the record is in the store.
    async fn commit(&self, transition: Transition) -> Result<Session, Error> {
        let event = transition.event.clone();
        let session = self.store.advance(transition).await?.value;
        if let (Some(outbox), Some(event)) = (&self.outbox, event) {
            outbox.send_soon(event);
        }
        Ok(session)
    }

    /// Signs, or signs again: the same identity gives the same bytes, and the platform refuses a key that comes back with others.
    async fn sign(&self, session: &Session) -> Result<GuestToken, Error> {
        match self.sign_for(session) {
            Ok(token) => Ok(token),
            Err(error) => {
                self.platform.stats().count(Category::TokenValidation);
                let failure = Failure { code: "token_validation".to_owned(), message: error.to_string() };
                let after = session.clone().refused(failure, 0).map_err(crate::store::StoreError::from)?;
                self.commit(self.transition(session, after, Some(Status::Failed), None)).await?;
                Err(error.into())
            }
        }
    }

    /// The token that a session's guest is vouched for by.
    pub fn sign_for(&self, session: &Session) -> Result<GuestToken, token::TokenError> {
        let kid = &session.token.kid;
        let key = self.keyring.by_kid(kid).ok_or_else(|| token::KeyError::Missing(kid.clone()))?;
        token::sign(key, &session.request.guest, &session.request.attributes, &session.token)
    }

    fn opened(&self, session: Session, replayed: bool) -> Result<Opened, Error> {
        let guest_token = self.sign_for(&session)?;
        Ok(Opened { session, guest_token, replayed })
    }

    /// The platform has not taken the key with this token (it refused it as expired, or never saw it): a fresh one may go under it.
    async fn renew_token(&self, session: Session, tries: u32) -> Result<Session, Error> {
        let now = self.clock.now();
        let identity = TokenIdentity::new(self.keyring.active().kid(), now);
        let after = session.clone().token_renewed(identity, tries, now).map_err(crate::store::StoreError::from)?;
        self.commit(self.transition(&session, after, None, None)).await
    }

    /// Writes down how a step failed, and says what becomes of the session.
    async fn settle(&self, session: Session, failed: StepFailed) -> Result<Error, Error> {
        let failed = match failed {
            StepFailed::Call(failed) => failed,
            StepFailed::Move(illegal) => return Err(crate::store::StoreError::from(illegal).into()),
        };
        let now = self.clock.now();
        let uncertain = session.uncertain || failed.may_exist;
        let then = match failed.cause.refusal() {
            // A later «no» does not undo what an earlier attempt may have done, and a session that was promised to be completed is not
            // given up because somebody's credentials are wrong today.
            Some(_) if uncertain || (session.owed && failed.cause.is_about_us()) => Then::Completes,
            Some(_) => Then::Refused,
            None => Then::Completes,
        };
        let error = Error::Platform { session: Some(session.id), then, failed: failed.clone() };
        let failure = Failure { code: error.advice().code.to_owned(), message: error.record() };
        let before = session.clone();
        let session = Session { uncertain, ..session };
        let after = match (then, failed.wait) {
            (Then::Refused, _) => session.refused(failure, failed.tries),
            (_, Some(wait)) => session.parked(failure, failed.tries, now + wait),
            (_, None) => session.gave_up(failure, failed.tries, now),
        };
        let after = after.map_err(crate::store::StoreError::from)?;
        self.commit(self.transition(&before, after, Some(Status::Failed), None)).await?;
        Ok(error)
    }

    async fn set_aside(&self, session: Session) -> Result<Error, Error> {
        let failure = Failure {
            code: "needs_attention".to_owned(),
            message: "not finished within the 24 hours in which the platform remembers the key".to_owned(),
        };
        let error = needs_attention(&session);
        let after = session.clone().expired(failure).map_err(crate::store::StoreError::from)?;
        self.commit(self.transition(&session, after, Some(Status::Failed), None)).await?;
        Ok(error)
    }
}

/// A step did not end well.
enum StepFailed {
    Call(CallFailed),
    Move(crate::ledger::IllegalMove),
}

impl StepFailed {
    fn tries(&self) -> u32 {
        match self {
            Self::Call(failed) => failed.tries,
            Self::Move(_) => 0,
        }
    }
}

impl From<CallFailed> for StepFailed {
    fn from(failed: CallFailed) -> Self {
        Self::Call(failed)
    }
}

impl From<crate::ledger::IllegalMove> for StepFailed {
    fn from(illegal: crate::ledger::IllegalMove) -> Self {
        Self::Move(illegal)
    }
}

fn is_expired_token(failed: &StepFailed) -> bool {
    match failed {
        StepFailed::Call(failed) => matches!(&failed.cause, CallError::Refused(refusal) if refusal.is_expired_guest_token()),
        StepFailed::Move(_) => false,
    }
}

/// Refused as expired although it is fresh by our clock: the clocks differ, and another fresh one would fare no better.
fn token_is_fresh(session: &Session, now: Timestamp) -> bool {
    now.unix_seconds() - session.token.issued_at < 60
}

fn mismatch(known: &Session, request: &SessionRequest) -> Error {
    let fields = known.request.differences(request);
    Error::Mismatch { key: request.key.clone(), fields, session: known.id }
}

fn needs_attention(session: &Session) -> Error {
    Error::NeedsAttention { session: session.id, contact_id: session.contact_id.clone() }
}
