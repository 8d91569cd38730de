//! What a message says: text, content, events, attributes (docs/platform.md#guest-frames).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::foreign::{PlatformId, lenient, lenient_list};

/// A message of a guest, an agent or a bot. Every field may be absent, and fields nobody knows are kept.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Message {
    /// The platform's id of it: the key of the details look-up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "lenient")]
    pub id: Option<PlatformId>,
    /// `Text`, `Structured`, `Event`, `Receipt` or `Message`.
    #[serde(rename = "type")]
    #[serde(deserialize_with = "lenient")]
    pub kind: String,
    /// `Inbound` is from the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "lenient")]
    pub direction: Option<Direction>,
    /// What was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "lenient")]
    pub text: Option<String>,
    /// Attachments, quick replies, cards, pickers, forms.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[serde(deserialize_with = "lenient_list")]
    pub content: Vec<Content>,
    /// Presence, typing, and the like.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[serde(deserialize_with = "lenient_list")]
    pub events: Vec<Event>,
    /// `Human` or `Bot`, of outbound messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "lenient")]
    pub originating_entity: Option<String>,
    /// Strings by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[serde(deserialize_with = "lenient")]
    pub metadata: BTreeMap<String, String>,
    /// When and by whom; and the custom attributes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "lenient")]
    pub channel: Option<Channel>,
    /// What this version does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What guests say stays out of logs.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("direction", &self.direction)
            .field("events", &self.events.iter().map(|event| &event.kind).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Who sent a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// The guest.
    Inbound,
    /// The organization.
    Outbound,
    /// A direction that this version does not know.
    #[serde(other)]
    Unknown,
}

/// One piece of content: `contentType`, and a field named after it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// `Attachment`, `QuickReply`, `ButtonResponse`, `Card`, `Carousel`, `DatePicker`, `ListPicker`, `Form`, …
    pub content_type: String,
    /// The piece itself.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// One event: `eventType`, and a field named after it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// `Presence`, `Typing`, `CoBrowse`, `Video`, `Reactions`.
    #[serde(rename = "eventType")]
    pub kind: String,
    /// Of `Presence`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence: Option<Presence>,
    /// Of the others.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// Somebody comes or goes.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// `Join`, `Clear`, `Disconnect`, `SignIn`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// What else comes with it.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// The channel of a message.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Channel {
    /// Custom attributes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "lenient")]
    pub metadata: Option<ChannelMetadata>,
    /// Time, type, sender, and the like.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// `channel.metadata`: the supported place of custom attributes (docs/platform.md#attributes).
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChannelMetadata {
    /// Strings by name, for the inbound flow.
    #[serde(deserialize_with = "lenient")]
    pub custom_attributes: BTreeMap<String, String>,
    /// What else comes with it.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// Bytes of all names and values, as `maxCustomDataBytes` counts them
/// (docs/platform.md#attributes).
pub fn attribute_bytes(attributes: &BTreeMap<String, String>) -> usize {
    attributes.iter().map(|(name, value)| name.len() + value.len()).sum()
}

impl Message {
    /// A text of the guest.
    pub fn text(text: impl Into<String>) -> Self {
        Self { kind: "Text".to_owned(), text: Some(text.into()), ..Self::default() }
    }

    /// The guest is there, and has said nothing yet.
    pub fn join() -> Self {
        let presence = Presence { kind: "Join".to_owned(), fields: Map::new() };
        let event = Event { kind: "Presence".to_owned(), presence: Some(presence), fields: Map::new() };
        Self { kind: "Event".to_owned(), events: vec![event], ..Self::default() }
    }

    /// With attributes for the inbound flow.
    pub fn with_attributes(self, attributes: BTreeMap<String, String>) -> Self {
        let metadata = ChannelMetadata { custom_attributes: attributes, fields: Map::new() };
        Self { channel: Some(Channel { metadata: Some(metadata), fields: Map::new() }), ..self }
    }

    /// Its custom attributes, at the supported place.
    pub fn attributes(&self) -> Option<&BTreeMap<String, String>> {
        Some(&self.channel.as_ref()?.metadata.as_ref()?.custom_attributes)
    }

    /// Whether it is the presence event of that type.
    pub fn is_presence(&self, kind: &str) -> bool {
        self.events.iter().filter_map(|event| event.presence.as_ref()).any(|presence| presence.kind == kind)
    }
}
