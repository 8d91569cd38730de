//! The two steps of the surface `rest`: contact, conversation. Each carries an `Idempotency-Key`.

use guestlane_genesys::{NewContact, NewConversation, Seam, Timestamp};

use super::StepFailed;
use crate::{lane::Lane, ledger::Session, store::Transition, token::GuestToken};

impl Lane {
    /// Step A (requirement R4, docs/requirements.md).
    pub(super) async fn create_contact(
        &self,
        session: &Session,
        token: &GuestToken,
        deadline: Timestamp,
    ) -> Result<Transition, StepFailed> {
        let request = &session.request;
        let contact = NewContact::new(request.guest.as_str(), token.expose(), request.attributes.as_map());
        let key = format!("{}-contact", request.key.upstream());
        let done = self.platform.register_contact(&contact, key, deadline).await?;
        let after = session.clone().contact_created(Some(done.value.id), done.tries, self.clock.now())?;
        self.seams.pass(Seam::ContactMade).await;
        Ok(self.transition(session, after, None))
    }

    /// Step B (requirement R5, docs/requirements.md).
    pub(super) async fn open_conversation(
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
        self.seams.pass(Seam::ConversationOpened).await;
        self.now_open(session, done.value.id, done.tries, since)
    }
}
