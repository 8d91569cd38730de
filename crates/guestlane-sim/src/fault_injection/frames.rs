//! Fault injection for frames: before the work is done, or on its response.

use std::time::Duration;

use guestlane_genesys::guest::frame::ServerFrame;

use super::wrong_types;
use crate::{
    fault::{Fault, FaultKind},
    frame::{error, too_many},
};

/// The effect of a fault on a frame before any work is done.
pub(crate) enum PreFault {
    /// The work is done as usual.
    Work,
    /// This frame is sent as the response, and no work is done.
    Answer(Box<ServerFrame>),
    /// The connection is reset.
    Reset,
    /// Nothing happens any more.
    Hang,
}

/// Decides the effect of a fault on a frame before any work is done.
#[deny(clippy::wildcard_enum_match_arm)]
pub(crate) fn before(fault: &Fault, tracing_id: Option<String>) -> PreFault {
    let refuse = |code, text: &str| PreFault::Answer(error(code, text, tracing_id.clone()).into());
    match fault.kind {
        FaultKind::TooManyRequests
        | FaultKind::TooManyRequestsDate
        | FaultKind::TooManyRequestsSentence => {
            let seconds = fault.retry_after.map_or(1, |wait| wait.as_secs());
            PreFault::Answer(
                too_many(
                    "Message rate too high for this session",
                    seconds,
                    tracing_id,
                )
                .into(),
            )
        }
        FaultKind::BadRequest | FaultKind::BadRequestEcho | FaultKind::Redirect => {
            refuse(400, "Request failed.")
        }
        FaultKind::Unauthorized => refuse(401, "User is unauthorized"),
        FaultKind::Forbidden => refuse(403, "Access denied"),
        FaultKind::NotFound => refuse(404, "Not found"),
        FaultKind::Conflict => refuse(409, "Conflict"),
        FaultKind::InternalError | FaultKind::BadGateway | FaultKind::Unavailable => {
            refuse(5000, "Unexpected error")
        }
        FaultKind::Reset => PreFault::Reset,
        FaultKind::Hang => PreFault::Hang,
        FaultKind::Stale
        | FaultKind::TokenRevoked
        | FaultKind::ClockSkew
        | FaultKind::BadGatewayAfter
        | FaultKind::GatewayTimeoutAfter
        | FaultKind::AnswerLost
        | FaultKind::ResetAfter
        | FaultKind::HangAfter
        | FaultKind::Slow
        | FaultKind::Truncated
        | FaultKind::NotHttp
        | FaultKind::NotJson
        | FaultKind::Empty
        | FaultKind::WrongTypes
        | FaultKind::Huge => PreFault::Work,
    }
}

/// What is sent over the wire after the work is done.
#[derive(Debug)]
pub(crate) enum PostFault {
    /// This text, at once.
    Text(String),
    /// This text, some time later.
    Later(String, Duration),
    /// This text, and nothing afterwards.
    Last(String),
    /// The beginning of a frame with this text, then the connection is closed.
    Half(String),
    /// Bytes that are no frame, then the connection is closed.
    Garbage,
    /// The connection is closed without a close frame.
    Dropped,
    /// The connection is reset.
    Reset,
    /// Nothing, now or later.
    Hang,
}

/// Decides the effect of a fault on the response. The second value is the code that the journal
/// records.
#[deny(clippy::wildcard_enum_match_arm)]
pub(crate) fn after(fault: &Fault, answer: ServerFrame) -> (PostFault, Option<u16>) {
    const HUGE: usize = 2 * 1024 * 1024;
    let text = |frame: &ServerFrame| (PostFault::Text(frame.to_text()), Some(frame.code));
    let tracing_id = answer.tracing_id.clone();
    match fault.kind {
        FaultKind::BadGatewayAfter => text(&error(5000, "Unexpected error", tracing_id)),
        FaultKind::GatewayTimeoutAfter => text(&error(408, "Request timed out", tracing_id)),
        FaultKind::AnswerLost => (PostFault::Dropped, None),
        FaultKind::ResetAfter => (PostFault::Reset, None),
        FaultKind::HangAfter => (PostFault::Hang, None),
        FaultKind::Slow => {
            let seconds = u64::try_from(fault.seconds.unwrap_or(3)).unwrap_or(0);
            (
                PostFault::Later(answer.to_text(), Duration::from_secs(seconds)),
                Some(answer.code),
            )
        }
        FaultKind::Truncated => (PostFault::Half(answer.to_text()), None),
        FaultKind::NotHttp => (PostFault::Garbage, None),
        FaultKind::NotJson => (PostFault::Text("<html>".to_owned()), Some(answer.code)),
        FaultKind::Empty => (PostFault::Text(String::new()), Some(answer.code)),
        FaultKind::WrongTypes => {
            let wrong = serde_json::to_value(&answer)
                .map(wrong_types)
                .unwrap_or_default();
            (PostFault::Text(wrong.to_string()), Some(answer.code))
        }
        FaultKind::Huge => (PostFault::Last(" ".repeat(HUGE)), Some(answer.code)),
        FaultKind::TooManyRequests
        | FaultKind::TooManyRequestsDate
        | FaultKind::TooManyRequestsSentence
        | FaultKind::BadRequest
        | FaultKind::BadRequestEcho
        | FaultKind::Unauthorized
        | FaultKind::Forbidden
        | FaultKind::NotFound
        | FaultKind::Conflict
        | FaultKind::InternalError
        | FaultKind::BadGateway
        | FaultKind::Unavailable
        | FaultKind::Redirect
        | FaultKind::Reset
        | FaultKind::Hang
        | FaultKind::Stale
        | FaultKind::TokenRevoked
        | FaultKind::ClockSkew => text(&answer),
    }
}
