//! Links the contact and moves the conversation to its queue, even if the platform lost one of
//! them.
//!
//! A contact without interaction expires after 60 days (docs/platform.md#contacts), and contacts
//! and queues are deleted or merged. An ID that exists only in the store must not keep a guest from
//! the agents, because the conversation exists already.

use std::time::Duration;

use guestlane_core::session::SessionRecord;
use guestlane_genesys::{CallError, Conversation, PlatformId};
use guestlane_runtime::FailPoint;
use guestlane_store::StoreError;
use tracing::warn;
use uuid::Uuid;

use crate::{
    Error,
    saga::{
        executor::{SagaExecutor, SagaRun},
        step_error::StepError,
    },
};

/// How long a new conversation may be unknown to other parts of the platform.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

/// How long a contact of this session may be unknown to the platform before the session opens
/// without a link.
const CONTACT_SETTLES_WITHIN: Duration = Duration::from_secs(300);

impl SagaExecutor {
    /// Links the contact to the conversation.
    ///
    /// If the platform no longer has the contact, the method links a replacement, once. If that
    /// also fails, the session opens without a link. Returns the session as stored now, and the
    /// number of calls so far.
    pub(in crate::saga) async fn link_or_replace(
        &self,
        session: SessionRecord,
        contact: &PlatformId,
        conversation: &Conversation,
        tries: u32,
        run: &SagaRun,
    ) -> Result<(SessionRecord, u32), StepError> {
        let first = match self.link(contact, conversation, run).await {
            Ok(linked) => return Ok((session, tries + linked)),
            Err(failed) if failed.is_not_found() => failed,
            Err(failed) => return Err(failed.into()),
        };
        // A 404 does not say whether contact, conversation or communication is missing. A new
        // conversation may be unknown for a moment, and an ended one has no communication when it
        // is read again.
        self.clock.sleep(SETTLES_WITHIN).await;
        let again = self
            .platform
            .conversation(&conversation.id, false, &run.call)
            .await?;
        let tries = tries + first.attempts + again.attempts;
        let conversation = &again.value;
        let failed = match self.link(contact, conversation, run).await {
            Ok(linked) => return Ok((session, tries + linked)),
            Err(failed) if failed.is_not_found() => failed,
            Err(failed) => return Err(failed.into()),
        };
        let tries = tries + failed.attempts;
        let earlier = self
            .store
            .latest_contact_id(session.request.guest.clone(), session.id)
            .await?;
        if earlier.as_deref() != Some(contact.as_str()) {
            // The platform may not know a contact of this same session yet.
            if self.clock.now().since(session.step_started_at) < CONTACT_SETTLES_WITHIN {
                return Err(failed.into());
            }
            warn!(session = %session.id, "the platform does not find the session's contact; opening the session without a link");
            return Ok((session, tries));
        }
        let (session, tries) = self.replace_contact(session, tries, run).await?;
        let Some(contact) = &session.contact_id else {
            return Ok((session, tries));
        };
        match self.link(contact, conversation, run).await {
            Ok(linked) => Ok((session, tries + linked)),
            Err(failed) if failed.is_not_found() => {
                warn!(session = %session.id, "the platform does not find the new contact either; opening the session without a link");
                Ok((session, tries + failed.attempts))
            }
            Err(failed) => Err(failed.into()),
        }
    }

    /// Finds or creates another contact. The loss is recorded first, so that a crash cannot lead to
    /// a second contact.
    async fn replace_contact(
        &self,
        session: SessionRecord,
        tries: u32,
        run: &SagaRun,
    ) -> Result<(SessionRecord, u32), StepError> {
        warn!(session = %session.id, "the platform no longer has the guest's contact; replacing it with another one");
        let lost = session.clone().contact_lost(self.clock.now())?;
        let session = self.record(&session, lost, run).await?;
        self.fail_points.hit(FailPoint::ContactRemoved).await;
        let (request, contact) = (&session.request, self.messaging.contact(&session.request));
        let identifiers = self.messaging.identifiers(request);
        let made = if identifiers.is_empty() {
            self.platform.create_contact(&contact, &run.call).await
        } else {
            self.platform
                .upsert_contact(&identifiers, &contact, &run.call)
                .await
        };
        match made {
            Ok(done) => {
                self.fail_points.hit(FailPoint::ContactCreated).await;
                let replaced = session.clone().contact_replaced(
                    done.value.id,
                    done.attempts,
                    self.clock.now(),
                )?;
                Ok((self.record(&session, replaced, run).await?, tries))
            }
            Err(failed) => {
                let error = failed.to_string();
                warn!(session = %session.id, error, "failed to create another contact; opening the session without one");
                Ok((session, tries + failed.attempts))
            }
        }
    }

    async fn record(
        &self,
        before: &SessionRecord,
        after: SessionRecord,
        run: &SagaRun,
    ) -> Result<SessionRecord, StepError> {
        let transition = self.transition(before, after, None, run);
        self.commit(transition).await.map_err(|error| match error {
            Error::Store(error) => StepError::Store(error),
            other => StepError::Store(StoreError::Commit(other.to_string())),
        })
    }

    async fn link(
        &self,
        contact: &PlatformId,
        conversation: &Conversation,
        run: &SagaRun,
    ) -> Result<u32, CallError> {
        match conversation.guest_communication() {
            Some(communication) if !conversation.is_linked_to(contact) => Ok(self
                .platform
                .link_contact(contact, &conversation.id, communication, &run.call)
                .await?
                .attempts),
            _ => Ok(0),
        }
    }

    /// Moves the conversation to the session's queue. If the queue no longer exists, the
    /// conversation stays where it is.
    pub(in crate::saga) async fn move_if_queue_exists(
        &self,
        session: &SessionRecord,
        conversation: &Conversation,
        run: &SagaRun,
    ) -> Result<u32, StepError> {
        let queue = session.request.queue;
        match self.move_to_queue(queue.0, conversation, run).await {
            Err(failed) if failed.is_not_found() => {
                self.queues.remove(queue);
                match self.platform.queue(queue.0, &run.call).await {
                    Err(gone) if gone.is_not_found() => {
                        warn!(session = %session.id, %queue, "the queue no longer exists; leaving the conversation where the flow put it");
                        Ok(failed.attempts + gone.attempts)
                    }
                    Ok(_) | Err(_) => Err(failed.into()),
                }
            }
            moved => Ok(moved?),
        }
    }

    async fn move_to_queue(
        &self,
        queue: Uuid,
        conversation: &Conversation,
        run: &SagaRun,
    ) -> Result<u32, CallError> {
        let holder = conversation
            .routing_participant()
            .and_then(|holder| holder.id.as_ref());
        match holder {
            _ if conversation.has_visited_queue(queue) => Ok(0),
            Some(holder) => Ok(self
                .platform
                .move_to_queue(&conversation.id, holder, queue, &run.call)
                .await?
                .attempts),
            None => Ok(0), // the conversation has ended, so there is nothing to move
        }
    }
}
