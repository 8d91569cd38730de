//! Bodies of server frames.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::foreign::{lenient, lenient_number, token};

/// The current state of the session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionResponse {
    /// Whether the session exists.
    pub connected: bool,
    /// Whether this request created the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub new_session: Option<bool>,
    /// Whether the conversation has ended, so that no message can be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub read_only: Option<bool>,
    /// Whether an older session of the same guest was ended by this request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub cleared_existing_session: Option<bool>,
    /// File types that may be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_media: Option<Value>,
    /// File extensions that may not be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub blocked_extensions: Option<Vec<String>>,
    /// Maximum size of the custom attributes in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient_number")]
    pub max_custom_data_bytes: Option<usize>,
    /// Lifetime of the session after the last message, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient_number")]
    pub duration_seconds: Option<u64>,
    /// Expiry of the session, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient_number")]
    pub expiration_date: Option<i64>,
    /// Whether the presence event was already sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub auto_started: Option<bool>,
}

/// The JWT that grants access to the history.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwt {
    /// The JWT, signed by the platform; opaque to the client.
    #[serde(deserialize_with = "token")]
    pub jwt: String,
    /// Expiry in seconds since 1970, about one minute in the future.
    #[serde(default, deserialize_with = "lenient")]
    pub exp: i64,
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jwt(until {})", self.exp)
    }
}

/// A URL for an upload or download.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PresignedUrl {
    /// The attachment ID.
    pub attachment_id: String,
    /// The URL, which is a secret while it is valid.
    pub url: String,
    /// Headers that the request to the URL must carry.
    pub headers: BTreeMap<String, String>,
    /// The file's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// Size in bytes, on a download.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_size: Option<u64>,
    /// MIME type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_type: Option<String>,
}

impl fmt::Debug for PresignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PresignedUrl({})", self.attachment_id)
    }
}

/// A file was uploaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UploadSuccess {
    /// The attachment ID.
    pub attachment_id: String,
    /// The download URL.
    pub download_url: String,
    /// The time of the upload.
    pub timestamp: String,
}

/// A file was deleted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentDeleted {
    /// The attachment ID.
    pub attachment_id: String,
}

/// The deployment's limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Configuration {
    /// File types that may be sent.
    pub allowed_media: Value,
    /// File extensions that may not be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_extensions: Option<Vec<String>>,
    /// Maximum size of the custom attributes in bytes.
    pub max_custom_data_bytes: usize,
    /// Whether messages are routed.
    pub message_routing_enabled: bool,
    /// Lifetime of a session, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_duration_seconds: Option<u64>,
}

/// Part of the schema; its use is unknown.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResumeToken {
    /// The token.
    pub resume_token: String,
    /// Expiry in seconds since 1970.
    pub exp: i64,
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResumeToken(until {})", self.exp)
    }
}

/// An error in one of the forms that are not a plain message.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorMessage {
    /// The class, repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub name: Option<String>,
    /// The error message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub message: Option<String>,
    /// The frame's `code`, or a more specific one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient_number")]
    pub error_code: Option<u16>,
    /// The error message, repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub error_message: Option<String>,
    /// Time to wait, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient_number")]
    pub retry_after: Option<u64>,
    /// The attachment ID, for uploads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub attachment_id: Option<String>,
    /// The time of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub timestamp: Option<String>,
}

/// Shows the code only, because the message may repeat what the guest wrote.
impl fmt::Debug for ErrorMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ErrorMessage({:?})", self.error_code)
    }
}

/// The platform closes this connection. One official client reads `reason`; another schema has
/// `reasonCode`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionClosed {
    /// The reason: `signedIn`, or absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub reason: Option<String>,
    /// The reason, under its other name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub reason_code: Option<String>,
}
