//! Bodies and queries, read within bounds: what cannot be read says where and why.

use std::time::Duration;

use axum::{
    extract::{FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use guestlane::{Clock, error::Code};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Serialize, de::DeserializeOwned};

use crate::problem::Problem;

/// The longest body, and the longest line of a batch.
pub const MAX_BODY: usize = 64 * 1024;

/// How deep objects and arrays may stand in each other.
pub const MAX_DEPTH: usize = 32;

/// How long a body may take to come.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// A JSON body: read only once its sender is known to be allowed what they ask for.
pub(crate) async fn read_json<T: DeserializeOwned>(clock: &Clock, request: Request) -> Result<T, Problem> {
    let (head, body) = request.into_parts();
    expect_type(&head.headers, &["application/json"])?;
    if content_length(&head.headers).is_some_and(|length| length > MAX_BODY as u64) {
        return Err(too_large()); // nobody has to send it first
    }
    let body = clock.timeout(BODY_LIMIT, Limited::new(body, MAX_BODY).collect()).await;
    let body = body.map_err(|_| malformed(format!("the body did not come within {} s", BODY_LIMIT.as_secs())))?;
    let body = body.map_err(|error| {
        if error.downcast_ref::<LengthLimitError>().is_some() { too_large() } else { malformed("the body broke off") }
    })?;
    read(&body.to_bytes())
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The body must be of one of these types; parameters of a type are not looked at.
pub(crate) fn expect_type(headers: &HeaderMap, wanted: &[&str]) -> Result<(), Problem> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let fix = "send the body as it is, without Content-Encoding";
        return Err(Problem::new(Code::UnsupportedMedia, "the body is compressed", fix).of_field("Content-Encoding"));
    }
    let found = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = found.split(';').next().unwrap_or_default().trim();
    if wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(essence)) {
        return Ok(());
    }
    let wanted = wanted.join(" or ");
    let detail =
        if essence.is_empty() { "the request has no Content-Type" } else { "the Content-Type is not one that is read here" };
    Err(Problem::new(Code::UnsupportedMedia, detail, format!("send Content-Type: {wanted}")).of_field("Content-Type"))
}

/// Reads JSON, and says which field is wrong.
pub(crate) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    if depth(text) > MAX_DEPTH {
        return Err(malformed(format!("the JSON is deeper than {MAX_DEPTH} levels")));
    }
    // An array would be taken for an object whose members are in order.
    if text.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(malformed("the body is not a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let problem = malformed(error.inner().to_string());
        if path == "." { problem } else { problem.of_field(path) }
    })?;
    json.end().map_err(|error| malformed(error.to_string()))?;
    Ok(value)
}

pub(crate) fn malformed(detail: impl Into<String>) -> Problem {
    Problem::new(Code::Malformed, detail, "correct the request: /docs has every member with an example")
}

pub(crate) fn too_large() -> Problem {
    let detail = format!("the body has more than {MAX_BODY} bytes");
    Problem::new(
        Code::TooLarge,
        detail,
        "send less: attributes have 2,048 bytes at the most; for many sessions use POST /v1/sessions:batch",
    )
}

/// How deep the objects and arrays of a JSON text stand in each other, whether it is good JSON or not.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The query of a URL; a member that does not exist is refused, not overlooked.
pub(crate) fn read_query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs)).map_err(|error| {
        let path = error.path().to_string();
        malformed(error.inner().to_string()).of_field(if path == "." { "query".to_owned() } else { path })
    })
}

/// The part of a path that names a thing; one that is no text names nothing.
pub(crate) struct Name(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let nothing = |_| Problem::new(Code::NotFound, "there is nothing of that name", "/docs lists all paths").of_field("id");
        path.map(|path| Self(path.0)).map_err(nothing)
    }
}

/// An answer as JSON that nobody may keep.
pub(crate) fn answer(status: StatusCode, value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_is_too_deep_is_refused_before_it_is_read() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let read = |inner: &str| read::<Value>(format!("{{\"a\": {inner}}}").as_bytes()).is_ok();
        assert!(read(&nested(MAX_DEPTH - 1)));
        assert!(!read(&nested(MAX_DEPTH)));
        assert!(!read(&nested(1_000_000)), "and costs no stack");
        assert!(read(&format!("\"{}\"", "[".repeat(99))), "in a text it is none");
        assert!(read(r#""\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[""#));
    }

    #[test]
    fn an_array_is_no_object() {
        #[derive(serde::Deserialize)]
        struct Wish {
            #[expect(dead_code, reason = "only read")]
            guest: String,
        }
        assert!(read::<Wish>(br#" {"guest": "ann"}"#).is_ok());
        assert!(read::<Wish>(br#"["ann"]"#).is_err());
    }

    #[test]
    fn the_field_is_named() {
        #[derive(serde::Deserialize)]
        struct Inner {
            #[expect(dead_code, reason = "only read")]
            number: u8,
        }
        #[derive(serde::Deserialize)]
        struct Outer {
            #[expect(dead_code, reason = "only read")]
            inner: Vec<Inner>,
        }
        let problem = read::<Outer>(br#"{"inner": [{"number": 1}, {"number": "x"}]}"#).err().unwrap();
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!((json["field"].as_str(), json["code"].as_str()), (Some("inner[1].number"), Some("malformed")));
    }
}
