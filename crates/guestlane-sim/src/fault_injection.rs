//! Fault injection for HTTP requests: before the work is done, or on its response.

pub(crate) mod frames;
pub(crate) mod held_request;

use std::{io, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use guestlane_runtime::{Clock, Timestamp};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    fault::{Fault, FaultKind},
    rate_window::RateHeaders,
    response::{self, Body, Refusal},
    route::Route,
};

/// How a connection is closed without a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("connection ended by an injected fault")]
pub(crate) enum Disconnect {
    /// Closed (FIN).
    Closed,
    /// Reset (RST).
    Reset,
    /// Bytes that are not HTTP are sent, then the connection is closed.
    Garbage,
}

/// The effect of a fault on a request before any work is done.
pub(crate) enum PreFault {
    /// The work is done as usual.
    Proceed,
    /// The request is rejected.
    Reject(Refusal),
    /// This response is sent, and no work is done.
    Respond(Response<Body>),
    /// The connection ends.
    Disconnect(Disconnect),
    /// Nothing happens any more.
    Hang,
}

/// Decides the effect of a fault on a request before any work is done.
#[deny(clippy::wildcard_enum_match_arm)]
pub(crate) fn before(
    fault: &Fault,
    route: Route,
    body: &[u8],
    now: Timestamp,
    correlation_id: Uuid,
) -> PreFault {
    let refuse =
        |status, code, message: &str| PreFault::Reject(Refusal::new(status, code, message));
    match fault.kind {
        FaultKind::TooManyRequests => {
            let refusal =
                Refusal::too_many_requests(fault.retry_after.map_or(1, |wait| wait.as_secs()));
            PreFault::Reject(Refusal {
                retry_after: fault.retry_after.map(|wait| wait.as_secs()),
                ..refusal
            })
        }
        FaultKind::TooManyRequestsDate => {
            let wait = fault.retry_after.unwrap_or(Duration::from_secs(1));
            let mut response = Refusal::too_many_requests(wait.as_secs()).answer(correlation_id);
            let micros = u64::try_from((now + wait).unix_micros()).unwrap_or(0);
            let date =
                httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_micros(micros));
            if let Ok(date) = HeaderValue::from_str(&date) {
                response.headers_mut().insert(header::RETRY_AFTER, date);
            }
            PreFault::Respond(response)
        }
        FaultKind::TooManyRequestsSentence => {
            let refusal =
                Refusal::too_many_requests(fault.retry_after.map_or(1, |wait| wait.as_secs()));
            PreFault::Reject(Refusal {
                retry_after: None,
                ..refusal
            })
        }
        FaultKind::BadRequest => refuse(
            StatusCode::BAD_REQUEST,
            "bad.request",
            "The request could not be understood.",
        ),
        FaultKind::BadRequestEcho => refuse(StatusCode::BAD_REQUEST, "bad.request", &echo(body)),
        FaultKind::Unauthorized => refuse(
            StatusCode::UNAUTHORIZED,
            "bad.credentials",
            "Invalid login credentials.",
        ),
        FaultKind::Forbidden => refuse(
            StatusCode::FORBIDDEN,
            "not.authorized",
            "You are not authorized to perform the requested action.",
        ),
        FaultKind::NotFound => PreFault::Reject(Refusal::not_found()),
        FaultKind::Conflict => refuse(
            StatusCode::CONFLICT,
            "conflict",
            "The request conflicts with another one that is being processed.",
        ),
        FaultKind::InternalError => refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal.server.error",
            "The server encountered an unexpected condition.",
        ),
        FaultKind::BadGateway => {
            PreFault::Respond(page(StatusCode::BAD_GATEWAY, "502 Bad Gateway"))
        }
        FaultKind::Unavailable => {
            let refusal = Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "service.unavailable",
                "The service is unavailable.",
            );
            PreFault::Reject(Refusal {
                retry_after: fault.retry_after.map(|wait| wait.as_secs()),
                ..refusal
            })
        }
        FaultKind::Redirect => {
            let mut response = response::empty(StatusCode::FOUND);
            response
                .headers_mut()
                .insert(header::LOCATION, HeaderValue::from_static("/crm/elsewhere"));
            PreFault::Respond(response)
        }
        FaultKind::Reset => PreFault::Disconnect(Disconnect::Reset),
        FaultKind::Hang => PreFault::Hang,
        FaultKind::Stale => stale(route),
        FaultKind::TokenRevoked
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
        | FaultKind::Huge => PreFault::Proceed,
    }
}

/// Returns the error text of a validator that repeats its input.
fn echo(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let attributes = body["customAttributes"].as_object().into_iter().flatten();
    let values = attributes
        .filter(|(name, _)| *name != "guestToken")
        .filter_map(|(_, value)| value.as_str());
    format!("Invalid value: {}", values.collect::<Vec<_>>().join(", "))
}

/// Bytes that are neither HTTP nor a WebSocket frame.
pub(crate) const GARBAGE: &[u8] = b"\x15\x03\x01\x00\x02\x02\x28 this is no HTTP\r\n\r\n";

/// The effect of a fault on the response after the work is done.
pub(crate) enum PostFault {
    /// This response is sent.
    Respond(Response<Body>),
    /// The connection ends.
    Disconnect(Disconnect),
    /// Nothing happens any more.
    Hang,
}

/// Decides the effect of a fault on the response. `held` is kept until the response has been sent.
#[deny(clippy::wildcard_enum_match_arm)]
pub(crate) async fn after<H: Send + Sync + 'static>(
    fault: &Fault,
    answer: Response<Body>,
    clock: &Clock,
    held: H,
    correlation_id: Uuid,
) -> PostFault {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(kind) = [FaultKind::Slow, FaultKind::WrongTypes, FaultKind::Truncated]
            .into_iter()
            .find(|kind| *kind == fault.kind)
    {
        return after_upgrade(kind, fault, answer, clock, held).await;
    }
    let (head, body) = answer.into_parts();
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let with = |body: Body| PostFault::Respond(Response::from_parts(head.clone(), body));
    match fault.kind {
        FaultKind::BadGatewayAfter => {
            PostFault::Respond(page(StatusCode::BAD_GATEWAY, "502 Bad Gateway"))
        }
        FaultKind::GatewayTimeoutAfter => {
            let refusal = Refusal::new(
                StatusCode::GATEWAY_TIMEOUT,
                "gateway.timeout",
                "The request timed out.",
            );
            let mut answer = refusal.answer(correlation_id);
            for name in RateHeaders::NAMES {
                if let Some(value) = head.headers.get(name) {
                    answer.headers_mut().insert(name, value.clone());
                }
            }
            PostFault::Respond(answer)
        }
        FaultKind::AnswerLost => PostFault::Disconnect(Disconnect::Closed),
        FaultKind::ResetAfter => PostFault::Disconnect(Disconnect::Reset),
        FaultKind::NotHttp => PostFault::Disconnect(Disconnect::Garbage),
        FaultKind::HangAfter => PostFault::Hang,
        FaultKind::Slow => {
            let seconds = u32::try_from(fault.seconds.unwrap_or(3)).unwrap_or(0);
            with(slowly(
                body,
                Duration::from_secs(seconds.into()),
                clock.clone(),
                held,
            ))
        }
        FaultKind::Truncated => PostFault::Respond(truncated(head.status, &head.headers, body)),
        FaultKind::NotJson => PostFault::Respond(page(StatusCode::OK, "Welcome")),
        FaultKind::Empty => PostFault::Respond(response::empty(StatusCode::OK)),
        FaultKind::WrongTypes => {
            let wrong = serde_json::from_slice(&body)
                .map(wrong_types)
                .unwrap_or_default();
            with(Either::Left(Bytes::from(wrong.to_string()).into()))
        }
        FaultKind::Huge => PostFault::Respond(huge()),
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
        | FaultKind::ClockSkew => with(Either::Left(body.into())),
    }
}

/// Returns the response of a read that misses the latest writes.
fn stale(route: Route) -> PreFault {
    match route {
        Route::Conversation => PreFault::Reject(Refusal::bad_request(
            "contactId is not the address of a contact.",
        )),
        Route::History => {
            let page = json!({"entities": [], "pageSize": 25, "pageNumber": 1, "total": 0, "pageCount": 0});
            PreFault::Respond(response::json(StatusCode::OK, &page))
        }
        route if route.reads() => PreFault::Reject(Refusal::not_found()),
        _ => PreFault::Proceed,
    }
}

/// Applies a fault to an accepted upgrade. An upgrade response has no body, so faults of bodies
/// apply to its head.
async fn after_upgrade<H>(
    kind: FaultKind,
    fault: &Fault,
    mut answer: Response<Body>,
    clock: &Clock,
    held: H,
) -> PostFault {
    if kind == FaultKind::Truncated {
        return PostFault::Disconnect(Disconnect::Closed);
    }
    if kind == FaultKind::WrongTypes {
        answer
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static("23"));
        answer.extensions_mut().clear();
        return PostFault::Respond(answer);
    }
    clock
        .sleep(Duration::from_secs(
            u64::try_from(fault.seconds.unwrap_or(3)).unwrap_or(0),
        ))
        .await;
    drop(held);
    PostFault::Respond(answer)
}

fn page(status: StatusCode, title: &str) -> Response<Body> {
    let page = format!(
        "<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
    );
    response::bytes(status, "text/html", page.into())
}

/// Returns the body in ten pieces, with a pause before each.
fn slowly<H: Send + Sync + 'static>(body: Bytes, over: Duration, clock: Clock, held: H) -> Body {
    const PIECES: usize = 10;
    let pieces: Vec<_> = body
        .chunks(body.len().div_ceil(PIECES).max(1))
        .map(Bytes::copy_from_slice)
        .collect();
    let pause = over / u32::try_from(pieces.len().max(1)).unwrap_or(1);
    let pieces = stream::unfold(
        (pieces.into_iter(), clock, held),
        move |(mut pieces, clock, held)| async move {
            let piece = pieces.next()?;
            clock.sleep(pause).await;
            Some((Ok(Frame::data(piece)), (pieces, clock, held)))
        },
    );
    Either::Right(BodyExt::boxed(StreamBody::new(pieces)))
}

/// Announces the whole body and breaks off after half of it.
fn truncated(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Response<Body> {
    let half = body.slice(..body.len() / 2);
    let pieces = stream::iter([
        Ok(Frame::data(half)),
        Err(io::Error::other("response truncated by an injected fault")),
    ]);
    let mut response = Response::new(Either::Right(BodyExt::boxed(StreamBody::new(pieces))));
    *response.status_mut() = status;
    *response.headers_mut() = headers.clone();
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, body.len().max(2).into());
    response
}

fn huge() -> Response<Body> {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 1_000_000_000 / PIECE;
    let piece = Bytes::from(vec![b' '; PIECE]);
    let pieces = stream::repeat(piece)
        .take(PIECES)
        .map(|piece| Ok(Frame::data(piece)));
    let mut response = Response::new(Either::Right(BodyExt::boxed(StreamBody::new(pieces))));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, (PIECE * PIECES).into());
    response
}

pub(crate) fn wrong_types(value: Value) -> Value {
    match value {
        Value::String(text) => Value::from(text.len()),
        Value::Number(number) => Value::String(number.to_string()),
        Value::Bool(_) | Value::Null => Value::Array(Vec::new()),
        Value::Array(values) => values.into_iter().map(wrong_types).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, wrong_types(value)))
            .collect(),
    }
}
