//! The journal: records requests, frames and their responses for inspection.

use std::collections::{BTreeMap, VecDeque};

use guestlane_runtime::Timestamp;
use http::{HeaderMap, Method};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{request::has_type, route::Route};

/// One request.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Counted from 1 over all requests.
    pub n: u64,
    /// The time of arrival.
    pub at: Timestamp,
    /// The route, or absent if no route matches.
    pub route: Option<Route>,
    /// The HTTP method, or `FRAME` for a frame of a guest socket.
    pub method: String,
    /// The path with query, without a file's signature. For a frame, its action.
    pub path: String,
    /// The HTTP headers as sent. Of `authorization` only the scheme is shown.
    pub headers: BTreeMap<String, String>,
    /// The body as sent. Files, client secrets, and the secrets of guests' sign-ins and frames are
    /// not shown. A body longer than 16 KiB is cut and ends in `…`.
    pub body: String,
    /// The status or code of the response, or absent if the response was withheld.
    pub status: Option<u16>,
    /// The fault that was injected.
    pub fault: Option<String>,
    /// The `ININ-Correlation-Id` of the response.
    pub correlation_id: Uuid,
}

/// The last entries: at most [`KEPT`], and at most [`KEPT_BYTES`] in all.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    records: VecDeque<Record>,
    bytes: usize,
}

/// The maximum number of entries.
const KEPT: usize = 10_000;

/// The maximum size of the text of all entries, in bytes.
const KEPT_BYTES: usize = 32 * 1024 * 1024;

/// The maximum size of a recorded body, in bytes.
const KEPT_OF_BODY: usize = 16 * 1024;

/// The path prefix under which guests' codes and tokens are exchanged.
const EXCHANGES: &str = "/api/v2/webdeployments/token/";

/// An entry as it is stored, with its secrets already removed. It becomes an [`Entry`] only when
/// the journal is read.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) n: u64,
    pub(crate) at: Timestamp,
    pub(crate) route: Option<Route>,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Box<str>,
    pub(crate) status: Option<u16>,
    pub(crate) fault: Option<crate::fault::Fault>,
    pub(crate) correlation_id: Uuid,
}

impl Journal {
    pub(crate) fn add(&mut self, record: Record) {
        self.bytes += record.bytes();
        self.records.push_back(record);
        while self.records.len() > KEPT || self.bytes > KEPT_BYTES {
            let Some(oldest) = self.records.pop_front() else {
                return;
            };
            self.bytes -= oldest.bytes();
        }
    }

    /// Records the status of the response to request `n`, if the entry is still kept.
    pub(crate) fn answered(&mut self, n: u64, status: u16) {
        if let Some(record) = self.records.iter_mut().rev().find(|record| record.n == n) {
            record.status = Some(status);
        }
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.records.iter().map(Record::entry).collect()
    }
}

impl Record {
    fn bytes(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        size_of::<Self>() + self.path.len() + self.body.len() + headers
    }

    fn entry(&self) -> Entry {
        Entry {
            n: self.n,
            at: self.at,
            route: self.route,
            method: self.method.to_string(),
            path: self.path.clone(),
            headers: self.headers.iter().cloned().collect(),
            body: self.body.to_string(),
            status: self.status,
            fault: self.fault.map(|fault| fault.to_string()),
            correlation_id: self.correlation_id,
        }
    }
}

/// Returns path and query without the signatures and secrets in them.
pub(crate) fn path(path: &str, query: Option<&str>) -> String {
    let Some(query) = query else {
        return path.to_owned();
    };
    let query = without(query, &["sig", "client_secret"]);
    format!("{path}?{query}")
}

/// Returns the headers without credentials.
pub(crate) fn headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let shown = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (
            name.to_string(),
            if name.as_str().ends_with("authorization") {
                scheme(&text)
            } else {
                text
            },
        )
    };
    headers.iter().map(shown).collect()
}

/// Returns the scheme as written, followed by `***`, or nothing of an unknown scheme.
fn scheme(value: &str) -> String {
    match value.split_once(' ') {
        Some((scheme, _)) if ["basic", "bearer"].contains(&scheme.to_lowercase().as_str()) => {
            format!("{scheme} ***")
        }
        _ => "***".to_owned(),
    }
}

/// Returns the body of a request without secrets.
pub(crate) fn body(route: Option<Route>, path: &str, headers: &HeaderMap, body: &[u8]) -> Box<str> {
    let text = String::from_utf8_lossy(body);
    if path.starts_with(EXCHANGES) {
        return truncated(&exchange(&text));
    }
    let form = has_type(headers, "application/x-www-form-urlencoded");
    if !form && !matches!(route, None | Some(Route::Token)) {
        return truncated(&text);
    }
    match serde_json::from_str::<Value>(&text) {
        Ok(mut value) if value.is_object() || value.is_array() => {
            mask(&mut value, &["client_secret"]);
            truncated(&value.to_string())
        }
        _ => truncated(&without(&text, &["client_secret"])),
    }
}

fn exchange(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let Ok(mut value) = serde_json::from_str::<Value>(text) else {
        return "***".to_owned();
    };
    mask(
        &mut value,
        &["code", "refreshToken", "idToken", "codeVerifier", "jwt"],
    );
    value.to_string()
}

fn mask(value: &mut Value, secrets: &[&str]) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if secrets.contains(&name.as_str()) {
                    *value = Value::from("***")
                } else {
                    mask(value, secrets)
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| mask(value, secrets)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Redacts the values of these names in `a=b&c=d`, in any encoding of the names. The rest is
/// unchanged.
fn without(pairs: &str, secrets: &[&str]) -> String {
    let decoded = |text: &str| {
        let pair = url::form_urlencoded::parse(text.as_bytes()).next();
        pair.map_or_else(String::new, |(name, _)| name.trim().to_lowercase())
    };
    let shown = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (plain, inside) = (decoded(name), decoded(&value.replace('=', "%3D")));
        if secrets.contains(&plain.as_str()) {
            return format!("{name}=***");
        }
        // A body that is not a form may contain a secret as well.
        let hides = secrets
            .iter()
            .any(|secret| secret.len() > 3 && (plain.contains(secret) || inside.contains(secret)));
        if hides {
            "***".to_owned()
        } else {
            pair.to_owned()
        }
    };
    pairs.split('&').map(shown).collect::<Vec<_>>().join("&")
}

/// Cuts a long text to at most [`KEPT_OF_BODY`] bytes.
pub(crate) fn truncated(text: &str) -> Box<str> {
    if text.len() <= KEPT_OF_BODY {
        return text.into();
    }
    format!("{}…", &text[..text.floor_char_boundary(KEPT_OF_BODY)]).into()
}
