//! Frames of the guest socket: requests of the client, and responses and pushed frames of the
//! platform (docs/platform.md#guest-frames).

mod requests;
mod responses;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::event::Message;
use crate::foreign::{lenient, lenient_number};
pub use requests::{Action, AuthenticationCode, Configure};
pub use responses::{
    AttachmentDeleted, Configuration, ConnectionClosed, ErrorMessage, Jwt, PresignedUrl,
    ResumeToken, SessionResponse, UploadSuccess,
};

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
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Deserialize)]
    struct Known {
        direction: String,
        name: String,
        frame: Value,
    }

    fn known(direction: &str) -> Vec<Known> {
        const CONTRACT: &str = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../contract/guest-api-frames.json"
        );
        let text = std::fs::read_to_string(CONTRACT).unwrap();
        let frames: Vec<Known> = serde_json::from_str(&text).unwrap();
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
