//! `/v1/overview` and `/v1/events`: the state of the service, once and as a stream.

use std::{convert::Infallible, sync::Arc};

use axum::{
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use futures_util::{Stream, StreamExt, stream};
use guestlane_core::api_key::Scope;
use http::{HeaderValue, StatusCode, header};
use tokio::sync::{broadcast, watch};

use crate::{
    auth::Authenticated,
    error_responses::AuthErrors,
    extract::json_response,
    model::{Overview, Session},
    problem::Problem,
    request_log::Streams,
    sampler::overview,
    samples::Snapshot,
    service::App,
};

/// Get an overview of the service
///
/// Returns rate and latency of the last minute, use of the rate limits, errors with cause and fix,
/// and the state of the outbox, the audit log and the signing keys.
#[utoipa::path(
    get, path = "/v1/overview", tag = "operation", operation_id = "getOverview",
    security(("apiKey" = ["sessions:read"])),
    responses((status = 200, description = "State of the service, sampled once per second", body = Overview), AuthErrors),
)]
pub(crate) async fn now(State(app): State<App>, who: Authenticated) -> Result<Response, Problem> {
    who.require_scope(Scope::SessionsRead)?;
    Ok(json_response(StatusCode::OK, &overview(&app, who.scopes())))
}

/// Stream the overview and session changes
///
/// Server-sent events: `overview` every second, and `session` whenever a session opens, fails or
/// waits for another attempt. A client that reads too slowly misses some `session` events.
#[utoipa::path(
    get, path = "/v1/events", tag = "operation", operation_id = "streamEvents",
    security(("apiKey" = ["sessions:read"])),
    responses((status = 200,
        description = "Event stream, which lasts until the service or the client closes it", content_type = "text/event-stream", body = String), AuthErrors),
)]
pub(crate) async fn stream(
    State(app): State<App>,
    who: Authenticated,
) -> Result<Response, Problem> {
    who.require_scope(Scope::SessionsRead)?;
    let mut response = Sse::new(events(app, who)).into_response();
    as_stream(&mut response);
    Ok(response)
}

/// Marks a response as a stream: caches and proxies must not store or buffer it, and its logged
/// duration includes its body.
pub(crate) fn as_stream(response: &mut Response) {
    response.extensions_mut().insert(Streams);
    let headers = response.headers_mut();
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-store, no-transform"),
    );
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
}

struct Streaming {
    app: App,
    who: Authenticated,
    seconds: watch::Receiver<Arc<Snapshot>>,
    news: broadcast::Receiver<Arc<guestlane_core::session::SessionRecord>>,
}

fn events(app: App, who: Authenticated) -> impl Stream<Item = Result<Event, Infallible>> {
    let mut seconds = app.snapshot().subscribe();
    // The stream begins with the current overview.
    seconds.mark_changed();
    let streaming = Streaming {
        who,
        seconds,
        news: app.engine().subscribe(),
        app,
    };
    stream::unfold(streaming, |mut streaming| async move {
        let event = loop {
            tokio::select! {
                () = streaming.app.shutdown_token().cancelled() => return None,
                () = streaming.who.revoked(&streaming.app) => return None,
                changed = streaming.seconds.changed() => {
                    changed.ok()?;
                    streaming.seconds.mark_unchanged();
                    break as_event("overview", &overview(&streaming.app, streaming.who.scopes()));
                }
                news = streaming.news.recv() => match news {
                    Ok(session) => break as_event("session", &Session::stored(&session)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        };
        // `revoked` checks the key only once a second, so the key is checked again before each
        // event: a revoked key must not receive any.
        streaming
            .who
            .is_active(&streaming.app)
            .then(|| (Ok(event), streaming))
    })
    .fuse()
}

fn as_event(name: &str, data: &impl serde::Serialize) -> Event {
    Event::default()
        .event(name)
        .data(serde_json::to_string(data).unwrap_or_default())
}
