//! Open Messaging: an organization's own channel delivers the guest's messages
//! (docs/platform.md#open-messaging).

use std::collections::BTreeMap;

use guestlane_runtime::Timestamp;
use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    organization::Organization,
    request::parse,
    response::{self, Body, Refusal},
};

impl Organization {
    /// `POST /api/v2/conversations/messages/{integrationId}/inbound/open/message`
    pub(crate) fn open_message(
        &mut self,
        integration: &str,
        body: &[u8],
        prefetch: bool,
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        let integration = self.known_integration(integration)?;
        let message: Value = parse(body)?;
        let (from, attributes) = check(&message)?;
        let thread = format!("{integration}/{from}");
        let theirs = message["channel"]["messageId"]
            .as_str()
            .map(|id| format!("{thread}/{id}"));
        if let Some(answer) = theirs
            .as_ref()
            .filter(|_| self.options.dedupe_open_messages)
            .and_then(|id| self.conversations.answered.get(id))
        {
            return Ok(response::json(StatusCode::OK, answer));
        }
        let guest = attributes
            .get("guestId")
            .cloned()
            .unwrap_or_else(|| from.to_owned());
        let living = self.conversations.threads.get(&thread).copied();
        let living = living.filter(|id| {
            self.conversations
                .get(*id)
                .is_some_and(|known| known.ended.is_none())
        });
        let conversation = match living {
            Some(conversation) => conversation,
            None => self.begin_conversation("open", None, &guest, attributes.clone(), now),
        };
        self.conversations.threads.insert(thread, conversation);
        self.gain_attributes(conversation, attributes);
        if let Some(known) = self.conversations.get_mut(conversation) {
            known.on_guest_message(false);
        }
        let id = self.new_id().simple().to_string();
        let provider_id = message["channel"]["messageId"].as_str().map(str::to_owned);
        self.conversations
            .record(&id, Some(conversation), true, provider_id.clone(), now);
        let mut shown = json!({
            "id": id, "type": "Text", "direction": "Inbound", "text": message["text"],
            "channel": {
                "id": integration, "platform": "Open", "type": "Private", "messageId": provider_id,
                "from": message["channel"]["from"], "to": {"id": integration}, "time": message["channel"]["time"],
                "metadata": message["channel"]["metadata"],
            },
        });
        for field in ["content", "metadata"] {
            if !message[field].is_null() {
                shown[field] = message[field].clone();
            }
        }
        if prefetch && self.options.prefetch {
            shown["conversationId"] = json!(conversation);
        }
        if let Some(theirs) = theirs.filter(|_| self.options.dedupe_open_messages) {
            self.conversations.answered.insert(theirs, shown.clone());
        }
        Ok(response::json(StatusCode::OK, &shown))
    }

    pub(crate) fn known_integration(&self, id: &str) -> Result<Uuid, Refusal> {
        let id = Uuid::try_parse(id)
            .map_err(|_| Refusal::bad_request("The integration id is not a UUID."))?;
        if id == self.options.integration {
            Ok(id)
        } else {
            Err(Refusal::not_found())
        }
    }
}

/// Validates a message, and returns the sender's ID and the custom attributes.
fn check(message: &Value) -> Result<(&str, BTreeMap<String, String>), Refusal> {
    let channel = &message["channel"];
    let from = channel["from"]["id"].as_str().filter(|id| !id.is_empty());
    let from = from.ok_or_else(|| Refusal::bad_request("channel.from.id is missing."))?;
    let id_type = channel["from"]["idType"].as_str().unwrap_or_default();
    // A message with `email` was delivered by the platform, although the model has `Email`.
    if !["Email", "Phone", "Opaque"]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(id_type))
    {
        return Err(Refusal::bad_request(
            "channel.from.idType is not Email, Phone or Opaque.",
        ));
    }
    let time = channel["time"]
        .as_str()
        .and_then(|time| time.parse::<Timestamp>().ok());
    time.ok_or_else(|| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "invalid.date",
            "channel.time is not a date in ISO 8601.",
        )
    })?;
    let said = message["text"]
        .as_str()
        .is_some_and(|text| !text.is_empty());
    if !said && message["content"].as_array().is_none_or(Vec::is_empty) {
        return Err(Refusal::bad_request(
            "The message has neither text nor content.",
        ));
    }
    let strings = |name: &str, value: &Value| match value {
        Value::Null => Ok(BTreeMap::new()),
        _ => BTreeMap::deserialize(value)
            .map_err(|_| Refusal::bad_request(format!("{name} is not an object of strings."))),
    };
    strings("metadata", &message["metadata"])?;
    Ok((
        from,
        strings(
            "channel.metadata.customAttributes",
            &channel["metadata"]["customAttributes"],
        )?,
    ))
}
