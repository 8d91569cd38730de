//! Request middleware: assigns the request ID, writes one log line, and records metrics and a trace
//! span.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use guestlane_core::api_key::Principal;
use guestlane_runtime::{Clock, Timestamp, TraceParent, trace_context};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use tracing::{
    Instrument, Span, error,
    field::{Empty, display},
    info, info_span, warn,
};
use uuid::Uuid;

use crate::{
    auth,
    connections::{AtEnd, Connection, Owed},
    headers::traceparent,
    problem::LoggedCode,
    request_metrics::RouteLabels,
    service::App,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Marks a streaming response, whose duration includes that of its body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams;

/// A request in flight, with the fields of its log line.
struct Observed {
    app: App,
    started: Timestamp,
    id: String,
    method: &'static str,
    route: String,
    /// The ID of the API key.
    api_key: Option<String>,
    /// The address of the peer: the client, or a proxy.
    peer: Option<SocketAddr>,
    /// The client's address, as the proxy reports it.
    forwarded_for: Option<IpAddr>,
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.app.figures().gone();
    }
}

impl Observed {
    fn new(app: &App, request: &Request, caller: Option<&Principal>) -> Self {
        app.figures().began();
        let peer = request
            .extensions()
            .get::<Arc<Connection>>()
            .map(|connection| connection.peer);
        let route = request
            .extensions()
            .get::<MatchedPath>()
            .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
        Self {
            app: Arc::clone(app),
            started: app.clock().monotonic(),
            id: request_id(request),
            method: known(request.method()),
            route,
            api_key: caller.map(|caller| caller.id.clone()),
            peer,
            forwarded_for: app
                .is_behind_proxy()
                .then(|| forwarded_for(request.headers()))
                .flatten(),
        }
    }

    /// Records metrics and writes the log line of a response. Lines of unauthenticated requests are
    /// limited, because clients without a key decide how many requests they send.
    fn answered(self, status: u16, problem: Option<&'static str>, collected: Option<TraceParent>) {
        let Self {
            app,
            id,
            method,
            route,
            api_key,
            peer,
            forwarded_for,
            ..
        } = &self;
        let now = app.clock().monotonic();
        let took = now.since(self.started);
        app.figures().answered(
            RouteLabels {
                method,
                route: route.clone(),
                status,
                problem,
            },
            took,
        );
        let ms = took.as_micros() as f64 / 1000.0;
        let (peer, forwarded_for) = (peer.map(display), forwarded_for.map(display));
        if status == StatusCode::UNAUTHORIZED {
            app.figures().authentication_failed();
            if let Some(left_out) = app.unauthenticated_log().allow(now) {
                warn!(target: LOG, request_id = id, method, route, peer, forwarded_for, left_out, "authentication failed");
            }
            return;
        }
        let left_out = match api_key {
            Some(_) => Some(0),
            None => app.anonymous_log().allow(now),
        };
        let Some(left_out) = left_out else { return };
        let left_out = Some(left_out).filter(|left_out| *left_out > 0);
        let (trace_id, span_id) = (
            collected.map(|context| context.trace_id()),
            collected.map(|context| context.span_id()),
        );
        // The line has the route, not the path or query, which may contain data of a guest.
        macro_rules! log {
            ($level:ident) => {
                $level!(
                    target: LOG,
                    request_id = id, method, route, status, problem, ms, api_key, peer, forwarded_for, left_out, trace_id, span_id, "request \
                        completed"
                )
            };
        }
        match status {
            500 => log!(error),
            501.. => log!(warn),
            _ => log!(info),
        }
    }
}

/// The log target of request lines.
const LOG: &str = "crate::requests";

/// The last address in `X-Forwarded-For`, which the proxy itself added. A client can forge the
/// earlier ones.
fn forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers
        .get_all("x-forwarded-for")
        .iter()
        .next_back()?
        .to_str()
        .ok()?;
    last.rsplit(',').next()?.trim().parse().ok()
}

/// Middleware that assigns the request ID, opens the span, and logs and counts the response.
pub(crate) async fn observe(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let caller = auth::identify(&app, request.headers());
    let observed = Observed::new(&app, &request, caller.as_ref());
    let connection = request.extensions().get::<Arc<Connection>>().cloned();
    let closes = app.is_draining() && request.version() < Version::HTTP_2;
    let id = HeaderValue::from_str(&observed.id).ok();
    if let Some(id) = id.clone() {
        request.headers_mut().insert(REQUEST_ID, id);
    }
    let span = info_span!("request", request_id = %observed.id, trace_id = Empty, span_id = Empty);
    let traced = info_span!(
        target: trace_context::TARGET,
        "http",
        otel.name = %format_args!("{} {}", observed.method, observed.route),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = observed.method,
        http.route = observed.route,
        http.response.status_code = Empty,
        guestlane.request_id = %observed.id,
        error.type = Empty,
    );
    if let Some(caller) = caller {
        trace_context::set_parent(&traced, traceparent(request.headers()));
        request.extensions_mut().insert(caller);
    } else {
        // The trace context of an unauthenticated client must not be joined by inner layers either.
        request.headers_mut().remove("traceparent");
    }
    let collected = collected(&traced);
    if let Some(context) = collected {
        span.record("trace_id", context.trace_id())
            .record("span_id", context.span_id());
    }
    let mut response = next
        .run(request)
        .instrument(traced.clone())
        .instrument(span)
        .await;
    let (status, problem) = (
        response.status().as_u16(),
        response.extensions().get::<LoggedCode>().map(|told| told.0),
    );
    traced.record("http.response.status_code", status);
    if let Some(problem) = problem {
        traced.record("error.type", problem);
    }
    if status >= 500 {
        traced.record("otel.status_code", "ERROR");
    }
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    if closes {
        // While the node drains, closing makes the peer send its next request on a new connection,
        // which the load balancer routes to another node.
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let at_end: Option<AtEnd> = match response.extensions().get::<Streams>() {
        Some(_) => Some(Box::new(move || {
            observed.answered(status, problem, collected)
        })),
        None => {
            observed.answered(status, problem, collected);
            None
        }
    };
    owed(response, connection, app.clock(), at_end)
}

/// Applies the read timeout of [`Owed`] to the response, and nothing else of [`observe`].
pub(crate) async fn limit_stalls(State(app): State<App>, request: Request, next: Next) -> Response {
    let connection = request.extensions().get::<Arc<Connection>>().cloned();
    owed(next.run(request).await, connection, app.clock(), None)
}

fn owed(
    response: Response,
    connection: Option<Arc<Connection>>,
    clock: &Clock,
    at_end: Option<AtEnd>,
) -> Response {
    match connection {
        Some(connection) => {
            response.map(|body| Body::new(Owed::new(body, connection, clock.clone(), at_end)))
        }
        None => response,
    }
}

/// The trace context of a request, if its span is sampled.
fn collected(traced: &Span) -> Option<TraceParent> {
    traced
        .in_scope(trace_context::current)
        .filter(|context| context.parts().2)
}

/// The `X-Request-Id` of the request if it is safe to log, else a new ID. A safe ID has at most 64
/// characters: ASCII letters, digits, `-`, `_` or `.`.
fn request_id(request: &Request) -> String {
    let given = request
        .headers()
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok());
    let plain = |id: &&str| {
        (1..=64).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    given
        .filter(plain)
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// The method's name, or `_OTHER` for a non-standard method: a metric label must not contain text
/// that a client chose.
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
    .zip([
        "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT",
    ])
    .find_map(|(known, name)| (known == method).then_some(name))
    .unwrap_or("_OTHER")
}
