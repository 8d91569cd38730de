//! Open Messaging: sends a guest's inbound message (docs/platform.md#open-messaging).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    call_context::CallContext,
    client::{GenesysClient, RequestSpec, to_json},
    error::{CallError, Operation},
    foreign::{ApiPath, PlatformId, lenient},
    retry::{Completed, RetrySafety},
};

/// An inbound message of a guest.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct InboundMessage<'a> {
    /// Sender, time and ID of the message.
    pub channel: OpenChannel<'a>,
    /// The text.
    pub text: &'a str,
}

/// Sender, time and ID of a message.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenChannel<'a> {
    /// The sender.
    pub from: OpenSender<'a>,
    /// The message ID, chosen by this client.
    pub message_id: String,
    /// The time of the message, RFC 3339.
    pub time: String,
    /// Custom attributes.
    pub metadata: OpenMetadata,
}

/// The sender of a message.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenSender<'a> {
    /// The sender's ID. Messages with the same ID join the same conversation while it lives.
    pub id: String,
    /// Always `Opaque`.
    pub id_type: &'static str,
    /// The name that agents see.
    pub nickname: &'a str,
    /// First name, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_name: Option<&'a str>,
    /// Last name, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_name: Option<&'a str>,
}

/// Metadata with the custom attributes.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenMetadata {
    /// Custom attributes for the inbound flow.
    pub custom_attributes: BTreeMap<String, String>,
}

/// Response to an inbound message.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedMessage {
    /// The platform's message ID, with which the conversation is looked up.
    pub id: PlatformId,
    /// The conversation, if the platform returns it immediately. It can be looked up later.
    #[serde(default, deserialize_with = "lenient")]
    pub conversation_id: Option<PlatformId>,
}

impl GenesysClient {
    /// Sends a guest's inbound message. A retry may repeat the message: no source says whether the
    /// platform drops a message ID that it has seen (docs/platform.md#open-messaging). It never
    /// creates a second conversation, because the sender is the same.
    ///
    /// # Errors
    ///
    /// Fails if the platform rejects the request, or gives no response before `deadline`.
    pub async fn send_inbound_message(
        &self,
        integration: Uuid,
        message: &InboundMessage<'_>,
        context: &CallContext,
    ) -> Result<Completed<AcceptedMessage>, CallError> {
        let path = ApiPath::new("/api/v2/conversations/messages")
            .segment(integration)
            .then("/inbound/open/message?prefetchConversationId=true");
        let call = RequestSpec::post(
            Operation::OpenMessage,
            path,
            to_json(message),
            RetrySafety::Idempotent,
        );
        self.call(&call, context).await
    }
}
