//! The WebSocket handshake, and errors of the socket.

use guestlane_runtime::text::{clean, one_line};
use http::StatusCode;
use serde_json::Value;
use tokio_tungstenite::tungstenite;

use super::{
    super::frame::{Body, FrameKind, ServerFrame},
    MAX_CLASS,
};
use crate::{
    error::{AttemptError, ErrorResponse, GUEST_CODE},
    foreign::{ErrorCode, PlatformMessage},
    response::bounded,
};

/// The routing fields of a frame, which are parsed before its body.
pub(super) struct Address {
    kind: FrameKind,
    pub(super) class: String,
    pub(super) tracing_id: Option<String>,
}

impl Address {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let Value::Object(frame) = serde_json::from_str(text).ok()? else {
            return None;
        };
        let tracing_id = match frame.get("tracingId") {
            None | Some(Value::Null) => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return None,
        };
        let class = clean(
            frame
                .get("class")
                .and_then(Value::as_str)
                .unwrap_or_default(),
            MAX_CLASS,
        );
        let kind = if frame.get("type").and_then(Value::as_str) == Some("message") {
            FrameKind::Message
        } else {
            FrameKind::Response
        };
        Some(Self {
            kind,
            class,
            tracing_id,
        })
    }

    /// Whether the frame answers the request. Some responses have no tracing ID; that is
    /// unambiguous, because only one request is in flight.
    pub(super) fn is_for(&self, tracing_id: &str) -> bool {
        self.tracing_id
            .as_deref()
            .map_or(self.kind == FrameKind::Response, |id| id == tracing_id)
    }
}

/// Returns a successful frame, or the error that its code means (docs/platform.md#guest-codes).
pub(super) fn accepted(frame: ServerFrame) -> Result<ServerFrame, AttemptError> {
    let (code, message, retry_after) = match &frame.body {
        Body::Text(text) => (frame.code, text.clone(), None),
        Body::Error(error)
        | Body::TooManyRequests(error)
        | Body::GenerateUrlError(error)
        | Body::UploadFailure(error) => {
            let message = error
                .error_message
                .clone()
                .or_else(|| error.message.clone())
                .unwrap_or_default();
            (
                error.error_code.unwrap_or(frame.code),
                message,
                error.retry_after,
            )
        }
        Body::SessionExpired(_) => (4006, "Session has expired".to_owned(), None),
        _ if frame.code == 200 => return Ok(frame),
        other => (frame.code, other.class().to_owned(), None),
    };
    Err(match code {
        429 | 4029 => {
            let seconds = retry_after.or_else(|| PlatformMessage::new(&message).seconds());
            AttemptError::Throttled {
                retry_after: seconds.map(bounded),
                correlation_id: None,
            }
        }
        // Omit the message, which may repeat what the guest wrote: this text is stored.
        200 | 408 | 500..=599 | 5000.. => lost(format!("the guest API responded with code {code}")),
        _ => refused(code, &message),
    })
}

pub(super) fn refused(code: u16, message: &str) -> AttemptError {
    // 403 concerns the configuration (a feature or an origin that the deployment does not allow),
    // which an operator can correct at any time.
    let status = if code == 403 {
        StatusCode::FORBIDDEN
    } else {
        StatusCode::BAD_REQUEST
    };
    let code = ErrorCode::new(&format!("{GUEST_CODE}{code}"));
    AttemptError::Rejected(ErrorResponse {
        status,
        code,
        message: PlatformMessage::new(message),
        correlation_id: None,
    })
}

/// Converts an error that occurred before the first frame. Nothing was sent, so the outcome is
/// known.
pub(super) fn not_sent(error: AttemptError) -> AttemptError {
    match error {
        AttemptError::OutcomeUnknown {
            retry_after: Some(wait),
            correlation_id,
            ..
        } => AttemptError::Throttled {
            retry_after: Some(wait),
            correlation_id,
        },
        AttemptError::OutcomeUnknown {
            reason,
            correlation_id,
            ..
        } => {
            let id = correlation_id
                .map(|id| format!(" (correlation id {id})"))
                .unwrap_or_default();
            AttemptError::NotSent(format!("the guest WebSocket did not open: {reason}{id}"))
        }
        other => other,
    }
}

pub(super) fn unexpected(class: &str) -> AttemptError {
    lost(format!(
        "received an unexpected frame of class {}",
        clean(class, MAX_CLASS)
    ))
}

pub(super) fn broken(error: &tungstenite::Error) -> AttemptError {
    lost(one_line(&error.to_string()))
}

pub(super) fn lost(reason: impl Into<String>) -> AttemptError {
    AttemptError::OutcomeUnknown {
        reason: reason.into(),
        retry_after: None,
        correlation_id: None,
    }
}
