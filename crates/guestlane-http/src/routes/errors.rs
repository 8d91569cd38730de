//! `GET /v1/errors` (requirement R12, docs/requirements.md) and `GET /problems/…`.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use guestlane::{api_key::Scope, error::ErrorCode};
use http::{StatusCode, header};

use crate::{
    auth::Authenticated,
    extract::{PathId, json_response},
    model::ErrorRates,
    openapi::AuthErrors,
    problem::Problem,
    service::App,
};

/// Errors by category
///
/// One for each failed attempt, of this process and of those before it.
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

/// The page of a kind of problem, to which `type` leads: Markdown, as a person reads it.
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
        code.page(),
    )
        .into_response())
}
