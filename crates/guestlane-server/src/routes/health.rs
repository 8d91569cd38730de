//! `/healthz` and `/readyz`: liveness and readiness probes, which require no API key.

use axum::{extract::State, response::Response};
use guestlane::error::ErrorCode;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    error_responses::NotReady,
    extract::json_response,
    problem::Problem,
    readiness::{self, NotReadyReason},
    service::App,
};

/// The state of the process.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Health {
    /// Always `ok`.
    #[schema(max_length = 16, example = "ok")]
    status: &'static str,
    /// The state of the platform, only in the response of `/readyz`: `ok` or `failing`. While the
    /// platform fails, sessions are stored and completed later.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 16, example = "ok")]
    platform: Option<&'static str>,
}

const OK: Health = Health {
    status: "ok",
    platform: None,
};

/// Liveness probe
#[utoipa::path(
    get, path = "/healthz", tag = "operation", operation_id = "getHealth", security(()),
    responses((status = 200, description = "The node accepts requests", body = Health)),
)]
pub(crate) async fn live() -> Response {
    json_response(StatusCode::OK, &OK)
}

/// Readiness probe
///
/// The service is not ready during shutdown, or while its store does not respond or accepts no
/// writes. The response comes from memory, without delay. A failing platform does not make the
/// service unready: it affects all instances alike.
#[utoipa::path(
    get, path = "/readyz", tag = "operation", operation_id = "getReadiness", security(()),
    responses((status = 200, description = "The node accepts requests", body = Health), NotReady),
)]
pub(crate) async fn ready(State(app): State<App>) -> Result<Response, Problem> {
    readiness::check(&app).map_err(|unready| match unready {
        NotReadyReason::ShuttingDown => Problem::new(
            ErrorCode::ShuttingDown,
            unready.reason(),
            "send the request to another node",
        )
        .retry_after(1),
        _ => Problem::new(
            ErrorCode::StoreFailed,
            unready.reason(),
            "read the log; docs/runbooks/store.md describes what to do",
        )
        .retry_after(1),
    })?;
    let platform = if app.engine().platform_down_for().is_some() {
        "failing"
    } else {
        "ok"
    };
    Ok(json_response(
        StatusCode::OK,
        &Health {
            platform: Some(platform),
            ..OK
        },
    ))
}
