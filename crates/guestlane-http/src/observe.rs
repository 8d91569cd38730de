//! Each request: its id, its line in the log, its figures.

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use guestlane::{TraceParent, trace};
use http::{HeaderName, HeaderValue, Method};
use tracing::{Instrument, Span, error, field::Empty, info, info_span, warn};
use uuid::Uuid;

use crate::{
    figures::Kind,
    headers::traceparent,
    problem::Told,
    service::{App, Service},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Counts a request as under way, for as long as it is.
struct UnderWay<'a>(&'a Service);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.figures().gone();
    }
}

pub(crate) async fn observe(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let started = app.clock().monotonic();
    app.figures().began();
    let _under_way = UnderWay(&app);
    let id = request_id(&request);
    let method = known(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    if let Ok(value) = HeaderValue::from_str(&id) {
        request.headers_mut().insert(REQUEST_ID, value);
    }
    let parent = traceparent(request.headers());
    let span = info_span!("request", request_id = %id, trace_id = Empty, span_id = Empty);
    let traced = info_span!(
        target: trace::TARGET,
        "http",
        otel.name = %format_args!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        guestlane.request_id = %id,
        error.type = Empty,
    );
    trace::join(&traced, parent);
    if let Some(context) = collected(&traced) {
        span.record("trace_id", context.trace_id()).record("span_id", context.span_id());
    }
    let mut response = next.run(request).instrument(traced.clone()).instrument(span).await;
    let took = app.clock().monotonic().since(started);
    let (status, problem) = (response.status().as_u16(), response.extensions().get::<Told>().map(|told| told.0));
    traced.record("http.response.status_code", status);
    if let Some(problem) = problem {
        traced.record("error.type", problem);
    }
    if status >= 500 {
        traced.record("otel.status_code", "ERROR");
    }
    let (context, ms) = (collected(&traced), took.as_micros() as f64 / 1000.0);
    let (trace_id, span_id) = (context.map(|context| context.trace_id()), context.map(|context| context.span_id()));
    // Path and query may have a guest in them: the route has not.
    macro_rules! log {
        ($level:ident) => {
            $level!(target: "guestlane_http::requests", request_id = id, method, route, status, problem, ms, trace_id, span_id, "answered")
        };
    }
    match status {
        500 => log!(error),
        501.. => log!(warn),
        _ => log!(info),
    }
    app.figures().answered(Kind { method, route, status, problem }, took);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The trace and the span of a request, where they are collected.
fn collected(traced: &Span) -> Option<TraceParent> {
    traced.in_scope(trace::context).filter(|context| context.parts().2)
}

/// The caller's own, if it is one that a log can show; else a new one.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let plain =
        |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    given.filter(plain).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// A method that is no standard one is not repeated: a label takes no words of the caller.
fn known(method: &Method) -> &'static str {
    [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
        Method::TRACE,
        Method::CONNECT,
    ]
    .iter()
    .zip(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT"])
    .find_map(|(known, name)| (known == method).then_some(name))
    .unwrap_or("_OTHER")
}
