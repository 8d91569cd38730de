//! Operations on conversations: find, read, link to a contact, transfer
//! (docs/platform.md#conversations).

use guestlane_runtime::Timestamp;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    organization::{
        Organization,
        conversations::{Conversation, Participant},
    },
    request::parse,
    response::{self, Body, Refusal},
};

impl Organization {
    /// `GET /api/v2/conversations/messages/{messageId}/details`: 404 until the delay has passed.
    pub(crate) fn details(&self, id: &str, now: Timestamp) -> Result<Response<Body>, Refusal> {
        let record = self
            .conversations
            .messages
            .get(id)
            .ok_or_else(Refusal::not_found)?;
        let visible = record
            .conversation
            .filter(|_| now >= record.at + self.options.details_delay);
        let conversation = visible.ok_or_else(Refusal::not_found)?;
        let kind = self
            .conversations
            .get(conversation)
            .map(|known| known.kind)
            .unwrap_or_default();
        Ok(response::json(
            StatusCode::OK,
            &json!({
                "id": id, "direction": if record.inbound { "inbound" } else { "outbound" }, "messengerType": kind,
                "providerMessageId": record.provider_id, "status": if record.inbound { "received" } else { "sent" },
                "timestamp": record.at, "conversationId": conversation,
                "fromAddress": if record.inbound { "guest".to_owned() } else { self.address(kind) },
                "toAddress": if record.inbound { self.address(kind) } else { "guest".to_owned() },
                "selfUri": format!("/api/v2/conversations/messages/{conversation}/messages/{id}"),
            }),
        ))
    }

    fn address(&self, kind: &str) -> String {
        if kind == "open" {
            self.options.integration.to_string()
        } else {
            self.options.deployment.id.to_string()
        }
    }

    fn conversation(&self, id: &str) -> Result<(Uuid, &Conversation), Refusal> {
        let id = conversation_id(id)?;
        Ok((
            id,
            self.conversations.get(id).ok_or_else(Refusal::not_found)?,
        ))
    }

    fn conversation_mut(&mut self, id: &str) -> Result<(Uuid, &mut Conversation), Refusal> {
        let id = conversation_id(id)?;
        Ok((
            id,
            self.conversations
                .get_mut(id)
                .ok_or_else(Refusal::not_found)?,
        ))
    }

    /// `GET /api/v2/conversations/{conversationId}`
    pub(crate) fn read_conversation(
        &self,
        id: &str,
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        let (id, known) = self.conversation(id)?;
        let communication = |communication: Uuid, ended: Option<Timestamp>| {
            let details = |message: &String| {
                let at = self
                    .conversations
                    .messages
                    .get(message)
                    .map(|record| record.at);
                json!({"messageId": message, "messageTime": at, "messageStatus": "received"})
            };
            json!([{
                "id": communication, "state": state(ended), "type": known.kind,
                "messages": known.messages.iter().map(details).collect::<Vec<_>>(),
            }])
        };
        let mut customer = json!({
            "id": known.customer, "purpose": "customer", "startTime": known.started, "connectedTime": known.started,
            "attributes": known.attributes, "messages": communication(known.communication, known.ended),
        });
        if let Some(ended) = known.ended {
            customer["endTime"] = json!(ended);
        }
        if known.authenticated {
            customer["authenticated"] = json!(true);
        }
        if let Some(contact) = known.contact(now) {
            customer["externalContactId"] = json!(contact);
        }
        let other = |other: &Participant| {
            // Each participant has a communication that begins and ends with it.
            let mut shown = json!({
                "id": other.id, "purpose": other.purpose, "startTime": other.started, "connectedTime": other.started,
                "state": state(other.ended), "attributes": other.attributes,
                "messages": [{"id": Uuid::from_u128(other.id.as_u128() ^ 1 << 64), "state": state(other.ended), "type": known.kind}],
            });
            if let Some(queue) = other.queue {
                shown["queueId"] = json!(queue);
            }
            if let Some(ended) = other.ended {
                shown["endTime"] = json!(ended);
            }
            shown
        };
        let participants: Vec<Value> = std::iter::once(customer)
            .chain(known.others.iter().map(other))
            .collect();
        let mut shown = json!({
            "id": id, "startTime": known.started, "participants": participants,
            "selfUri": format!("/api/v2/conversations/{id}"),
        });
        if let Some(ended) = known.ended {
            shown["endTime"] = json!(ended);
        }
        Ok(response::json(StatusCode::OK, &shown))
    }

    /// `PUT /api/v2/externalcontacts/conversations/{conversationId}`: accepted immediately, visible
    /// after the delay.
    pub(crate) fn link(
        &mut self,
        id: &str,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        let body: Value = parse(body)?;
        let wanted = conversation_id(id)?;
        if uuid(&body["conversationId"]) != Some(wanted) {
            return Err(Refusal::bad_request(
                "conversationId is not the one in the path.",
            ));
        }
        if body["mediaType"] != "MESSAGE" {
            return Err(Refusal::bad_request(
                "mediaType is not MESSAGE, and this conversation has messages.",
            ));
        }
        let contact = match &body["externalContactId"] {
            Value::Null => None,
            id => Some(
                uuid(id)
                    .and_then(|id| self.contacts.resolve_merged(id))
                    .ok_or_else(Refusal::not_found)?,
            ),
        };
        let seen = now + self.options.link_delay;
        let (_, known) = self.conversation_mut(id)?;
        if uuid(&body["communicationId"]) != Some(known.communication) {
            return Err(Refusal::bad_request(
                "communicationId is not the customer's.",
            ));
        }
        known.linked_before = known.contact(now);
        known.link = Some((contact, seen));
        Ok(response::empty(StatusCode::ACCEPTED))
    }

    /// `PATCH /api/v2/conversations/{conversationId}/participants/{participantId}/attributes`
    pub(crate) fn set_attributes(
        &mut self,
        id: &str,
        participant: &str,
        body: &[u8],
    ) -> Result<Response<Body>, Refusal> {
        let (_, known) = self.conversation_mut(id)?;
        let participant = participant_id(participant)?;
        let other = known
            .others
            .iter_mut()
            .find(|other| other.id == participant);
        let attributes = match other {
            Some(other) => &mut other.attributes,
            None if participant == known.customer => &mut known.attributes,
            None => return Err(Refusal::not_found()),
        };
        #[derive(serde::Deserialize)]
        struct Given {
            attributes: std::collections::BTreeMap<String, String>,
        }
        let given: Given = parse(body)?;
        attributes.extend(given.attributes);
        Ok(response::empty(StatusCode::ACCEPTED))
    }

    /// `POST /api/v2/conversations/{conversationId}/participants/{participantId}/replace/queue`
    pub(crate) fn transfer(
        &mut self,
        id: &str,
        participant: &str,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        let body: Value = parse(body)?;
        let queues = &self.options.queues;
        let queue = match (&body["queueId"], body["queueName"].as_str()) {
            (Value::Null, None) => {
                return Err(Refusal::bad_request("queueId or queueName is needed."));
            }
            (Value::Null, Some(name)) => queues
                .iter()
                .find(|queue| queue.name == name)
                .ok_or_else(|| Refusal::bad_request("queueName is not the name of a queue."))?,
            (id, _) => {
                let id = uuid(id).ok_or_else(|| Refusal::bad_request("queueId is not a UUID."))?;
                queues
                    .iter()
                    .find(|queue| queue.id == id)
                    .ok_or_else(Refusal::not_found)?
            }
        };
        let (queue, next) = (queue.id, self.new_id());
        let (_, known) = self.conversation_mut(id)?;
        let participant = participant_id(participant)?;
        if participant == known.customer {
            return Err(Refusal::bad_request("The customer cannot be replaced."));
        }
        let left = known
            .others
            .iter_mut()
            .find(|other| other.id == participant)
            .ok_or_else(Refusal::not_found)?;
        if known.ended.is_some() || left.ended.is_some() {
            let message = "The participant is no longer connected.";
            return Err(Refusal::new(StatusCode::CONFLICT, "conflict", message));
        }
        left.ended = Some(now);
        known
            .others
            .push(Participant::new(next, "acd", Some(queue), now));
        self.conversations.transfers += 1;
        Ok(response::empty(StatusCode::ACCEPTED))
    }
}

fn state(ended: Option<Timestamp>) -> &'static str {
    if ended.is_some() {
        "disconnected"
    } else {
        "connected"
    }
}

fn uuid(value: &Value) -> Option<Uuid> {
    Uuid::try_parse(value.as_str()?).ok()
}

fn conversation_id(text: &str) -> Result<Uuid, Refusal> {
    Uuid::try_parse(text).map_err(|_| Refusal::bad_request("The conversation id is not a UUID."))
}

fn participant_id(text: &str) -> Result<Uuid, Refusal> {
    Uuid::try_parse(text).map_err(|_| Refusal::bad_request("The participant id is not a UUID."))
}
