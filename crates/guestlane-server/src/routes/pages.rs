//! The dashboard and the API documentation. These pages contain no data, so they require no API
//! key.

use axum::response::{IntoResponse, Response};
use guestlane::error::ErrorCode;
use http::{HeaderName, HeaderValue, header};

use crate::{extract::PathId, problem::Problem};

macro_rules! assets {
    ($($name:literal $kind:literal;)*) => {
        const ASSETS: &[(&str, &str, &[u8])] = &[$(($name, $kind, include_bytes!(concat!("../page/", $name)))),*];
    };
}

assets! {
    "index.html" "text/html; charset=utf-8";
    "docs.html" "text/html; charset=utf-8";
    "docs.css" "text/css; charset=utf-8";
    "style.css" "text/css; charset=utf-8";
    "actions.js" "text/javascript; charset=utf-8";
    "api.js" "text/javascript; charset=utf-8";
    "app.js" "text/javascript; charset=utf-8";
    "chart.js" "text/javascript; charset=utf-8";
    "docs.js" "text/javascript; charset=utf-8";
    "dom.js" "text/javascript; charset=utf-8";
    "format.js" "text/javascript; charset=utf-8";
    "panels.js" "text/javascript; charset=utf-8";
    "sessions.js" "text/javascript; charset=utf-8";
    "state.js" "text/javascript; charset=utf-8";
    "timeline.js" "text/javascript; charset=utf-8";
}

/// Content security policy of the pages. It allows only resources of this origin, and no inline
/// script or style, so that text from a session cannot run as a script.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

fn asset(name: &str) -> Result<Response, Problem> {
    let nothing = || {
        Problem::new(
            ErrorCode::NotFound,
            "the page does not exist",
            "the pages are / and /docs",
        )
    };
    let (_, kind, bytes) = ASSETS
        .iter()
        .find(|(known, ..)| *known == name)
        .ok_or_else(nothing)?;
    let headers: [(HeaderName, HeaderValue); 3] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    Ok((headers, *bytes).into_response())
}

pub(crate) async fn dashboard() -> Result<Response, Problem> {
    asset("index.html")
}

pub(crate) async fn docs() -> Result<Response, Problem> {
    asset("docs.html")
}

pub(crate) async fn other(PathId(name): PathId) -> Result<Response, Problem> {
    if name.ends_with(".html") {
        asset("")
    } else {
        asset(&name)
    }
}
