//! The routes of the service and the order of their middleware.

use axum::{Router, middleware, response::Response, routing::get};
use bytes::Bytes;
use http::{StatusCode, header};
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::{CompressionLayer, DefaultPredicate, Predicate, predicate::NotForContentType},
};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth,
    openapi::{Document, normalize},
    problem::Problem,
    request_log,
    routes::{audit, batch, create, errors, events, health, keys, outbox, pages, sessions, tokens},
    security_headers,
    service::App,
};

/// Builds the router, which also serves the OpenAPI document of its routes.
pub(crate) fn router(app: &App) -> Router {
    // Authentication comes before routing errors, so that a client without a key cannot find out
    // which paths exist.
    let (with_key, mut document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(create::create, sessions::list))
        .routes(routes!(batch::create_all))
        .routes(routes!(sessions::show))
        .routes(routes!(sessions::show_timeline))
        .routes(routes!(tokens::verify))
        .routes(routes!(errors::errors))
        .routes(routes!(outbox::list))
        .routes(routes!(audit::checkpoint))
        .routes(routes!(audit::verify))
        .routes(routes!(events::now))
        .routes(routes!(events::stream))
        .split_for_parts();
    // The router cannot match a fixed suffix such as `{id}:replay`, so the handler checks the
    // suffix.
    document.merge(Replay::openapi());
    let with_key = with_key
        .route("/v1/outbox/{id}", axum::routing::post(outbox::replay))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(
            app.clone(),
            auth::authenticate,
        ));

    let (open, open_document) = OpenApiRouter::<App>::new()
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(keys::jwks))
        .split_for_parts();
    document.merge(open_document);
    // All responses share one copy: otherwise each connection that does not read its response would
    // hold one.
    let json = Bytes::from(normalize(&document).to_string());
    let open = open
        .route(
            "/openapi.json",
            get(move || async move { ([(http::header::CONTENT_TYPE, "application/json")], json) }),
        )
        .route("/", get(pages::dashboard))
        .route("/docs", get(pages::docs))
        .route("/assets/{name}", get(pages::other))
        .route("/problems/{code}", get(errors::page))
        .method_not_allowed_fallback(method_not_allowed);

    let router = open
        .merge(with_key)
        // JSON Lines are read as they arrive, and a compressor would hold some of them back.
        .layer(CompressionLayer::new().compress_when(
            DefaultPredicate::new().and(NotForContentType::const_new("application/jsonl")),
        ))
        .layer(CatchPanicLayer::custom(
            |_: Box<dyn std::any::Any + Send>| {
                axum::response::IntoResponse::into_response(internal_error())
            },
        ))
        .layer(middleware::from_fn_with_state(
            app.clone(),
            request_log::observe,
        ))
        .with_state(app.clone());
    // A client without a key must not learn which methods a path accepts. The router adds the
    // `Allow` header outside its own layers, so the header is removed here.
    Router::new()
        .fallback_service(router)
        .layer(middleware::map_response(keep_allowed_methods))
        .layer(middleware::map_response_with_state(
            app.clone(),
            security_headers::add,
        ))
}

/// The router of a listener that serves only the probes.
pub(crate) fn probes(app: &App) -> Router {
    Router::new()
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .with_state(app.clone())
}

/// The route that the router knows under another path, with its documented path.
#[derive(OpenApi)]
#[openapi(paths(outbox::replay))]
struct Replay;

async fn keep_allowed_methods(mut response: Response) -> Response {
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().remove(header::ALLOW);
    }
    response
}

async fn not_found() -> Problem {
    Problem::new(
        guestlane::error::ErrorCode::NotFound,
        "the path does not exist",
        "/docs lists all paths",
    )
}

async fn method_not_allowed() -> Problem {
    Problem::new(
        guestlane::error::ErrorCode::MethodNotAllowed,
        "this path does not support this method",
        "/docs lists all methods",
    )
}

fn internal_error() -> Problem {
    Problem::new(
        guestlane::error::ErrorCode::InternalError,
        "the service failed to handle this request",
        "report it with the request ID",
    )
}
