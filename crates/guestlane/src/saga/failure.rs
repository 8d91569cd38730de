//! What a failed step does to a session: the state that is stored, and the error that is returned.

use guestlane_core::{
    audit::Status,
    session::{Failure, SessionRecord, StepFailure},
};
use guestlane_genesys::ErrorResponse;
use guestlane_runtime::FailPoint;

use super::{
    executor::{SagaExecutor, SagaRun},
    step_error::StepError,
};
use crate::{Error, error::SessionOutcome};

impl SagaExecutor {
    /// Stores how a step failed, and returns the error for the caller.
    pub(crate) async fn record_failure(
        &self,
        session: SessionRecord,
        failed: StepError,
        run: &SagaRun,
    ) -> Result<Error, Error> {
        let failed = match failed {
            StepError::Call(failed) => failed,
            StepError::Store(error) => return Err(error.into()),
            StepError::MasterKey(error) => return Err(error.into()),
            StepError::Transition(illegal) => return Err(illegal.into()),
        };
        self.fail_points.hit(FailPoint::StepFailed).await;
        let over = failed
            .cause
            .refusal()
            .is_some_and(ErrorResponse::is_conversation_ended);
        if over && (session.outcome_unknown || failed.may_exist) {
            // The guest may have written in the conversation that ended. A retry would send that
            // message again, in a second conversation.
            return self.mark_needs_attention(session, run).await;
        }
        let now = self.clock.now();
        let setback = match (failed.cause.refusal(), failed.retry_after) {
            (Some(_), _) => StepFailure::Rejected {
                concerns_credentials: failed.cause.is_authorization_failure(),
            },
            (None, Some(wait)) => StepFailure::RetryAfter(wait),
            (None, None) => StepFailure::BackedOff,
        };
        let then = if session.is_terminal_failure(setback, failed.may_exist) {
            SessionOutcome::Rejected
        } else {
            SessionOutcome::WillComplete
        };
        let error = Error::Platform {
            session: Some(session.id),
            then,
            failed: failed.clone(),
        };
        let failure = Failure {
            code: error.code().name().to_owned(),
            message: error.redacted(),
        };
        let before = session.clone();
        let after =
            session.apply_failure(setback, failed.may_exist, failure, failed.attempts, now)?;
        self.commit(self.transition(&before, after, Some(Status::Failed), run))
            .await?;
        Ok(error)
    }

    pub(crate) async fn mark_needs_attention(
        &self,
        session: SessionRecord,
        run: &SagaRun,
    ) -> Result<Error, Error> {
        let failure = Failure {
            code: "needs_attention".to_owned(),
            message: "the outcome on the platform can no longer be determined".to_owned(),
        };
        let error = Error::needs_attention(&session);
        let after = session.clone().expired(failure, self.clock.now())?;
        self.commit(self.transition(&session, after, Some(Status::Failed), run))
            .await?;
        Ok(error)
    }
}
