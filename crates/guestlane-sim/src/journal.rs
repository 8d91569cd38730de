//! Every request and frame, and what was answered, to be looked at.

use std::collections::{BTreeMap, VecDeque};

use guestlane_genesys::Timestamp;
use http::{HeaderMap, Method};
use serde::Serialize;
use uuid::Uuid;

use crate::route::Route;

/// One request.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Counted from 1 over all requests.
    pub n: u64,
    /// When it came.
    pub at: Timestamp,
    /// Where it went; absent when nothing is there.
    pub route: Option<Route>,
    /// HTTP method; `FRAME` of what came over a guest socket.
    pub method: String,
    /// Path with query; of a frame its action.
    pub path: String,
    /// HTTP headers, as sent.
    pub headers: BTreeMap<String, String>,
    /// The body, as sent; the client secret of a sign-in and the secrets of a frame are not shown, nor are files.
    pub body: String,
    /// The answer's status, or code; absent when the answer was withheld.
    pub status: Option<u16>,
    /// The fault that hit it.
    pub fault: Option<String>,
    /// The answer's `ININ-Correlation-Id`.
    pub correlation_id: Uuid,
}

/// The last entries.
#[derive(Debug, Default)]
pub(crate) struct Journal(VecDeque<Record>);

/// How much of a body is kept.
const LONGEST_BODY: usize = 16 * 1024;

/// How many entries are kept.
const KEPT: usize = 10_000;

/// An entry as it is kept: turned into an [`Entry`] only when somebody looks.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) n: u64,
    pub(crate) at: Timestamp,
    pub(crate) route: Option<Route>,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: bytes::Bytes,
    pub(crate) status: Option<u16>,
    pub(crate) fault: Option<crate::fault::Fault>,
    pub(crate) correlation_id: Uuid,
}

impl Journal {
    pub(crate) fn add(&mut self, mut record: Record) {
        if record.body.len() > LONGEST_BODY {
            // A copy: a slice would keep the whole.
            record.body = [&record.body[..LONGEST_BODY], b" [cut]"].concat().into();
        }
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(record);
    }

    /// What the request `n` was answered; it is among the last ones.
    pub(crate) fn answered(&mut self, n: u64, status: u16) {
        if let Some(record) = self.0.iter_mut().rev().find(|record| record.n == n) {
            record.status = Some(status);
        }
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.0.iter().map(Record::entry).collect()
    }
}

impl Record {
    fn entry(&self) -> Entry {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let body = String::from_utf8_lossy(&self.body);
        let body = match self.route {
            Some(Route::Token) => without_secrets_of_form(&body),
            Some(Route::Exchange) => without_secrets_of_json(&body),
            _ => body.into_owned(),
        };
        let mut headers: BTreeMap<_, _> = self.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        if let Some(value) = headers.get_mut("authorization") {
            *value = value.split_once(' ').map_or_else(|| "***".to_owned(), |(scheme, _)| format!("{scheme} ***"));
        }
        Entry {
            n: self.n,
            at: self.at,
            route: self.route,
            method: self.method.to_string(),
            path: without_signature(&self.path),
            headers,
            body,
            status: self.status,
            fault: self.fault.map(|fault| fault.to_string()),
            correlation_id: self.correlation_id,
        }
    }
}

/// A form with its secret hidden, however often and in whichever writing it stands there.
fn without_secrets_of_form(body: &str) -> String {
    let hide = |pair: &str| {
        let name = url::form_urlencoded::parse(pair.as_bytes()).next().map(|(name, _)| name.into_owned());
        match (name.as_deref(), pair.split_once('=')) {
            (Some("client_secret"), Some((written, _))) => format!("{written}=***"),
            _ => pair.to_owned(),
        }
    };
    body.split('&').map(hide).collect::<Vec<_>>().join("&")
}

/// What a guest signs in with; all else stays.
fn without_secrets_of_json(body: &str) -> String {
    const SECRETS: [&str; 5] = ["code", "codeVerifier", "idToken", "refreshToken", "jwt"];
    fn hide(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    if SECRETS.contains(&name.as_str()) && !value.is_null() {
                        *value = "***".into();
                    } else {
                        hide(value);
                    }
                }
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(hide),
            _ => {}
        }
    }
    let Ok(mut value) = serde_json::from_str(body) else { return format!("<{} bytes>", body.len()) };
    hide(&mut value);
    value.to_string()
}

/// An upload's signature opens the file.
fn without_signature(path: &str) -> String {
    match path.find("sig=") {
        Some(at) => {
            let from = at + "sig=".len();
            let to = path[from..].find('&').map_or(path.len(), |end| from + end);
            format!("{}***{}", &path[..from], &path[to..])
        }
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown_however_it_is_written() {
        for form in ["client_secret=hunter2&x=1", "x=1&client%5Fsecret=hunter2", "client_secret=a&client_secret=hunter2"] {
            assert!(!without_secrets_of_form(form).contains("hunter2"), "{form}");
        }
        let json = r#"{"deploymentId":"d","oauth":{"code":"hunter2","codeVerifier":"hunter2"},"refreshToken":"hunter2"}"#;
        let shown = without_secrets_of_json(json);
        assert!(!shown.contains("hunter2") && shown.contains(r#""deploymentId":"d""#), "{shown}");
        assert_eq!(without_signature("/_upload/a?sig=hunter2&x=1"), "/_upload/a?sig=***&x=1");
    }
}
