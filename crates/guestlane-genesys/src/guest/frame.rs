//! The frames of the guest socket: what a client asks, and what the platform answers and pushes
//! (docs/platform.md#guest-frames).

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::event::Message;
use crate::foreign::{lenient, lenient_number, token};

/// The session's token on the guest API, chosen by the client. A bearer secret: whoever has it sees the session.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionToken(Box<str>);

impl SessionToken {
    /// The longest that the platform takes (docs/platform.md#guest-sessions).
    pub const MAX: usize = 2048;

    /// A fresh one: a UUID, as the platform advises.
    pub fn generate() -> Self {
        Self(Uuid::new_v4().to_string().into())
    }

    /// One that was kept.
    pub fn new(token: impl Into<Box<str>>) -> Self {
        Self(token.into())
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(hidden)")
    }
}

/// A frame of the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientFrame {
    /// Whose session.
    pub token: SessionToken,
    /// Comes back with the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing_id: Option<String>,
    /// What is asked.
    #[serde(flatten)]
    pub action: Action,
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Action {
    /// Begins or resumes a session: the first frame on every connection.
    ConfigureSession(Configure),
    /// The same for a guest who signed in.
    ConfigureAuthenticatedSession {
        /// As without sign-in.
        #[serde(flatten)]
        configure: Configure,
        /// The Genesys JWT.
        data: AuthenticationCode,
    },
    /// A message or an event of the guest.
    OnMessage {
        /// What is said.
        message: Box<Message>,
        /// Listed as required, left out by clients that work.
        #[serde(skip_serializing_if = "Option::is_none")]
        time: Option<String>,
        /// The old place of custom attributes, ignored since June 2026.
        #[serde(skip_serializing_if = "Option::is_none")]
        channel: Option<Value>,
    },
    /// Is the session alive?
    Echo {
        /// A text that comes back.
        message: Box<Message>,
    },
    /// Asks for a JWT that opens the history.
    GetJwt {},
    /// Asks where a file may be uploaded.
    OnAttachment {
        /// The client's id of it.
        attachment_id: String,
        /// With extension.
        file_name: String,
        /// MIME type.
        file_type: String,
        /// Bytes.
        #[serde(skip_serializing_if = "Option::is_none")]
        file_size: Option<u64>,
        /// Required by the schema, left out by clients that work.
        #[serde(skip_serializing_if = "Option::is_none")]
        file_md5: Option<String>,
        /// Sent by the mobile transport.
        #[serde(skip_serializing_if = "Option::is_none")]
        errors_as_json: Option<bool>,
    },
    /// Asks for a fresh download address.
    GetAttachment {
        /// Which.
        attachment_id: String,
    },
    /// Drops a file that was not sent.
    DeleteAttachment {
        /// Which.
        attachment_id: String,
    },
    /// Ends the connection, or all of the session's.
    CloseSession {
        /// All.
        close_all_connections: bool,
    },
    /// Asks for the deployment's limits.
    GetConfiguration {
        /// Which.
        deployment_id: String,
    },
    /// In the platform's list of actions; nobody knows what it takes.
    DisconnectCustomer {},
    /// In the platform's list of actions; nobody knows what it takes.
    ResumeToken {},
}

/// What begins or resumes a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Configure {
    /// The web deployment.
    #[serde(default)]
    pub deployment_id: String,
    /// After a read-only ending: a new conversation in the same session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_new: Option<bool>,
    /// Where the guest comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journey_context: Option<Value>,
    /// In the schema; its use is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume_token: Option<String>,
}

/// The JWT of the code exchange.
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
    /// The action's name on the wire.
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

/// A frame of the platform.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerFrame {
    /// An answer, or something pushed.
    pub kind: FrameKind,
    /// 200, or what went wrong (docs/platform.md#guest-codes).
    pub code: u16,
    /// What it says.
    pub body: Body,
    /// That of the request it belongs to.
    pub tracing_id: Option<String>,
}

/// `type` of a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameKind {
    /// Answers a request. A frame that does not say what it is counts as one.
    #[default]
    Response,
    /// Is pushed; the acknowledgement of a message is, too.
    Message,
}

macro_rules! bodies {
    ($($(#[doc = $about:literal])+ $variant:ident($type:ty) = $class:literal,)+) => {
        /// What a frame says, by its `class`.
        #[derive(Clone, PartialEq)]
        pub enum Body {
            $($(#[doc = $about])+ $variant($type),)+
            /// A class that this version does not know: kept, and counted.
            Unknown {
                /// Its name.
                class: String,
                /// What it says.
                body: Value,
            },
        }

        impl Body {
            /// The class on the wire.
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
    /// The session as it stands.
    Session(SessionResponse) = "SessionResponse",
    /// A message: of the other side, or one's own come back.
    Structured(Box<Message>) = "StructuredMessage",
    /// The key to the history.
    Jwt(Jwt) = "JwtResponse",
    /// Where to upload or download.
    PresignedUrl(PresignedUrl) = "PresignedUrlResponse",
    /// A file has arrived.
    UploadSuccess(UploadSuccess) = "UploadSuccessEvent",
    /// A file was refused.
    UploadFailure(ErrorMessage) = "UploadFailureEvent",
    /// There is no address for that file.
    GenerateUrlError(ErrorMessage) = "GenerateUrlError",
    /// A file is gone.
    AttachmentDeleted(AttachmentDeleted) = "AttachmentDeletedResponse",
    /// The deployment's limits.
    Configuration(Configuration) = "GetConfigurationResponse",
    /// In the schema; its use is unknown.
    ResumeToken(ResumeToken) = "ResumeTokenResponse",
    /// Too fast: the request was not taken.
    TooManyRequests(ErrorMessage) = "TooManyRequestsErrorMessage",
    /// This connection ends.
    ConnectionClosed(ConnectionClosed) = "ConnectionClosedEvent",
    /// The guest signed out.
    Logout(Empty) = "LogoutEvent",
    /// The session's time is over.
    SessionExpired(Empty) = "SessionExpiredEvent",
    /// The conversation was cleared.
    SessionCleared(Empty) = "SessionClearedEvent",
    /// The usual form of an error: a sentence.
    Text(String) = "string",
    /// Another form of an error.
    Error(ErrorMessage) = "Error",
}

/// The class only: what the platform and guests say stays out of logs.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({:?})", self.class())
    }
}

fn read<T: DeserializeOwned>(body: Value) -> Result<T, serde_json::Error> {
    // An event that says nothing may come without a body.
    if body.is_null() || body.as_str() == Some("") {
        return serde_json::from_value(body).or_else(|_| serde_json::from_value(Value::Object(Map::new())));
    }
    serde_json::from_value(body)
}

/// The session as it stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionResponse {
    /// Whether the session is there.
    pub connected: bool,
    /// Whether it began with this request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub new_session: Option<bool>,
    /// Whether the conversation has ended, so that nothing can be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub read_only: Option<bool>,
    /// Whether an older session of the same guest ended for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub cleared_existing_session: Option<bool>,
    /// Files that may be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_media: Option<Value>,
    /// Extensions that may not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub blocked_extensions: Option<Vec<String>>,
    /// The most that custom attributes may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient_number")]
    pub max_custom_data_bytes: Option<usize>,
    /// How long it lives after the last message, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient_number")]
    pub duration_seconds: Option<u64>,
    /// When it ends, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient_number")]
    pub expiration_date: Option<i64>,
    /// Whether the presence was sent already.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub auto_started: Option<bool>,
}

/// The key to the history.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwt {
    /// Signed by the platform; opaque.
    #[serde(deserialize_with = "token")]
    pub jwt: String,
    /// Its end, in seconds since 1970: about a minute ahead.
    #[serde(default, deserialize_with = "lenient")]
    pub exp: i64,
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jwt(until {})", self.exp)
    }
}

/// Where to upload or download.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PresignedUrl {
    /// Which file.
    pub attachment_id: String,
    /// The address; a secret for as long as it is good.
    pub url: String,
    /// Headers that must be sent with it.
    pub headers: BTreeMap<String, String>,
    /// The file's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// Bytes, of a download.
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

/// A file has arrived.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UploadSuccess {
    /// Which.
    pub attachment_id: String,
    /// Where it is.
    pub download_url: String,
    /// When.
    pub timestamp: String,
}

/// A file is gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentDeleted {
    /// Which.
    pub attachment_id: String,
}

/// The deployment's limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Configuration {
    /// Files that may be sent.
    pub allowed_media: Value,
    /// Extensions that may not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_extensions: Option<Vec<String>>,
    /// The most that custom attributes may have.
    pub max_custom_data_bytes: usize,
    /// Whether messages are routed.
    pub message_routing_enabled: bool,
    /// How long a session lives, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_duration_seconds: Option<u64>,
}

/// In the schema; its use is unknown.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResumeToken {
    /// The token.
    pub resume_token: String,
    /// Its end, in seconds since 1970.
    pub exp: i64,
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResumeToken(until {})", self.exp)
    }
}

/// What went wrong, in the forms that are not a plain sentence.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorMessage {
    /// The class, again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub name: Option<String>,
    /// A sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub message: Option<String>,
    /// As the frame's `code`, or finer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient_number")]
    pub error_code: Option<u16>,
    /// The sentence, again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub error_message: Option<String>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient_number")]
    pub retry_after: Option<u64>,
    /// Of uploads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub attachment_id: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub timestamp: Option<String>,
}

/// The code only: the sentence may repeat what was said.
impl fmt::Debug for ErrorMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ErrorMessage({:?})", self.error_code)
    }
}

/// This connection ends. One official client reads `reason`, another schema says `reasonCode`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionClosed {
    /// Why: `signedIn`, or nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub reason: Option<String>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(default, deserialize_with = "lenient")]
    pub reason_code: Option<String>,
}

/// A body that says nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Empty {}

/// A text that is no frame of the platform.
#[derive(Debug, thiserror::Error)]
#[error("not a frame of the guest API: {0}")]
pub struct InvalidFrame(#[from] serde_json::Error);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    #[serde(rename = "type", default, deserialize_with = "lenient")]
    kind: FrameKind,
    class: String,
    /// Absent, it is 200: an error has a class of its own, or is a sentence, which no success is.
    #[serde(default, deserialize_with = "lenient_number")]
    code: Option<u16>,
    #[serde(default)]
    body: Value,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    tracing_id: Option<String>,
}

impl ServerFrame {
    /// Reads a frame. Unknown classes and fields are no error; a known class with a body of another shape is.
    pub fn parse(text: &str) -> Result<Self, InvalidFrame> {
        Ok(serde_json::from_str(text)?)
    }

    /// As it goes over the wire.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for ServerFrame {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Envelope { kind, class, code, body, tracing_id } = Envelope::deserialize(deserializer)?;
        let body = Body::parse(&class, body).map_err(serde::de::Error::custom)?;
        Ok(Self { kind, code: code.unwrap_or(200), body, tracing_id })
    }
}

impl Serialize for ServerFrame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let body = self.body.value().map_err(serde::ser::Error::custom)?;
        let class = self.body.class().to_owned();
        Envelope { kind: self.kind, class, code: Some(self.code), body, tracing_id: self.tracing_id.clone() }
            .serialize(serializer)
    }
}

impl ClientFrame {
    /// Reads a frame.
    pub fn parse(text: &str) -> Result<Self, InvalidFrame> {
        Ok(serde_json::from_str(text)?)
    }

    /// As it goes over the wire.
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
        let frames: Vec<Known> = serde_json::from_str(include_str!("../../../../contract/guest-api-frames.json")).unwrap();
        let known: Vec<_> = frames.into_iter().filter(|known| known.direction == direction).collect();
        assert!(known.len() > 25);
        known
    }

    #[test]
    fn every_known_frame_of_a_client_is_read_and_written_the_same() {
        for Known { name, frame, .. } in known("client") {
            let read = ClientFrame::parse(&frame.to_string()).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(frame["action"], read.action.name(), "{name}");
            assert_eq!(serde_json::to_value(&read).unwrap(), frame, "{name}");
        }
    }

    #[test]
    fn every_known_frame_of_the_platform_is_read_and_written_the_same() {
        for Known { name, frame, .. } in known("server") {
            let read = ServerFrame::parse(&frame.to_string()).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(!matches!(read.body, Body::Unknown { .. }), "{name}");
            assert_eq!(serde_json::to_value(&read).unwrap(), frame, "{name}");
        }
    }

    #[test]
    fn what_an_answer_does_not_need_may_be_absent_or_of_another_kind() {
        let session = r#"{"class":"SessionResponse","body":{"connected":true,"durationSeconds":"60","expirationDate":1800.0}}"#;
        let read = ServerFrame::parse(session).unwrap();
        let Body::Session(session) = read.body else { panic!("{:?}", read.body) };
        assert_eq!((session.duration_seconds, session.expiration_date), (Some(60), Some(1800)));
        assert_eq!((read.kind, read.code), (FrameKind::Response, 200));
        let slow = r#"{"type":7,"class":"TooManyRequestsErrorMessage","code":"429","body":{"retryAfter":"3","attachmentId":4}}"#;
        let read = ServerFrame::parse(slow).unwrap();
        let Body::TooManyRequests(error) = &read.body else { panic!("{:?}", read.body) };
        assert_eq!((read.code, error.retry_after), (429, Some(3)));
    }

    #[test]
    fn an_unknown_class_is_kept() {
        let text = r#"{"type":"message","class":"Surprise","code":200,"body":{"a":[1]}}"#;
        let read = ServerFrame::parse(text).unwrap();
        assert_eq!(read.body.class(), "Surprise");
        assert_eq!(serde_json::from_str::<Value>(&read.to_text()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn no_debug_output_shows_a_token_or_what_was_said() {
        let frame = ClientFrame {
            token: SessionToken::new("s3cret"),
            tracing_id: None,
            action: Action::OnMessage {
                message: Message::text("my card is 4111").with_attributes(BTreeMap::from([("a".into(), "gold".into())])).into(),
                time: None,
                channel: None,
            },
        };
        let shown = format!("{frame:?}");
        assert!(!shown.contains("s3cret") && !shown.contains("4111") && !shown.contains("gold"), "{shown}");
        let said = r#"{"type":"response","class":"Error","code":400,"body":{"errorMessage":"bad value gold"}}"#;
        for said in [said, r#"{"type":"response","class":"string","code":400,"body":"bad value gold"}"#] {
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
