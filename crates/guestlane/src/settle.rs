//! How a session that did not get through is left: what becomes of it, and what the caller is told.

use guestlane_genesys::Seam;

use crate::{
    audit::Status,
    error::{Error, Then},
    lane::Lane,
    ledger::{Failure, Session},
    request::SessionRequest,
    steps::StepFailed,
};

impl Lane {
    /// Writes down how a step failed, and says what becomes of the session.
    pub(crate) async fn settle(&self, session: Session, failed: StepFailed) -> Result<Error, Error> {
        let failed = match failed {
            StepFailed::Call(failed) => failed,
            StepFailed::Move(illegal) => return Err(illegal.into()),
        };
        self.seams.pass(Seam::StepFailed).await;
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
        let after = after?;
        self.commit(self.transition(&before, after, Some(Status::Failed))).await?;
        Ok(error)
    }

    pub(crate) async fn set_aside(&self, session: Session) -> Result<Error, Error> {
        let failure = Failure {
            code: "needs_attention".to_owned(),
            message: "not finished within the 24 hours in which the platform remembers the key".to_owned(),
        };
        let error = needs_attention(&session);
        let after = session.clone().expired(failure)?;
        self.commit(self.transition(&session, after, Some(Status::Failed))).await?;
        Ok(error)
    }
}

pub(crate) fn mismatch(known: &Session, request: &SessionRequest) -> Error {
    let fields = known.request.differences(request);
    Error::Mismatch { key: request.key.clone(), fields, session: known.id }
}

pub(crate) fn needs_attention(session: &Session) -> Error {
    Error::NeedsAttention { session: session.id, contact_id: session.contact_id.clone() }
}
