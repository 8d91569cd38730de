//! Redaction of requests and responses for logs: keeps the structure and the few values that are
//! neither secret nor personal.

use serde_json::Value;

use crate::text::{clean, one_line};

/// Maximum length of a logged body, in characters.
const MAX_SHAPE: usize = 16 * 1024;

/// Fields whose values may be logged. All other strings are replaced by their length, so that an
/// unknown field is never disclosed.
const UNREDACTED_FIELDS: &[&str] = &[
    "code",
    "contextId",
    "error",
    "expires_in",
    "grant_type",
    "id",
    "queueId",
    "routingTarget",
    "status",
    "token_type",
    "type",
];

/// Fields whose content has names chosen by callers: every string below them is redacted.
const OPAQUE_MAPS: &[&str] = &[
    "customAttributes",
    "attributes",
    "metadata",
    "messageParams",
];

/// Returns a JSON body in which every string is redacted that is not known to be harmless. A body
/// that is not JSON is replaced by its length.
pub fn redacted(body: &[u8]) -> String {
    match serde_json::from_slice::<Value>(body) {
        Ok(mut value) => {
            redact(&mut value, false);
            clean(&value.to_string(), MAX_SHAPE)
        }
        Err(_) => format!("<{} bytes>", body.len()),
    }
}

fn redact(value: &mut Value, shown: bool) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if OPAQUE_MAPS.contains(&name.as_str()) {
                    hide(value); // callers choose the names in it
                } else {
                    redact(value, UNREDACTED_FIELDS.contains(&name.as_str()));
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, shown)),
        Value::String(text) if !shown => *text = format!("<{} bytes>", text.len()),
        Value::String(text) => *text = one_line(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(hide),
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::String(text) => *text = format!("<{} bytes>", text.len()),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redaction_hides_values_and_keeps_the_json_shape() {
        let body =
            br#"{"type":"webchat","address":"guest-ann","customAttributes":{"guestToken":"ey.J.x","message":"gold"},"n":1}"#;
        let expected = r#"{"address":"<9 bytes>","customAttributes":{"guestToken":"<6 bytes>","message":"<4 bytes>"},"n":1,"type":"webchat"}"#;
        assert_eq!(redacted(body), expected);
        assert_eq!(redacted(b"client_secret=x"), "<15 bytes>");
    }

    #[test]
    fn redaction_hides_platform_messages_and_bounds_length() {
        let said =
            br#"{"error":"invalid_request","error_description":"bad value gold","message":"gold"}"#;
        assert!(!redacted(said).contains("gold"), "{}", redacted(said));
        let long =
            serde_json::json!({"id": "i".repeat(1_000_000), "list": vec!["x"; 10_000]}).to_string();
        assert!(redacted(long.as_bytes()).chars().count() <= MAX_SHAPE);
    }
}
