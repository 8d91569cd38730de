//! How a session that did not get through is left: what becomes of it, and what the caller is told.

use guestlane_genesys::{Refusal, Seam};

use crate::{
    audit::Status,
    error::{Error, Then},
    lane::Lane,
    ledger::{Failure, Session, Setback},
    request::SessionRequest,
    steps::StepFailed,
};

impl Lane {
    /// Writes down how a step failed, and says what becomes of the session.
    pub(crate) async fn settle(&self, session: Session, failed: StepFailed) -> Result<Error, Error> {
        let failed = match failed {
            StepFailed::Call(failed) => failed,
            StepFailed::Store(error) => return Err(error.into()),
            StepFailed::MasterKey(error) => return Err(error.into()),
            StepFailed::Move(illegal) => return Err(illegal.into()),
        };
        self.seams.pass(Seam::StepFailed).await;
        let over = failed.cause.refusal().is_some_and(Refusal::is_over);
        if over && (session.uncertain || failed.may_exist) {
            // The guest may have said something in it; in a new one it would be said again, in a second conversation.
            return self.set_aside(session).await;
        }
        let now = self.clock.now();
        let setback = match (failed.cause.refusal(), failed.wait) {
            (Some(_), _) => Setback::Refused { about_us: failed.cause.is_about_us() },
            (None, Some(wait)) => Setback::Wait(wait),
            (None, None) => Setback::GaveUp,
        };
        let then = if session.is_ended_by(setback, failed.may_exist) { Then::Refused } else { Then::Completes };
        let error = Error::Platform { session: Some(session.id), then, failed: failed.clone() };
        let failure = Failure { code: error.advice().code.name().to_owned(), message: error.record() };
        let before = session.clone();
        let after = session.set_back(setback, failed.may_exist, failure, failed.tries, now)?;
        self.commit(self.transition(&before, after, Some(Status::Failed))).await?;
        Ok(error)
    }

    pub(crate) async fn set_aside(&self, session: Session) -> Result<Error, Error> {
        let failure = Failure {
            code: "needs_attention".to_owned(),
            message: "it cannot be told any more what the platform has done".to_owned(),
        };
        let error = Error::needs_attention(&session);
        let after = session.clone().expired(failure)?;
        self.commit(self.transition(&session, after, Some(Status::Failed))).await?;
        Ok(error)
    }
}

pub(crate) fn mismatch(known: &Session, request: &SessionRequest) -> Error {
    // A session from before owners existed may be another caller's, which must not learn what it has.
    let same_owner = known.request.key.owner() == request.key.owner();
    let fields = if same_owner { known.request.differences(request) } else { Vec::new() };
    Error::Mismatch { key: request.key.clone(), fields, session: known.id }
}
