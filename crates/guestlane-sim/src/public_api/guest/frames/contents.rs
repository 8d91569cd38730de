//! Which message contents are well formed.

use serde_json::Value;

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
