//! Bodies and queries, read within bounds: what cannot be read says where and why.

use std::time::Duration;

use axum::{
    extract::{FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use guestlane::{Clock, error::Code};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Serialize, de::DeserializeOwned};

use crate::problem::Problem;

/// The longest body, and the longest line of a batch.
pub const MAX_BODY: usize = 64 * 1024;

/// How deep objects and arrays may stand in each other.
pub const MAX_DEPTH: usize = 32;

/// How long a body may take to come.
const BODY_LIMIT: Duration = Duration::from_secs(20);

/// A JSON body: read only once its sender is known to be allowed what they ask for.
pub(crate) async fn read_json<T: DeserializeOwned>(clock: &Clock, request: Request) -> Result<T, Problem> {
    let (head, body) = request.into_parts();
    expect_type(&head.headers, &["application/json"])?;
    let body = clock.timeout(BODY_LIMIT, Limited::new(body, MAX_BODY).collect()).await;
    let body = body.map_err(|_| malformed(format!("the body did not come within {} s", BODY_LIMIT.as_secs())))?;
    let body = body.map_err(|error| {
        if error.downcast_ref::<LengthLimitError>().is_some() { too_large() } else { malformed("the body broke off") }
    })?;
    read(&body.to_bytes())
}

/// The body must be of one of these types; parameters of a type are not looked at.
pub(crate) fn expect_type(headers: &HeaderMap, wanted: &[&str]) -> Result<(), Problem> {
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
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        query.map(|query| Self(query.0)).map_err(|error| malformed(error.body_text()).of_field("query"))
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
        assert!(read::<Value>(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(read::<Value>(nested(MAX_DEPTH + 1).as_bytes()).is_err());
        assert!(read::<Value>(nested(1_000_000).as_bytes()).is_err(), "and costs no stack");
        assert!(read::<Value>(format!("\"{}\"", "[".repeat(99)).as_bytes()).is_ok(), "in a text it is none");
        assert!(read::<Value>(br#""\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[""#).is_ok());
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
