//! The two steps of the surface `rest`: contact and conversation. Each sends an `Idempotency-Key`.

use guestlane_core::{session::SessionRecord, token::GuestToken};
use guestlane_runtime::FailPoint;
use guestlane_store::CommitRequest;

use crate::saga::{
    executor::{SagaExecutor, SagaRun},
    step_error::StepError,
};

impl SagaExecutor {
    /// Creates the contact: step A (requirement R4, docs/requirements.md).
    pub(in crate::saga) async fn register_contact(
        &self,
        session: &SessionRecord,
        token: &GuestToken,
        run: &SagaRun,
    ) -> Result<CommitRequest, StepError> {
        let request = &session.request;
        let key = format!("{}-contact", request.key.platform_key());
        let done = self
            .platform
            .register_contact(
                request.guest.as_str(),
                token.expose(),
                request.attributes.as_map(),
                key,
                &run.call,
            )
            .await?;
        let after =
            session
                .clone()
                .contact_ready(Some(done.value.id), done.attempts, self.clock.now())?;
        self.fail_points.hit(FailPoint::ContactCreated).await;
        Ok(self.transition(session, after, None, run))
    }

    /// Opens the conversation: step B (requirement R5, docs/requirements.md).
    pub(in crate::saga) async fn open_conversation(
        &self,
        session: &SessionRecord,
        token: &GuestToken,
        run: &SagaRun,
    ) -> Result<CommitRequest, StepError> {
        let request = &session.request;
        let key = format!("{}-conversation", request.key.platform_key());
        let done = self
            .platform
            .open_conversation(
                request.guest.as_str(),
                request.queue.0,
                token.expose(),
                key,
                &run.call,
            )
            .await?;
        self.fail_points.hit(FailPoint::ConversationOpened).await;
        self.complete(session, done.value.id, done.attempts, run)
    }
}
