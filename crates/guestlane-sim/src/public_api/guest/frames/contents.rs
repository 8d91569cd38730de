//! Which message contents are well formed.

use guestlane_genesys::guest::frame::Body;
use guestlane_runtime::Timestamp;
use serde_json::Value;

use super::{super::ECHOES_PER_MINUTE, Reply, response, too_fast};
use crate::organization::Organization;

/// What a guest may send (docs/platform.md#guest-frames).
const CONTENTS: [&str; 11] = [
    "Attachment",
    "QuickReply",
    "QuickReplyV2",
    "ButtonResponse",
    "Card",
    "Carousel",
    "DatePicker",
    "ListPicker",
    "Form",
    "Generic",
    "Text",
];

const EVENTS: [&str; 5] = ["Presence", "Typing", "CoBrowse", "Video", "Reactions"];

/// Returns whether each content and each event has a known type and the fields that its type
/// requires.
pub(super) fn well_formed(message: &Value) -> bool {
    let is_text = |value: &Value| value.is_string();
    let says = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let all = |list: &Value, good: &dyn Fn(&Value) -> bool| match list {
        Value::Null => true,
        Value::Array(list) => list.iter().all(good),
        _ => false,
    };
    let content = |content: &Value| match content["contentType"].as_str().unwrap_or_default() {
        "ButtonResponse" => {
            let button = &content["buttonResponse"];
            says(&button["type"]) && is_text(&button["text"]) && is_text(&button["payload"])
        }
        kind => CONTENTS.contains(&kind),
    };
    let event = |event: &Value| match event["eventType"].as_str().unwrap_or_default() {
        "Presence" => says(&event["presence"]["type"]),
        kind => EVENTS.contains(&kind),
    };
    all(&message["content"], &content) && all(&message["events"], &event)
}

impl Organization {
    pub(super) fn echo(
        &mut self,
        connection: u64,
        key: &str,
        message: guestlane_genesys::guest::event::Message,
        tracing_id: Option<String>,
        now: Timestamp,
    ) -> Reply {
        if let Some(known) = self.guests.connections.get_mut(&connection) {
            let (rate, room) = known.echoes.take_of_minute(ECHOES_PER_MINUTE, now);
            if !room {
                return too_fast("Too many echoes on this connection", rate, &tracing_id).into();
            }
        }
        let mut said = self.inbound(message, now);
        if let Some(session) = self.guests.sessions.get(key) {
            let seconds = self.options.deployment.session_seconds.to_string();
            said.metadata.insert("durationSeconds".to_owned(), seconds);
            said.metadata.insert(
                "expirationDate".to_owned(),
                session.expires_at.unix_seconds().to_string(),
            );
            if session.subject.is_some() {
                said.metadata
                    .insert("authenticated".to_owned(), "true".to_owned());
            }
        }
        response(Body::Structured(said.into()), tracing_id).into()
    }
}
