//! The calls of the surface `rest` (requirements R4 to R6, docs/requirements.md). The public platform
//! does not offer them in this form (docs/platform.md#not-on-the-platform).

use std::{borrow::Cow, collections::BTreeMap};

use http::Method;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    call_context::CallContext,
    client::{GenesysClient, RequestSpec, to_json},
    error::{CallError, Operation},
    foreign::{ApiPath, PlatformId},
    rate_limit::ExcludedClients,
    retry::{Completed, RetrySafety},
};

/// Request to create the guest's contact.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisterContactRequest<'a> {
    /// Always [`RegisterContactRequest::TYPE`].
    #[serde(rename = "type")]
    pub kind: Cow<'a, str>,
    /// `guest-<guest id>`
    pub address: Cow<'a, str>,
    /// The guest ID.
    pub external_contact_id: Cow<'a, str>,
    /// The guest token and the caller's attributes.
    pub custom_attributes: ContactAttributes<'a>,
}

/// Attributes stored with the contact. `guestToken` comes first, and no attribute of the caller can
/// have that name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContactAttributes<'a> {
    /// The guest token.
    pub guest_token: Cow<'a, str>,
    /// The caller's attributes.
    #[serde(flatten)]
    pub attributes: Cow<'a, BTreeMap<String, String>>,
}

/// The platform's response to a create request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedResource {
    /// The platform's ID of the resource.
    pub id: PlatformId,
}

/// Returns the address of a guest on the platform, by which the conversation refers to the contact.
pub fn guest_address(guest_id: &str) -> String {
    format!("guest-{guest_id}")
}

impl<'a> RegisterContactRequest<'a> {
    /// The contact type of web messaging guests.
    pub const TYPE: &'static str = "webchat";

    /// Creates the request for a guest.
    pub fn new(
        guest_id: &'a str,
        guest_token: &'a str,
        attributes: &'a BTreeMap<String, String>,
    ) -> Self {
        Self {
            kind: Self::TYPE.into(),
            address: guest_address(guest_id).into(),
            external_contact_id: guest_id.into(),
            custom_attributes: ContactAttributes {
                guest_token: guest_token.into(),
                attributes: Cow::Borrowed(attributes),
            },
        }
    }
}

/// Request to open a messaging conversation in a queue.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewConversation<'a> {
    /// The contact's address, `guest-<guest id>`.
    pub contact_id: Cow<'a, str>,
    /// Where to route the conversation.
    pub routing_data: RoutingData,
    /// Attributes for the inbound flow and downstream systems.
    pub custom_attributes: ConversationAttributes<'a>,
}

/// Where to route the conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoutingData {
    /// The queue.
    pub queue_id: Uuid,
    /// Always empty: requirement R5 has no skill requirements (docs/requirements.md).
    pub skill_requirements: Vec<String>,
}

/// Attributes for the inbound flow and downstream systems.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversationAttributes<'a> {
    /// The guest token.
    pub session_token: Cow<'a, str>,
    /// The queue, repeated.
    pub routing_target: Uuid,
}

impl<'a> NewConversation<'a> {
    /// Creates the request for a guest and a queue.
    pub fn new(guest_id: &str, queue_id: Uuid, guest_token: &'a str) -> Self {
        Self {
            contact_id: guest_address(guest_id).into(),
            routing_data: RoutingData {
                queue_id,
                skill_requirements: Vec::new(),
            },
            custom_attributes: ConversationAttributes {
                session_token: guest_token.into(),
                routing_target: queue_id,
            },
        }
    }
}

impl GenesysClient {
    /// `POST /api/v2/externalcontacts/contacts`: creates a contact (step A). Every attempt sends
    /// `idempotency_key` and the same bytes.
    ///
    /// # Errors
    ///
    /// Fails if the platform rejects the request, or gives no response before the deadline.
    pub async fn register_contact(
        &self,
        guest_id: &str,
        guest_token: &str,
        attributes: &BTreeMap<String, String>,
        idempotency_key: String,
        context: &CallContext,
    ) -> Result<Completed<CreatedResource>, CallError> {
        let request = RegisterContactRequest::new(guest_id, guest_token, attributes);
        let path = ApiPath::new("/api/v2/externalcontacts/contacts");
        self.create(Operation::Contact, path, &request, idempotency_key, context)
            .await
    }

    /// `POST /api/v2/conversations/messaging`: opens a conversation (step B). Every attempt sends
    /// `idempotency_key` and the same bytes.
    ///
    /// # Errors
    ///
    /// Fails if the platform rejects the request, or gives no response before the deadline.
    pub async fn open_conversation(
        &self,
        guest_id: &str,
        queue_id: Uuid,
        guest_token: &str,
        idempotency_key: String,
        context: &CallContext,
    ) -> Result<Completed<CreatedResource>, CallError> {
        let request = NewConversation::new(guest_id, queue_id, guest_token);
        let path = ApiPath::new("/api/v2/conversations/messaging");
        let operation = Operation::OpenConversation;
        self.create(operation, path, &request, idempotency_key, context)
            .await
    }

    async fn create(
        &self,
        operation: Operation,
        path: ApiPath,
        request: &impl Serialize,
        idempotency_key: String,
        context: &CallContext,
    ) -> Result<Completed<CreatedResource>, CallError> {
        let call = RequestSpec {
            operation,
            method: Method::POST,
            path,
            idempotency_key: Some(idempotency_key),
            body: to_json(request),
            repeat: RetrySafety::Idempotent,
            tried: ExcludedClients::default(),
        };
        self.call(&call, context).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const QUEUE: &str = "7a1f0000-0000-4000-8000-000000000001";

    #[test]
    fn payloads_match_requirements_byte_for_byte() {
        let attributes = BTreeMap::from([
            ("tier".into(), "premium".into()),
            ("source".into(), "web-portal".into()),
        ]);
        let contact = RegisterContactRequest::new("user-8842-xyz", "T.O.K", &attributes);
        assert_eq!(
            serde_json::to_string(&contact).unwrap(),
            r#"{"type":"webchat","address":"guest-user-8842-xyz","externalContactId":"user-8842-xyz","customAttributes":{"guestToken":"T.O.K","source":"web-portal","tier":"premium"}}"#
        );
        let conversation = NewConversation::new("user-8842-xyz", QUEUE.parse().unwrap(), "T.O.K");
        assert_eq!(
            serde_json::to_string(&conversation).unwrap(),
            format!(
                r#"{{"contactId":"guest-user-8842-xyz","routingData":{{"queueId":"{QUEUE}","skillRequirements":[]}},"customAttributes":{{"sessionToken":"T.O.K","routingTarget":"{QUEUE}"}}}}"#
            )
        );
    }
}
