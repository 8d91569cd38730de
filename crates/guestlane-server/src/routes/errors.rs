//! `GET /v1/errors` (requirement R12, docs/requirements.md) and `GET /problems/…`.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use guestlane::error::ErrorCode;
use guestlane_core::api_key::Scope;
use http::{StatusCode, header};

use crate::{
    auth::Authenticated,
    error_pages,
    error_responses::AuthErrors,
    extract::{PathId, json_response},
    model::ErrorRates,
    problem::Problem,
    service::App,
};

/// Get error counts by category
///
/// Counts each failed attempt of this process and of earlier ones.
#[utoipa::path(
    get, path = "/v1/errors", tag = "operation", operation_id = "getErrors",
    security(("apiKey" = ["sessions:read"])),
    responses((status = 200, description = "Error counts", body = ErrorRates), AuthErrors),
)]
pub(crate) async fn errors(
    State(app): State<App>,
    who: Authenticated,
) -> Result<Response, Problem> {
    who.require_scope(Scope::SessionsRead)?;
    Ok(json_response(
        StatusCode::OK,
        &ErrorRates::from(app.engine().error_counts()),
    ))
}

/// The documentation page of an error code, to which a problem's `type` points, as Markdown.
pub(crate) async fn page(PathId(code): PathId) -> Result<Response, Problem> {
    let nothing = || {
        Problem::new(
            ErrorCode::NotFound,
            "no problem has this code",
            "/docs lists all codes",
        )
    };
    let code = ErrorCode::from_name(&code).ok_or_else(nothing)?;
    Ok((
        [(header::CONTENT_TYPE, "text/markdown; charset=utf-8")],
        error_pages::page(code),
    )
        .into_response())
}
