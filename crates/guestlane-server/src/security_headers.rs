//! Security headers of every response, set in one place so that no route can omit them (OWASP
//! Secure Headers Project).

use axum::{extract::State, response::Response};
use http::{HeaderName, HeaderValue, header};

use crate::service::App;

/// The content security policy of responses that are not pages: it forbids everything.
const NO_PAGE: &str = "default-src 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, NO_PAGE),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
];

/// One year in seconds, the minimum for browsers' HSTS preload lists (RFC 6797, section 6.1).
const HSTS: &str = "max-age=31536000";

/// Adds each header that the route has not set.
pub(crate) async fn add(State(app): State<App>, mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    if app.speaks_tls() {
        headers
            .entry(header::STRICT_TRANSPORT_SECURITY)
            .or_insert(HeaderValue::from_static(HSTS));
    }
    response
}
