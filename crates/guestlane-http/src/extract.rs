//! Bodies and queries, read within bounds: what cannot be read says where and why.

use std::time::Duration;

use axum::{
    extract::{FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use guestlane::{
    Clock,
    error::Code,
    input::{
        MAX_ROW_BYTES,
        json::{Unreadable, read_object},
    },
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Serialize, de::DeserializeOwned};

use crate::problem::Problem;

/// The longest body, and the longest line of a batch.
pub const MAX_BODY: usize = MAX_ROW_BYTES;

pub use guestlane::input::json::MAX_DEPTH;

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
    let body = body.map_err(|_| invalid_json(format!("the body did not come within {} s", BODY_LIMIT.as_secs())))?;
    let body = body.map_err(|error| {
        if error.downcast_ref::<LengthLimitError>().is_some() { too_large() } else { invalid_json("the body broke off") }
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

/// Reads a JSON object as every entrance does, and says which field is wrong.
pub(crate) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    read_object(text).map_err(|Unreadable { field, reason, fix }| {
        let problem = match fix {
            Some(fix) => Problem::new(Code::InvalidRequest, reason, fix),
            None => invalid_json(reason),
        };
        match field {
            Some(field) => problem.of_field(field),
            None => problem,
        }
    })
}

pub(crate) fn invalid_json(detail: impl Into<String>) -> Problem {
    Problem::new(Code::InvalidRequest, detail, "correct the request: /docs has every member with an example")
}

pub(crate) fn too_large() -> Problem {
    let detail = format!("the body has more than {MAX_BODY} bytes");
    Problem::new(
        Code::PayloadTooLarge,
        detail,
        "send less: attributes have 2,048 bytes at the most; for many sessions use POST /v1/sessions:batch",
    )
}

/// The query of a URL; a member that does not exist is refused, not overlooked.
pub(crate) fn read_query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs)).map_err(|error| {
        let path = error.path().to_string();
        invalid_json(error.inner().to_string()).of_field(if path == "." { "query".to_owned() } else { path })
    })
}

/// The part of a path that names a thing; one that is no text names nothing.
pub(crate) struct PathId(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let nothing = |_| Problem::new(Code::NotFound, "there is nothing of that name", "/docs lists all paths").of_field("id");
        path.map(|path| Self(path.0)).map_err(nothing)
    }
}

/// An answer as JSON that nobody may keep.
pub(crate) fn json_response(status: StatusCode, value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, body).into_response()
}
