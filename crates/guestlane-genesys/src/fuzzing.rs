//! Entry points for `fuzz/`: parsers of platform responses. Not part of the public API.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::{
    CreatedResource, Queue,
    guest::session::History,
    public_api::{
        conversations::{ConversationAnswer, MessageDetails},
        open_messaging::AcceptedMessage,
    },
    response::PlatformResponse,
    token_source,
};
use guestlane_runtime::{
    Timestamp, TraceParent,
    http_client::{HttpResponse, retry_after},
};

/// Parses a response: a line with the status, header lines, an empty line, and the body.
pub fn answer(text: &[u8]) {
    let end = text
        .windows(2)
        .position(|two| two == b"\n\n")
        .unwrap_or(text.len());
    let (head, body) = text.split_at(end);
    let mut lines = head.split(|byte| *byte == b'\n');
    let status = lines
        .next()
        .and_then(|status| StatusCode::from_bytes(status).ok())
        .unwrap_or(StatusCode::OK);
    let mut headers = HeaderMap::new();
    for line in lines.take(16) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(parts.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(parts.next().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let body = Bytes::copy_from_slice(body.get(2..).unwrap_or_default());
    read(&HttpResponse {
        status,
        headers,
        body,
    });
}

fn read(answer: &HttpResponse) {
    let now = Timestamp::from_unix_micros(1_700_000_000_000_000);
    let _ = (
        retry_after(&answer.headers, now, Duration::from_secs(86_400)),
        answer.rate_limit_headers(),
        answer.correlation_id(),
    );
    let refusal = answer.refusal();
    assert!(
        !refusal.to_string().contains(['\n', '\r']),
        "it goes into a line of the log"
    );
    for carried_key in [false, true] {
        let copy = HttpResponse {
            status: answer.status,
            headers: answer.headers.clone(),
            body: answer.body.clone(),
        };
        if let Err(error) = copy.error_for_status(now, carried_key) {
            let _ = error.to_string();
        }
    }
    let _ = token_source::is_token(answer);
    let _ = (
        answer.json::<CreatedResource>(),
        answer.json::<ConversationAnswer>(),
        answer.json::<MessageDetails>(),
    );
    let _ = (
        answer.json::<AcceptedMessage>(),
        answer.json::<History>(),
        answer.json::<Queue>(),
    );
}

/// Checks that a parsed `traceparent` formats to a text that parses to the same value.
pub fn traceparent(text: &str) {
    if let Ok(parent) = text.parse::<TraceParent>() {
        assert_eq!(parent.to_string().parse(), Ok(parent));
    }
}
