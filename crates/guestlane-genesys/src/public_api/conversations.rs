//! Existing conversations: find by message, read, and move to a queue
//! (docs/platform.md#conversations).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    call_context::CallContext,
    client::{GenesysClient, RequestSpec, to_json},
    error::{CallError, Operation},
    foreign::{ApiPath, PlatformId, lenient, lenient_list, optional_id},
    retry::{Completed, RetrySafety},
};

/// The fields that are used of a message (`MessageData`).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageDetails {
    /// Absent until the platform has routed the message.
    #[serde(default, deserialize_with = "optional_id")]
    conversation_id: Option<PlatformId>,
}

/// A conversation, with the fields that are used here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// The conversation ID.
    pub id: PlatformId,
    /// Current and former participants.
    pub participants: Vec<Participant>,
}

/// The fields that are used of a conversation response. Its ID is known from the request.
#[derive(Deserialize)]
pub(crate) struct ConversationAnswer {
    #[serde(default, deserialize_with = "nullable")]
    participants: Vec<Participant>,
}

/// Deserializes a list in which every item must be valid; null is an empty list.
fn nullable<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Participant>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A participant of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Participant {
    /// The participant ID.
    #[serde(deserialize_with = "optional_id")]
    pub id: Option<PlatformId>,
    /// `customer`, `workflow`, `acd`, `agent`, …
    #[serde(deserialize_with = "lenient")]
    pub purpose: String,
    /// The queue of a participant that waits or works in one.
    #[serde(deserialize_with = "lenient")]
    pub queue_id: Option<Uuid>,
    /// The linked contact.
    #[serde(deserialize_with = "lenient")]
    pub external_contact_id: Option<PlatformId>,
    /// When the participant left.
    #[serde(deserialize_with = "lenient")]
    pub end_time: Option<String>,
    /// The participant's communications.
    #[serde(deserialize_with = "lenient_list")]
    pub messages: Vec<Communication>,
}

/// One communication of a participant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Communication {
    /// The communication ID.
    #[serde(deserialize_with = "optional_id")]
    pub id: Option<PlatformId>,
    /// `connected`, `disconnected`, …
    #[serde(deserialize_with = "lenient")]
    pub state: Option<String>,
}

impl Participant {
    fn is_guest(&self) -> bool {
        matches!(self.purpose.as_str(), "customer" | "external")
    }

    fn is_agent(&self) -> bool {
        matches!(self.purpose.as_str(), "agent" | "user")
    }

    fn is_connected(&self) -> bool {
        let gone = |communication: &Communication| {
            communication
                .state
                .as_deref()
                .is_some_and(|state| matches!(state, "disconnected" | "terminated"))
        };
        self.end_time.is_none() && (self.messages.is_empty() || !self.messages.iter().all(gone))
    }
}

impl Conversation {
    /// Returns the guest's communication, to which a contact is linked.
    pub fn guest_communication(&self) -> Option<&PlatformId> {
        let guest = self
            .participants
            .iter()
            .find(|participant| participant.is_guest())?;
        guest.messages.first()?.id.as_ref()
    }

    /// Whether the contact is already linked.
    pub fn is_linked_to(&self, contact_id: &PlatformId) -> bool {
        self.participants
            .iter()
            .any(|participant| participant.external_contact_id.as_ref() == Some(contact_id))
    }

    /// Whether the guest's side has ended: through the inbound flow, an agent or the guest.
    pub fn has_ended(&self) -> bool {
        !self
            .participants
            .iter()
            .any(|participant| participant.is_guest() && participant.is_connected())
    }

    /// Returns the flow or queue that currently holds the conversation, which a move to a queue
    /// replaces. Returns `None` while an agent holds it: a conversation is never taken from an
    /// agent.
    pub fn routing_participant(&self) -> Option<&Participant> {
        let holds =
            |participant: &&Participant| !participant.is_guest() && participant.is_connected();
        self.participants
            .iter()
            .rev()
            .find(holds)
            .filter(|holder| !holder.is_agent())
    }

    /// Returns the queue in which the guest currently waits.
    pub fn current_queue(&self) -> Option<Uuid> {
        self.routing_participant()?.queue_id
    }

    /// Whether the conversation is or was in this queue, or has reached an agent. From then on, its
    /// routing is up to the organization.
    pub fn has_visited_queue(&self, queue: Uuid) -> bool {
        self.participants
            .iter()
            .any(|participant| participant.queue_id == Some(queue) || participant.is_agent())
    }
}

impl GenesysClient {
    /// Returns the conversation of a message. Polls until the platform knows it, or until
    /// `deadline`.
    ///
    /// # Errors
    ///
    /// Fails if the conversation is not known before `deadline`, or if the platform rejects the
    /// request.
    pub async fn find_conversation_by_message(
        &self,
        message_id: &PlatformId,
        context: &CallContext,
    ) -> Result<Completed<PlatformId>, CallError> {
        let path = ApiPath::new("/api/v2/conversations/messages")
            .segment(message_id)
            .then("/details");
        let call = RequestSpec::get(Operation::Details, path, RetrySafety::PollUntilVisible);
        self.poll_until(
            &call,
            |details: MessageDetails| details.conversation_id,
            context,
        )
        .await
    }

    /// Returns a conversation as soon as the guest is among its participants. With `held`, also
    /// waits until another participant holds the conversation or it has ended.
    ///
    /// # Errors
    ///
    /// Fails if this is not the case before `deadline`, or if the platform rejects the request.
    pub async fn conversation(
        &self,
        id: &PlatformId,
        held: bool,
        context: &CallContext,
    ) -> Result<Completed<Conversation>, CallError> {
        let path = ApiPath::new("/api/v2/conversations").segment(id);
        let call = RequestSpec::get(Operation::Conversation, path, RetrySafety::PollUntilVisible);
        let there = |ConversationAnswer { participants }| {
            let conversation = Conversation {
                id: id.clone(),
                participants,
            };
            let someone = conversation
                .participants
                .iter()
                .any(|participant| !participant.is_guest());
            // A holder without an ID cannot be replaced by the queue.
            let nameless = conversation
                .routing_participant()
                .is_some_and(|holder| holder.id.is_none());
            let held = !held || (someone && !nameless) || conversation.has_ended();
            (held && conversation.guest_communication().is_some()).then_some(conversation)
        };
        self.poll_until(&call, there, context).await
    }

    /// Moves a conversation from `participant_id` to a queue. An unknown outcome is not retried;
    /// the caller must read the conversation first.
    ///
    /// # Errors
    ///
    /// Fails if the platform rejects the request, or gives no response before `deadline`.
    pub async fn move_to_queue(
        &self,
        conversation_id: &PlatformId,
        participant_id: &PlatformId,
        queue: Uuid,
        context: &CallContext,
    ) -> Result<Completed<()>, CallError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Transfer {
            queue_id: Uuid,
        }
        let path = ApiPath::new("/api/v2/conversations")
            .segment(conversation_id)
            .then("/participants")
            .segment(participant_id)
            .then("/replace/queue");
        let body = to_json(&Transfer { queue_id: queue });
        let call = RequestSpec::post(
            Operation::MoveToQueue,
            path,
            body,
            RetrySafety::NotIfOutcomeUnknown,
        );
        self.call_no_body(&call, context).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(participants: &str) -> Conversation {
        let ConversationAnswer { participants } =
            serde_json::from_str(&format!(r#"{{"id":7,"participants":{participants}}}"#)).unwrap();
        Conversation {
            id: "c".parse().unwrap(),
            participants,
        }
    }

    #[test]
    fn routing_participant_is_a_connected_non_guest() {
        let moved = conversation(
            r#"[{"id":"1","purpose":"customer","messages":[{"id":"m1","state":"connected"}]},
                {"id":"2","purpose":"workflow","endTime":"2026-07-01T10:00:00.000Z","messages":[{"id":"m2","state":"terminated"}]},
                {"id":"3","purpose":"acd","queueId":"5e0c0000-0000-4000-8000-000000000001","messages":[{"id":"m3","state":"connected"}]}]"#,
        );
        assert_eq!(
            moved.routing_participant().unwrap().id.as_deref(),
            Some("3")
        );
        assert!(!moved.has_ended());
        assert_eq!(
            moved.guest_communication().map(PlatformId::as_str),
            Some("m1")
        );
        assert_eq!(
            conversation(r#"[{"id":"1","purpose":"customer"}]"#).routing_participant(),
            None
        );
        let ended = conversation(
            r#"[{"id":"2","purpose":"agent","messages":[{"id":"m","state":"disconnected"}]}]"#,
        );
        assert_eq!(ended.routing_participant(), None);
        let leaving = conversation(
            r#"[{"id":"2","purpose":"workflow","messages":[{"id":"m","state":"terminated"}]}]"#,
        );
        assert_eq!(leaving.routing_participant(), None);
        let over = conversation(
            r#"[{"id":"1","purpose":"customer","endTime":"2026-07-01T10:00:00.000Z"}]"#,
        );
        assert!(over.has_ended());

        let wanted: Uuid = "5e0c0000-0000-4000-8000-000000000001".parse().unwrap();
        assert!(moved.has_visited_queue(wanted) && !leaving.has_visited_queue(wanted));
        let with_agent = conversation(
            r#"[{"id":"1","purpose":"customer"},{"id":"4","purpose":"agent","queueId":""}]"#,
        );
        assert!(
            with_agent.has_visited_queue(wanted) && with_agent.routing_participant().is_none(),
            "a conversation with an agent is not moved"
        );
    }

    #[test]
    fn participant_fields_may_be_absent_or_mistyped() {
        let odd = conversation(
            r#"[{"id":null,"purpose":null,"queueId":5,"messages":null},
                {"purpose":"customer","externalContactId":{},"messages":[{"id":"m1","state":3},"?"]}]"#,
        );
        assert_eq!(
            odd.guest_communication().map(PlatformId::as_str),
            Some("m1")
        );
        assert!(
            !odd.has_ended()
                && odd
                    .routing_participant()
                    .is_some_and(|holder| holder.id.is_none())
        );
        for none in ["null", "[]"] {
            assert!(conversation(none).participants.is_empty());
        }
    }

    #[test]
    fn invalid_ids_in_responses_are_not_accepted() {
        let long = "i".repeat(PlatformId::MAX + 1);
        for bad in ["a b", "..", &long] {
            let participant = format!(r#"{{"participants":[{{"id":"{bad}"}}]}}"#);
            assert!(serde_json::from_str::<ConversationAnswer>(&participant).is_err());
            let communication =
                format!(r#"{{"participants":[{{"messages":[{{"id":"{bad}"}}]}}]}}"#);
            let read: ConversationAnswer = serde_json::from_str(&communication).unwrap();
            assert!(
                read.participants[0].messages.is_empty(),
                "and so the contact is not linked to it"
            );
            assert!(
                serde_json::from_str::<MessageDetails>(&format!(r#"{{"conversationId":"{bad}"}}"#))
                    .is_err()
            );
        }
        let details: MessageDetails = serde_json::from_str(r#"{"conversationId":""}"#).unwrap();
        assert_eq!(details.conversation_id, None);
    }
}
