//! The two steps of the surface `rest`: contact and conversation. Each sends an `Idempotency-Key`.

use guestlane_genesys::{CreateContactRequest, NewConversation};
use guestlane_runtime::{FailPoint, Timestamp};

use super::StepError;
use crate::engine::SessionEngine;
use guestlane_core::{session::SessionRecord, token::GuestToken};
use guestlane_store::CommitRequest;

impl SessionEngine {
    /// Creates the contact: step A (requirement R4, docs/requirements.md).
    pub(super) async fn create_contact(
        &self,
        session: &SessionRecord,
        token: &GuestToken,
        deadline: Timestamp,
    ) -> Result<CommitRequest, StepError> {
        let request = &session.request;
        let contact = CreateContactRequest::new(
            request.guest.as_str(),
            token.expose(),
            request.attributes.as_map(),
        );
        let key = format!("{}-contact", request.key.platform_key());
        let done = self
            .platform
            .register_contact(&contact, key, deadline)
            .await?;
        let after =
            session
                .clone()
                .contact_created(Some(done.value.id), done.tries, self.clock.now())?;
        self.fail_points.hit(FailPoint::ContactMade).await;
        Ok(self.transition(session, after, None))
    }

    /// Opens the conversation: step B (requirement R5, docs/requirements.md).
    pub(super) async fn open_conversation(
        &self,
        session: &SessionRecord,
        token: &GuestToken,
        since: Timestamp,
        deadline: Timestamp,
    ) -> Result<CommitRequest, StepError> {
        let request = &session.request;
        let conversation =
            NewConversation::new(request.guest.as_str(), request.queue.0, token.expose());
        let key = format!("{}-conversation", request.key.platform_key());
        let done = self
            .platform
            .open_conversation(&conversation, key, deadline)
            .await?;
        self.fail_points.hit(FailPoint::ConversationOpened).await;
        self.complete(session, done.value.id, done.tries, since)
    }
}
