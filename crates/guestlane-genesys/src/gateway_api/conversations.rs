//! `POST /api/v2/conversations/messaging` on the surface `rest` (requirements R5 and R6,
//! docs/requirements.md). The public platform has no such operation
//! (docs/platform.md#not-on-the-platform).

use std::borrow::Cow;

use http::Method;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    call_context::CallContext,
    client::{GenesysClient, RequestSpec},
    error::{CallError, Operation},
    foreign::ApiPath,
    gateway_api::contacts::{CreatedResource, guest_address, to_json},
    rate_limit::ExcludedClients,
    retry::{Completed, RetrySafety},
};

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
    /// Opens a conversation (step B). Every attempt sends `idempotency_key` and the same bytes.
    ///
    /// # Errors
    ///
    /// Fails if the platform rejects the request, or gives no response before `deadline`.
    pub async fn open_conversation(
        &self,
        conversation: &NewConversation<'_>,
        idempotency_key: String,
        context: &CallContext,
    ) -> Result<Completed<CreatedResource>, CallError> {
        let call = RequestSpec {
            operation: Operation::OpenConversation,
            method: Method::POST,
            path: ApiPath::new("/api/v2/conversations/messaging"),
            idempotency_key: Some(idempotency_key),
            body: to_json(conversation),
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
    use crate::gateway_api::contacts::RegisterContactRequest;

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
