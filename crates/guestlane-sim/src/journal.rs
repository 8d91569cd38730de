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
    pub(crate) fn add(&mut self, record: Record) {
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
        let mut body = String::from_utf8_lossy(&self.body).into_owned();
        if self.route == Some(Route::Token)
            && let Some(at) = body.find("client_secret=")
        {
            let from = at + "client_secret=".len();
            let to = body[from..].find('&').map_or(body.len(), |end| from + end);
            body.replace_range(from..to, "***");
        }
        let mut headers: BTreeMap<_, _> = self.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        if self.route == Some(Route::Token)
            && let Some(value) = headers.get_mut("authorization")
        {
            *value = value.split_once(' ').map_or_else(|| "***".to_owned(), |(scheme, _)| format!("{scheme} ***"));
        }
        Entry {
            n: self.n,
            at: self.at,
            route: self.route,
            method: self.method.to_string(),
            path: self.path.clone(),
            headers,
            body,
            status: self.status,
            fault: self.fault.map(|fault| fault.to_string()),
            correlation_id: self.correlation_id,
        }
    }
}
