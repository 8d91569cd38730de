//! Error responses of the routes, for the OpenAPI document: each status with its problem codes.

use std::collections::BTreeMap;

use guestlane::error::ErrorCode;
use utoipa::{
    IntoResponses, PartialSchema, ToSchema,
    openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder, header::HeaderBuilder},
};

use crate::{error_pages, problem::Problem};

/// Error responses of every route that requires an API key.
pub(crate) struct AuthErrors;

/// Error responses of every route with a request body.
pub(crate) struct BodyErrors;

/// Error responses of every route with a query.
pub(crate) struct QueryRefused;

/// Error responses of every route for a single resource.
pub(crate) struct NotFoundErrors;

/// Error responses of session creation.
pub(crate) struct SessionRefused;

/// Error responses of `/readyz`.
pub(crate) struct NotReady;

macro_rules! responses {
    ($($name:ident: $($status:literal)*;)*) => {
        $(impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                BTreeMap::from([$(($status.to_string(), problem($status))),*])
            }
        })*
    };
}

responses! {
    AuthErrors: 401 403 429 500 503;
    BodyErrors: 400 413 415;
    QueryRefused: 400;
    NotFoundErrors: 404;
    SessionRefused: 409 422 502;
    NotReady: 503;
}

/// One response that describes all problem codes with this status.
fn problem(status: u16) -> RefOr<Response> {
    let kinds: Vec<_> = ErrorCode::ALL
        .iter()
        .filter(|code| error_pages::status(**code) == status)
        .map(|code| format!("`{code}`: {}", code.title()))
        .collect();
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(Problem::name())))
        .build();
    let response = ResponseBuilder::new()
        .description(kinds.join("; "))
        .content("application/problem+json", content);
    let response = if matches!(status, 409 | 429 | 503) {
        let seconds = HeaderBuilder::new()
            .schema(Some(u64::schema()))
            .description(Some("Seconds after which to retry"))
            .build();
        response.header("Retry-After", seconds)
    } else {
        response
    };
    RefOr::T(response.build())
}
