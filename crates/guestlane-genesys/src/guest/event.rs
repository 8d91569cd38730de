//! Content of a message: text, attachments, events and attributes (docs/platform.md#guest-frames).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::foreign::{PlatformId, lenient, lenient_list};

/// A message of a guest, an agent or a bot. Every field may be absent, and unknown fields are kept.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Message {
    /// The platform's message ID, with which the conversation is looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "lenient")]
    pub id: Option<PlatformId>,
    /// `Text`, `Structured`, `Event`, `Receipt` or `Message`.
    #[serde(rename = "type")]
    #[serde(deserialize_with = "lenient")]
    pub kind: String,
    /// `Inbound` for messages of the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "lenient")]
    pub direction: Option<Direction>,
    /// The text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "lenient")]
    pub text: Option<String>,
    /// Attachments, quick replies, cards, pickers, forms.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[serde(deserialize_with = "lenient_list")]
    pub content: Vec<Content>,
    /// Presence, typing and other events.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[serde(deserialize_with = "lenient_list")]
    pub events: Vec<Event>,
    /// `Human` or `Bot`, on outbound messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "lenient")]
    pub originating_entity: Option<String>,
    /// Metadata as strings by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[serde(deserialize_with = "lenient")]
    pub metadata: BTreeMap<String, String>,
    /// Time, sender and custom attributes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "lenient")]
    pub channel: Option<Channel>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Omits the content, so that messages of guests stay out of logs.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("direction", &self.direction)
            .field(
                "events",
                &self
                    .events
                    .iter()
                    .map(|event| &event.kind)
                    .collect::<Vec<_>>(),
            )
            .finish_non_exhaustive()
    }
}

/// Direction of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// From the guest.
    Inbound,
    /// From the organization.
    Outbound,
    /// A direction that this version does not know.
    #[serde(other)]
    Unknown,
}

/// One content item: `contentType`, and a field of that name.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// `Attachment`, `QuickReply`, `ButtonResponse`, `Card`, `Carousel`, `DatePicker`,
    /// `ListPicker`, `Form`, …
    pub content_type: String,
    /// The fields of the item.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// One event: `eventType`, and a field of that name.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// `Presence`, `Typing`, `CoBrowse`, `Video`, `Reactions`.
    #[serde(rename = "eventType")]
    pub kind: String,
    /// The details of a `Presence` event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence: Option<Presence>,
    /// The fields of other events.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// The details of a presence event: a participant joins or leaves.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// `Join`, `Clear`, `Disconnect`, `SignIn`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Other fields.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// The channel of a message.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Channel {
    /// The metadata with the custom attributes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "lenient")]
    pub metadata: Option<ChannelMetadata>,
    /// Time, type, sender and other fields.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// `channel.metadata`: the supported location of custom attributes (docs/platform.md#attributes).
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChannelMetadata {
    /// Custom attributes for the inbound flow.
    #[serde(deserialize_with = "lenient")]
    pub custom_attributes: BTreeMap<String, String>,
    /// Other fields.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// Returns the number of bytes of all names and values, as counted for `maxCustomDataBytes`
/// (docs/platform.md#attributes).
pub fn attribute_bytes(attributes: &BTreeMap<String, String>) -> usize {
    attributes
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum()
}

impl Message {
    /// Creates a text message of the guest.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            kind: "Text".to_owned(),
            text: Some(text.into()),
            ..Self::default()
        }
    }

    /// Creates the presence event by which a guest joins without a message.
    pub fn join() -> Self {
        let presence = Presence {
            kind: "Join".to_owned(),
            fields: Map::new(),
        };
        let event = Event {
            kind: "Presence".to_owned(),
            presence: Some(presence),
            fields: Map::new(),
        };
        Self {
            kind: "Event".to_owned(),
            events: vec![event],
            ..Self::default()
        }
    }

    /// Adds attributes for the inbound flow.
    pub fn with_attributes(self, attributes: BTreeMap<String, String>) -> Self {
        let metadata = ChannelMetadata {
            custom_attributes: attributes,
            fields: Map::new(),
        };
        Self {
            channel: Some(Channel {
                metadata: Some(metadata),
                fields: Map::new(),
            }),
            ..self
        }
    }

    /// Returns the custom attributes in their supported location.
    pub fn attributes(&self) -> Option<&BTreeMap<String, String>> {
        Some(&self.channel.as_ref()?.metadata.as_ref()?.custom_attributes)
    }

    /// Whether the message contains a presence event of this type.
    pub fn is_presence(&self, kind: &str) -> bool {
        self.events
            .iter()
            .filter_map(|event| event.presence.as_ref())
            .any(|presence| presence.kind == kind)
    }
}
