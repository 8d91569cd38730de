//! Frames to guests: the reply to a frame, and frames of each form (docs/platform.md#guest-frames).

use guestlane_genesys::guest::frame::{Body, ErrorMessage, FrameKind, ServerFrame};

use crate::rate_window::RateHeaders;

/// The result of a frame.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Frames that are sent before the response.
    pub(crate) before: Vec<ServerFrame>,
    pub(crate) answer: ServerFrame,
    /// Frames that are pushed after the response.
    pub(crate) after: Vec<ServerFrame>,
    /// Whether the connection is closed afterwards.
    pub(crate) close: bool,
}

impl From<ServerFrame> for Reply {
    fn from(answer: ServerFrame) -> Self {
        Self {
            before: Vec::new(),
            answer,
            after: Vec::new(),
            close: false,
        }
    }
}

pub(crate) fn response(body: Body, tracing_id: Option<String>) -> ServerFrame {
    ServerFrame {
        kind: FrameKind::Response,
        code: 200,
        body,
        tracing_id,
    }
}

pub(crate) fn push(body: Body) -> ServerFrame {
    ServerFrame {
        kind: FrameKind::Message,
        code: 200,
        body,
        tracing_id: None,
    }
}

/// Builds an error frame in the usual form.
pub(crate) fn error(code: u16, text: impl Into<String>, tracing_id: Option<String>) -> ServerFrame {
    ServerFrame {
        kind: FrameKind::Response,
        code,
        body: Body::Text(text.into()),
        tracing_id,
    }
}

pub(crate) fn too_many(text: &str, seconds: u64, tracing_id: Option<String>) -> ServerFrame {
    let body = ErrorMessage {
        name: Some("TooManyRequestsErrorMessage".to_owned()),
        message: Some(text.to_owned()),
        error_code: Some(4029),
        error_message: Some(text.to_owned()),
        retry_after: Some(seconds),
        ..ErrorMessage::default()
    };
    ServerFrame {
        kind: FrameKind::Response,
        code: 429,
        body: Body::TooManyRequests(body),
        tracing_id,
    }
}

pub(crate) fn too_fast(text: &str, rate: RateHeaders, tracing_id: &Option<String>) -> ServerFrame {
    too_many(text, rate.reset, tracing_id.clone())
}
