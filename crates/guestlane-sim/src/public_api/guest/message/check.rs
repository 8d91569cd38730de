//! Which messages the guest API accepts.

use guestlane_genesys::guest::event::{Event, Message, Presence, attribute_bytes};
use guestlane_runtime::Timestamp;
use serde_json::{Map, Value};

use crate::{options::MAX_ATTRIBUTES, organization::Organization};

/// The maximum length of a guest's text (docs/platform.md#guest-limits).
const MAX_TEXT: usize = 4096;

const KINDS: [&str; 5] = ["Text", "Structured", "Event", "Receipt", "Message"];

pub(super) fn presence(kind: &str) -> Message {
    let presence = Presence {
        kind: kind.to_owned(),
        fields: Map::new(),
    };
    let event = Event {
        kind: "Presence".to_owned(),
        presence: Some(presence),
        fields: Map::new(),
    };
    Message {
        kind: "Event".to_owned(),
        events: vec![event],
        ..Message::default()
    }
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(fields) = value {
        fields
    } else {
        Map::new()
    }
}

impl Organization {
    pub(super) fn check(
        &mut self,
        key: &str,
        message: &mut Message,
        clears: bool,
        now: Timestamp,
    ) -> Result<(), (u16, String)> {
        if !KINDS.contains(&message.kind.as_str()) {
            return Err((400, "Request failed.".to_owned()));
        }
        let text = message.text.as_deref().unwrap_or_default();
        let length = text.chars().count();
        if length > MAX_TEXT {
            return Err((
                4011,
                format!("Message length {length} is larger than {MAX_TEXT}"),
            ));
        }
        if message
            .attributes()
            .is_some_and(|attributes| attribute_bytes(attributes) > MAX_ATTRIBUTES)
        {
            return Err((
                4013,
                format!(
                    "Custom Attributes in channel metadata is larger than {MAX_ATTRIBUTES} bytes"
                ),
            ));
        }
        if clears && !self.options.deployment.clear {
            return Err((
                403,
                "Presence events Conversation Clear are not supported".to_owned(),
            ));
        }
        let says_nothing = match message.kind.as_str() {
            "Text" | "Structured" => text.is_empty() && message.content.is_empty(),
            "Event" => message.events.is_empty(),
            "Message" => text.is_empty() && message.content.is_empty() && message.events.is_empty(),
            _ => false,
        };
        if says_nothing {
            return Err((400, "Request failed.".to_owned()));
        }
        for content in message
            .content
            .iter_mut()
            .filter(|content| content.content_type == "Attachment")
        {
            self.attached(key, &mut content.fields, now)?;
        }
        // Only now that nothing else is wrong with it.
        for content in message
            .content
            .iter()
            .filter(|content| content.content_type == "Attachment")
        {
            self.sent(
                key,
                content
                    .fields
                    .get("attachment")
                    .and_then(|file| file["id"].as_str())
                    .unwrap_or_default(),
            );
        }
        Ok(())
    }
}
