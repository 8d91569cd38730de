//! The steps of the public platform's surfaces: contact, first message, conversation, link and
//! queue.
//!
//! No call of the public platform takes an `Idempotency-Key`. Each step says what keeps it from
//! taking effect twice.

use guestlane_core::{session::SessionRecord, token::GuestToken};
use guestlane_genesys::{
    CallError, Completed, ExternalContact, GuestSession, Operation, PlatformId,
};
use guestlane_runtime::FailPoint;
use guestlane_store::CommitRequest;
use tracing::warn;
use uuid::Uuid;

use crate::{
    saga::{
        executor::{SagaExecutor, SagaRun},
        step_error::StepError,
    },
    workspace::open_guest_session,
};

impl SagaExecutor {
    /// Finds or creates the guest's contact.
    ///
    /// An identifier belongs to one contact, so the upsert can be repeated. Without identifiers,
    /// the guest's contact of an earlier session is used. If there is none, a contact is created,
    /// and not again after a lost response.
    pub(in crate::saga) async fn upsert_contact(
        &self,
        session: &SessionRecord,
        run: &SagaRun,
    ) -> Result<CommitRequest, StepError> {
        let (request, contact) = (&session.request, self.messaging.contact(&session.request));
        let identifiers = self.messaging.identifiers(request);
        let (contact_id, tries) = if session.contact_without_identifier && session.outcome_unknown {
            // An identifier known by now was not part of the lost create, so an upsert could
            // duplicate it.
            (None, 0)
        } else if !identifiers.is_empty() {
            let done = match self
                .platform
                .upsert_contact(&identifiers, &contact, &run.call)
                .await
            {
                // Another contact has the e-mail address or the telephone number. The external ID
                // decides which contact is the guest's, so the upsert is repeated without the two.
                Err(failed) if failed.is_conflict() && self.messaging.external_source.is_some() => {
                    let unshared = ExternalContact {
                        personal_email: None,
                        cell_phone: None,
                        ..contact
                    };
                    let done = self
                        .platform
                        .upsert_contact(&identifiers, &unshared, &run.call)
                        .await?;
                    Completed {
                        attempts: failed.attempts + done.attempts,
                        ..done
                    }
                }
                done => done?,
            };
            (Some(done.value.id), done.attempts)
        } else if let Some(known) = self
            .store
            .latest_contact_id(request.guest.clone(), session.id)
            .await?
        {
            (Some(PlatformId::from_store(known)), 0)
        } else {
            match self.platform.create_contact(&contact, &run.call).await {
                Ok(done) => (Some(done.value.id), done.attempts),
                Err(failed) if failed.may_exist => (None, failed.attempts),
                Err(failed) => return Err(failed.into()),
            }
        };
        self.fail_points.hit(FailPoint::ContactCreated).await;
        let after = session
            .clone()
            .contact_ready(contact_id, tries, self.clock.now())?;
        Ok(self.transition(session, after, None, run))
    }

    /// Sends the guest's first message over the guest WebSocket, upon which the platform opens the
    /// conversation.
    ///
    /// The guest session token is recorded at admission. Each repetition uses the same one, and
    /// reaches the same conversation.
    pub(in crate::saga) async fn send_guest_message(
        &self,
        session: &SessionRecord,
        deployment: Uuid,
        token: &GuestToken,
        run: &SagaRun,
    ) -> Result<CommitRequest, StepError> {
        let erased = || CallError::not_sent(Operation::FirstMessage, "the guest was erased");
        let guest = GuestSession {
            deployment,
            origin: self.messaging.origin.clone(),
            token: open_guest_session(&self.master, session)
                .map_err(StepError::MasterKey)?
                .ok_or_else(erased)?,
            may_have_begun: session.outcome_unknown.then_some(session.step_started_at),
        };
        let message = self.messaging.first_message(&session.request, token);
        let done = self
            .platform
            .send_first_message(&guest, &message, &run.call)
            .await?;
        self.fail_points.hit(FailPoint::MessageSent).await;
        let after = session.clone().message_sent(
            done.value.message_id,
            None,
            done.value.expires_at,
            done.attempts,
            self.clock.now(),
        )?;
        Ok(self.transition(session, after, None, run))
    }

    /// Sends the guest's first message by Open Messaging, upon which the platform opens the
    /// conversation. The response may name the conversation.
    ///
    /// The session ID is the ID of sender and message. Each repetition uses the same IDs, and
    /// reaches the same conversation.
    pub(in crate::saga) async fn send_inbound_message(
        &self,
        session: &SessionRecord,
        integration: Uuid,
        token: &GuestToken,
        run: &SagaRun,
    ) -> Result<CommitRequest, StepError> {
        let message = self.messaging.inbound_message(
            &session.request,
            token,
            &session.id.to_string(),
            &session.admitted_at.to_millis(),
        );
        let done = self
            .platform
            .send_inbound_message(integration, &message, &run.call)
            .await?;
        self.fail_points.hit(FailPoint::MessageSent).await;
        let after = session.clone().message_sent(
            done.value.id,
            done.value.conversation_id,
            None,
            done.attempts,
            self.clock.now(),
        )?;
        Ok(self.transition(session, after, None, run))
    }

    /// Polls for the conversation of the first message until the platform knows it. The step only
    /// reads.
    pub(in crate::saga) async fn find_conversation(
        &self,
        session: &SessionRecord,
        message_id: &PlatformId,
        run: &SagaRun,
    ) -> Result<CommitRequest, StepError> {
        let done = self
            .platform
            .find_conversation_by_message(message_id, &run.call)
            .await?;
        self.fail_points.hit(FailPoint::ConversationFound).await;
        let after =
            session
                .clone()
                .conversation_found(done.value, done.attempts, self.clock.now())?;
        Ok(self.transition(session, after, None, run))
    }

    /// Links the contact and moves the conversation to its queue, as far as configured and not
    /// done.
    ///
    /// Each action is preceded by a read, so that a repetition does nothing twice.
    pub(in crate::saga) async fn link_and_route(
        &self,
        session: &SessionRecord,
        conversation_id: &PlatformId,
        run: &SagaRun,
    ) -> Result<CommitRequest, StepError> {
        let contact = session
            .contact_id
            .as_ref()
            .filter(|_| self.messaging.link_contact);
        let mut session = session.clone();
        let mut tries = 0;
        if contact.is_some() || self.messaging.move_to_queue {
            let done = self
                .platform
                .conversation(conversation_id, self.messaging.move_to_queue, &run.call)
                .await?;
            tries += done.attempts;
            if let Some(contact) = contact {
                (session, tries) = self
                    .link_or_replace(session.clone(), contact, &done.value, tries, run)
                    .await?;
                self.fail_points.hit(FailPoint::ContactLinked).await;
            }
            let queue = session.request.queue.0;
            if !self.messaging.move_to_queue
                && done
                    .value
                    .current_queue()
                    .is_some_and(|there| there != queue)
            {
                warn!(
                    session = %session.id,
                    "the conversation is in another queue than the requested one: the inbound flow does not read routingTarget; \
                     the setting messaging.move_to_queue moves conversations"
                );
            }
            if self.messaging.move_to_queue {
                tries += self
                    .move_if_queue_exists(&session, &done.value, run)
                    .await?;
                self.fail_points.hit(FailPoint::QueueReached).await;
            }
        }
        self.fail_points.hit(FailPoint::ConversationOpened).await;
        self.complete(&session, conversation_id.clone(), tries, run)
    }
}
