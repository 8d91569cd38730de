//! Reads request bodies, queries and path segments within size and time limits. Errors name the
//! field and the reason.

use std::time::Duration;

use axum::{
    extract::{FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use guestlane::error::ErrorCode;
use guestlane_runtime::Clock;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    input::{
        MAX_ROW_BYTES,
        json::{Unreadable, read_object},
    },
    problem::Problem,
};

/// Maximum length of a request body, and of one line of a batch, in bytes.
pub const MAX_BODY: usize = MAX_ROW_BYTES;

pub use crate::input::json::MAX_DEPTH;

/// How long the client may take to send a body.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// Reads a JSON body. Handlers call it after the scope check, so that a request without permission
/// is rejected before its body is read.
///
/// # Errors
/// `unsupported_media_type`, `payload_too_large` or `invalid_request`, with the field if one is
/// wrong.
pub(crate) async fn read_json<T: DeserializeOwned>(
    clock: &Clock,
    request: Request,
) -> Result<T, Problem> {
    let (head, body) = request.into_parts();
    expect_type(&head.headers, &["application/json"])?;
    if content_length(&head.headers).is_some_and(|length| length > MAX_BODY as u64) {
        // Rejected by its declared length, so that the client need not send the body first.
        return Err(too_large());
    }
    let body = clock
        .timeout(BODY_LIMIT, Limited::new(body, MAX_BODY).collect())
        .await;
    let body = body.map_err(|_| {
        invalid_json(format!(
            "the request body was not received within {} s",
            BODY_LIMIT.as_secs()
        ))
    })?;
    let body = body.map_err(|error| {
        if error.downcast_ref::<LengthLimitError>().is_some() {
            too_large()
        } else {
            invalid_json("the request body is incomplete")
        }
    })?;
    read(&body.to_bytes())
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Checks that the body has one of the media types `wanted`. Parameters of the type are ignored.
///
/// # Errors
/// `unsupported_media_type` for another type, or for a `Content-Encoding` other than `identity`.
pub(crate) fn expect_type(headers: &HeaderMap, wanted: &[&str]) -> Result<(), Problem> {
    if headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|encoding| encoding != "identity")
    {
        let fix = "send the body uncompressed, without Content-Encoding";
        return Err(
            Problem::new(ErrorCode::UnsupportedMedia, "the body is compressed", fix)
                .of_field("Content-Encoding"),
        );
    }
    let found = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = found.split(';').next().unwrap_or_default().trim();
    if wanted
        .iter()
        .any(|wanted| wanted.eq_ignore_ascii_case(essence))
    {
        return Ok(());
    }
    let wanted = wanted.join(" or ");
    let detail = if essence.is_empty() {
        "the request has no Content-Type"
    } else {
        "the Content-Type is not supported on this path"
    };
    Err(Problem::new(
        ErrorCode::UnsupportedMedia,
        detail,
        format!("send Content-Type: {wanted}"),
    )
    .of_field("Content-Type"))
}

/// Parses a JSON object with the same parser as the command line.
///
/// # Errors
/// `invalid_request` with the field that is wrong.
pub(crate) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    read_object(text).map_err(|Unreadable { field, reason, fix }| {
        let problem = match fix {
            Some(fix) => Problem::new(ErrorCode::InvalidRequest, reason, fix),
            None => invalid_json(reason),
        };
        match field {
            Some(field) => problem.of_field(field),
            None => problem,
        }
    })
}

pub(crate) fn invalid_json(detail: impl Into<String>) -> Problem {
    Problem::new(
        ErrorCode::InvalidRequest,
        detail,
        "correct the request; /docs lists every field with an example",
    )
}

pub(crate) fn too_large() -> Problem {
    let detail = format!("the body has more than {MAX_BODY} bytes");
    Problem::new(
        ErrorCode::PayloadTooLarge,
        detail,
        "send a smaller body: attributes may have 2,048 bytes; for many sessions use POST \
         /v1/sessions:batch",
    )
}

/// Parses the query of a URL.
///
/// # Errors
/// `invalid_request` for a wrong value and for an unknown parameter, which is not ignored.
pub(crate) fn read_query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs)).map_err(|error| {
        let path = error.path().to_string();
        invalid_json(error.inner().to_string()).of_field(if path == "." {
            "query".to_owned()
        } else {
            path
        })
    })
}

/// The path segment that identifies a resource. A segment that is not UTF-8 is answered
/// `not_found`.
pub(crate) struct PathId(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let nothing = |_| {
            Problem::new(
                ErrorCode::NotFound,
                "the path does not exist",
                "/docs lists all paths",
            )
            .of_field("id")
        };
        path.map(|path| Self(path.0)).map_err(nothing)
    }
}

/// A JSON response that caches must not store.
pub(crate) fn json_response(status: StatusCode, value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, body).into_response()
}
