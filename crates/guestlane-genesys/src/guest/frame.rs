//! Frames of the guest socket: requests of the client, and responses and pushed frames of the
//! platform (docs/platform.md#guest-frames).

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::event::Message;
use crate::foreign::{lenient, lenient_number, token};

/// The guest session token, chosen by the client. It is a bearer secret: its holder can read the
/// session.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionToken(Box<str>);

impl SessionToken {
    /// Maximum length that the platform accepts (docs/platform.md#guest-sessions).
    pub const MAX: usize = 2048;

    /// Generates a token: a UUID, as the platform advises.
    pub fn generate() -> Self {
        Self(Uuid::new_v4().to_string().into())
    }

    /// Wraps a stored token.
    pub fn new(token: impl Into<Box<str>>) -> Self {
        Self(token.into())
    }

    /// Returns the secret.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(hidden)")
    }
}

/// A frame from the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientFrame {
    /// Identifies the session.
    pub token: SessionToken,
    /// The response repeats this ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing_id: Option<String>,
    /// The request.
    #[serde(flatten)]
    pub action: Action,
}

/// A request of the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "action",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Action {
    /// Begins or resumes a session: the first frame on every connection.
    ConfigureSession(Configure),
    /// Begins or resumes the session of an authenticated guest.
    ConfigureAuthenticatedSession {
        /// The parameters of `ConfigureSession`.
        #[serde(flatten)]
        configure: Configure,
        /// The Genesys JWT.
        data: AuthenticationCode,
    },
    /// A message or an event of the guest.
    OnMessage {
        /// The message.
        message: Box<Message>,
        /// Listed as required, but omitted by clients that work.
        #[serde(skip_serializing_if = "Option::is_none")]
        time: Option<String>,
        /// The former location of custom attributes, ignored since June 2026.
        #[serde(skip_serializing_if = "Option::is_none")]
        channel: Option<Value>,
    },
    /// Checks whether the session is alive.
    Echo {
        /// A text that the platform returns.
        message: Box<Message>,
    },
    /// Requests a JWT that grants access to the history.
    GetJwt {},
    /// Requests an upload URL for a file.
    OnAttachment {
        /// The attachment ID, chosen by the client.
        attachment_id: String,
        /// The file name with its extension.
        file_name: String,
        /// MIME type.
        file_type: String,
        /// Size in bytes.
        #[serde(skip_serializing_if = "Option::is_none")]
        file_size: Option<u64>,
        /// Required by the schema, but omitted by clients that work.
        #[serde(skip_serializing_if = "Option::is_none")]
        file_md5: Option<String>,
        /// Sent by the mobile transport.
        #[serde(skip_serializing_if = "Option::is_none")]
        errors_as_json: Option<bool>,
    },
    /// Requests a new download URL.
    GetAttachment {
        /// The attachment ID.
        attachment_id: String,
    },
    /// Deletes a file that was not sent.
    DeleteAttachment {
        /// The attachment ID.
        attachment_id: String,
    },
    /// Closes the connection, or all connections of the session.
    CloseSession {
        /// Whether to close all connections.
        close_all_connections: bool,
    },
    /// Requests the deployment's limits.
    GetConfiguration {
        /// The deployment ID.
        deployment_id: String,
    },
    /// Part of the platform's list of actions; its parameters are not documented.
    DisconnectCustomer {},
    /// Part of the platform's list of actions; its parameters are not documented.
    ResumeToken {},
}

/// Parameters that begin or resume a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Configure {
    /// The web deployment.
    #[serde(default)]
    pub deployment_id: String,
    /// Starts a new conversation in the same session after it became read-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_new: Option<bool>,
    /// Where the guest comes from, as journey data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journey_context: Option<Value>,
    /// In the schema; its use is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume_token: Option<String>,
}

/// The JWT that the code exchange returned.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthenticationCode {
    /// The JWT.
    pub code: String,
}

impl fmt::Debug for AuthenticationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthenticationCode(hidden)")
    }
}

impl Action {
    /// Returns the action's name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ConfigureSession(_) => "configureSession",
            Self::ConfigureAuthenticatedSession { .. } => "configureAuthenticatedSession",
            Self::OnMessage { .. } => "onMessage",
            Self::Echo { .. } => "echo",
            Self::GetJwt {} => "getJwt",
            Self::OnAttachment { .. } => "onAttachment",
            Self::GetAttachment { .. } => "getAttachment",
            Self::DeleteAttachment { .. } => "deleteAttachment",
            Self::CloseSession { .. } => "closeSession",
            Self::GetConfiguration { .. } => "getConfiguration",
            Self::DisconnectCustomer {} => "disconnectCustomer",
            Self::ResumeToken {} => "resumeToken",
        }
    }
}

/// A frame from the platform.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerFrame {
    /// Whether the frame is a response or pushed.
    pub kind: FrameKind,
    /// 200, or an error code (docs/platform.md#guest-codes).
    pub code: u16,
    /// The body.
    pub body: Body,
    /// The tracing ID of the request that the frame answers.
    pub tracing_id: Option<String>,
}

/// The `type` of a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameKind {
    /// Answers a request. A frame without a type counts as a response.
    #[default]
    Response,
    /// Pushed by the platform; the acknowledgement of a message is one, too.
    Message,
}

macro_rules! bodies {
    ($($(#[doc = $about:literal])+ $variant:ident($type:ty) = $class:literal,)+) => {
        /// The body of a frame, by its `class`.
        #[derive(Clone, PartialEq)]
        pub enum Body {
            $($(#[doc = $about])+ $variant($type),)+
            /// A class that this version does not know. The body is kept, and the frame is counted.
            Unknown {
                /// The class.
                class: String,
                /// The body.
                body: Value,
            },
        }

        impl Body {
            /// Returns the class on the wire.
            pub fn class(&self) -> &str {
                match self { $(Self::$variant(_) => $class,)+ Self::Unknown { class, .. } => class }
            }

            /// Whether this version knows the class.
            pub fn is_known(class: &str) -> bool {
                [$($class),+].contains(&class)
            }

            fn parse(class: &str, body: Value) -> Result<Self, serde_json::Error> {
                Ok(match class {
                    $($class => Self::$variant(read(body)?),)+
                    _ => Self::Unknown { class: class.to_owned(), body },
                })
            }

            fn value(&self) -> Result<Value, serde_json::Error> {
                match self { $(Self::$variant(body) => serde_json::to_value(body),)+ Self::Unknown { body, .. } => Ok(body.clone()) }
            }
        }
    };
}

bodies! {
    /// The current state of the session.
    Session(SessionResponse) = "SessionResponse",
    /// A message of another participant, or the echo of the client's own message.
    Structured(Box<Message>) = "StructuredMessage",
    /// The JWT that grants access to the history.
    Jwt(Jwt) = "JwtResponse",
    /// A URL for an upload or download.
    PresignedUrl(PresignedUrl) = "PresignedUrlResponse",
    /// A file was uploaded.
    UploadSuccess(UploadSuccess) = "UploadSuccessEvent",
    /// A file was rejected.
    UploadFailure(ErrorMessage) = "UploadFailureEvent",
    /// No URL could be generated for a file.
    GenerateUrlError(ErrorMessage) = "GenerateUrlError",
    /// A file was deleted.
    AttachmentDeleted(AttachmentDeleted) = "AttachmentDeletedResponse",
    /// The deployment's limits.
    Configuration(Configuration) = "GetConfigurationResponse",
    /// In the schema; its use is unknown.
    ResumeToken(ResumeToken) = "ResumeTokenResponse",
    /// The request was throttled and not processed.
    TooManyRequests(ErrorMessage) = "TooManyRequestsErrorMessage",
    /// The platform closes this connection.
    ConnectionClosed(ConnectionClosed) = "ConnectionClosedEvent",
    /// The guest signed out.
    Logout(Empty) = "LogoutEvent",
    /// The session has expired.
    SessionExpired(Empty) = "SessionExpiredEvent",
    /// The conversation was cleared.
    SessionCleared(Empty) = "SessionClearedEvent",
    /// The usual form of an error: a message.
    Text(String) = "string",
    /// Another form of an error.
    Error(ErrorMessage) = "Error",
}

/// Shows the class only, so that messages of the platform and of guests stay out of logs.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({:?})", self.class())
    }
}

fn read<T: DeserializeOwned>(body: Value) -> Result<T, serde_json::Error> {
    // An event without content may have no body.
    if body.is_null() || body.as_str() == Some("") {
        return serde_json::from_value(body)
            .or_else(|_| serde_json::from_value(Value::Object(Map::new())));
    }
    serde_json::from_value(body)
}

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

/// An empty body.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Empty {}

/// The text is not a valid frame.
#[derive(Debug, thiserror::Error)]
#[error("not a frame of the guest API: {0}")]
pub struct InvalidFrame(#[from] serde_json::Error);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    #[serde(rename = "type", default, deserialize_with = "lenient")]
    kind: FrameKind,
    class: String,
    /// An absent code counts as 200. That is safe, because an error has its own class or is a
    /// string, which no success is.
    #[serde(default, deserialize_with = "lenient_number")]
    code: Option<u16>,
    #[serde(default)]
    body: Value,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    tracing_id: Option<String>,
}

impl ServerFrame {
    /// Parses a frame. Unknown classes and fields are accepted.
    ///
    /// # Errors
    ///
    /// Fails if the text is not a frame, or if a known class has a body of another shape.
    pub fn parse(text: &str) -> Result<Self, InvalidFrame> {
        Ok(serde_json::from_str(text)?)
    }

    /// Serializes the frame as it is sent.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for ServerFrame {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Envelope {
            kind,
            class,
            code,
            body,
            tracing_id,
        } = Envelope::deserialize(deserializer)?;
        let body = Body::parse(&class, body).map_err(serde::de::Error::custom)?;
        Ok(Self {
            kind,
            code: code.unwrap_or(200),
            body,
            tracing_id,
        })
    }
}

impl Serialize for ServerFrame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let body = self.body.value().map_err(serde::ser::Error::custom)?;
        let class = self.body.class().to_owned();
        Envelope {
            kind: self.kind,
            class,
            code: Some(self.code),
            body,
            tracing_id: self.tracing_id.clone(),
        }
        .serialize(serializer)
    }
}

impl ClientFrame {
    /// Parses a frame.
    ///
    /// # Errors
    ///
    /// Fails if the text is not a frame of the client.
    pub fn parse(text: &str) -> Result<Self, InvalidFrame> {
        Ok(serde_json::from_str(text)?)
    }

    /// Serializes the frame as it is sent.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Deserialize)]
    struct Known {
        direction: String,
        name: String,
        frame: Value,
    }

    fn known(direction: &str) -> Vec<Known> {
        let frames: Vec<Known> =
            serde_json::from_str(include_str!("../../../../contract/guest-api-frames.json"))
                .unwrap();
        let known: Vec<_> = frames
            .into_iter()
            .filter(|known| known.direction == direction)
            .collect();
        assert!(known.len() > 25);
        known
    }

    #[test]
    fn known_client_frames_round_trip() {
        for Known { name, frame, .. } in known("client") {
            let read = ClientFrame::parse(&frame.to_string())
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(frame["action"], read.action.name(), "{name}");
            assert_eq!(serde_json::to_value(&read).unwrap(), frame, "{name}");
        }
    }

    #[test]
    fn known_platform_frames_round_trip() {
        for Known { name, frame, .. } in known("server") {
            let read = ServerFrame::parse(&frame.to_string())
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(!matches!(read.body, Body::Unknown { .. }), "{name}");
            assert_eq!(serde_json::to_value(&read).unwrap(), frame, "{name}");
        }
    }

    #[test]
    fn server_frame_tolerates_missing_and_mistyped_fields() {
        let session = r#"{"class":"SessionResponse","body":{"connected":true,"durationSeconds":"60","expirationDate":1800.0}}"#;
        let read = ServerFrame::parse(session).unwrap();
        let Body::Session(session) = read.body else {
            panic!("{:?}", read.body)
        };
        assert_eq!(
            (session.duration_seconds, session.expiration_date),
            (Some(60), Some(1800))
        );
        assert_eq!((read.kind, read.code), (FrameKind::Response, 200));
        let slow = r#"{"type":7,"class":"TooManyRequestsErrorMessage","code":"429","body":{"retryAfter":"3","attachmentId":4}}"#;
        let read = ServerFrame::parse(slow).unwrap();
        let Body::TooManyRequests(error) = &read.body else {
            panic!("{:?}", read.body)
        };
        assert_eq!((read.code, error.retry_after), (429, Some(3)));
    }

    #[test]
    fn frame_of_unknown_class_round_trips() {
        let text = r#"{"type":"message","class":"Surprise","code":200,"body":{"a":[1]}}"#;
        let read = ServerFrame::parse(text).unwrap();
        assert_eq!(read.body.class(), "Surprise");
        assert_eq!(
            serde_json::from_str::<Value>(&read.to_text()).unwrap(),
            serde_json::from_str::<Value>(text).unwrap()
        );
    }

    #[test]
    fn debug_output_hides_tokens_and_message_text() {
        let frame = ClientFrame {
            token: SessionToken::new("s3cret"),
            tracing_id: None,
            action: Action::OnMessage {
                message: Message::text("my card is 4111")
                    .with_attributes(BTreeMap::from([("a".into(), "gold".into())]))
                    .into(),
                time: None,
                channel: None,
            },
        };
        let shown = format!("{frame:?}");
        assert!(
            !shown.contains("s3cret") && !shown.contains("4111") && !shown.contains("gold"),
            "{shown}"
        );
        let said = r#"{"type":"response","class":"Error","code":400,"body":{"errorMessage":"bad value gold"}}"#;
        for said in [
            said,
            r#"{"type":"response","class":"string","code":400,"body":"bad value gold"}"#,
        ] {
            let shown = format!("{:?}", ServerFrame::parse(said).unwrap());
            assert!(!shown.contains("gold"), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in any::<String>(), pick in 0_usize..60, at in 0_usize..2000, byte in any::<u8>()) {
            let _ = (ServerFrame::parse(&text), ClientFrame::parse(&text));
            let frames = known("server");
            let mut bytes = frames[pick % frames.len()].frame.to_string().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let text = String::from_utf8_lossy(&bytes);
            if let Ok(frame) = ServerFrame::parse(&text) {
                let again = ServerFrame::parse(&frame.to_text()).unwrap();
                prop_assert_eq!(again.body.class(), frame.body.class());
            }
        }
    }
}
