//! `/healthz` and `/readyz`: liveness and readiness probes, which require no API key.

use axum::{extract::State, response::Response};
use guestlane::error::ErrorCode;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    extract::json_response,
    openapi::NotReady,
    problem::Problem,
    readiness::{self, NotReadyReason},
    service::App,
};

/// Whether the process lives, or takes requests.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Health {
    /// `ok`.
    #[schema(max_length = 16, example = "ok")]
    status: &'static str,
    /// `ok`, or `failing`: sessions are recorded meanwhile, and completed when it is back. Of `/readyz`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 16, example = "ok")]
    platform: Option<&'static str>,
}

const OK: Health = Health {
    status: "ok",
    platform: None,
};

/// Does the process live?
#[utoipa::path(
    get, path = "/healthz", tag = "operation", operation_id = "getHealth", security(()),
    responses((status = 200, description = "The node accepts requests", body = Health)),
)]
pub(crate) async fn live() -> Response {
    json_response(StatusCode::OK, &OK)
}

/// Does it take requests?
///
/// Not while it ends, nor while its store does not answer or takes no writes. The answer comes from what the process knows, at once.
/// That the platform fails does not matter here: no other instance would fare better.
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
