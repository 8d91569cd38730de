//! Open Messaging: a guest's message brought in by us (docs/platform.md#open-messaging).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    client::{GenesysClient, RequestSpec, RetrySafety},
    clock::Timestamp,
    error::{CallError, Operation},
    foreign::{ApiPath, PlatformId, lenient},
    gateway_api::contacts::to_json,
    retry::Completed,
};

/// A guest's message.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct InboundMessage<'a> {
    /// From whom, when, under which id.
    pub channel: OpenChannel<'a>,
    /// What is said.
    pub text: &'a str,
}

/// From whom, when, under which id.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenChannel<'a> {
    /// From whom.
    pub from: OpenSender<'a>,
    /// Our id of the message.
    pub message_id: String,
    /// When, RFC 3339.
    pub time: String,
    /// Custom attributes.
    pub metadata: OpenMetadata,
}

/// From whom.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenSender<'a> {
    /// The same id is the same conversation, for as long as that lives.
    pub id: String,
    /// Always `Opaque`.
    pub id_type: &'static str,
    /// What agents see.
    pub nickname: &'a str,
    /// If known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_name: Option<&'a str>,
    /// If known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_name: Option<&'a str>,
}

/// Where custom attributes go.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenMetadata {
    /// Strings by name, for the inbound flow.
    pub custom_attributes: BTreeMap<String, String>,
}

/// What the platform answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedMessage {
    /// The platform's id of the message: the key of the details look-up.
    pub id: PlatformId,
    /// Its conversation, where the platform tells it at once. It can be looked up later.
    #[serde(default, deserialize_with = "lenient")]
    pub conversation_id: Option<PlatformId>,
}

impl GenesysClient {
    /// Brings a guest's message in. Repeating it may repeat the message: no source says whether the
    /// platform drops a message ID that it has seen (docs/platform.md#open-messaging). It never makes
    /// a second conversation: the sender is the same.
    pub async fn send_inbound_message(
        &self,
        integration: Uuid,
        message: &InboundMessage<'_>,
        deadline: Timestamp,
    ) -> Result<Completed<AcceptedMessage>, CallError> {
        let path = ApiPath::new("/api/v2/conversations/messages")
            .segment(integration)
            .then("/inbound/open/message?prefetchConversationId=true");
        let call = RequestSpec::post(Operation::OpenMessage, path, to_json(message), RetrySafety::Idempotent);
        self.call(&call, deadline).await
    }
}
