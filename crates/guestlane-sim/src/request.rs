//! What operations read from a request: its body, headers and query.

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::response::Refusal;

/// A request whose body has been read completely.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Parses a JSON body.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("The body cannot be parsed: {error}")))
}

/// Returns whether the `Content-Type` is this media type, with any parameters.
pub(crate) fn has_type(headers: &HeaderMap, wanted: &str) -> bool {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    given
        .split(';')
        .next()
        .is_some_and(|given| given.trim().eq_ignore_ascii_case(wanted))
}

/// Returns the bearer token of a request, whichever issuer it has.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let value = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    value
        .and_then(|value| {
            value
                .strip_prefix("Bearer ")
                .or_else(|| value.strip_prefix("bearer "))
        })
        .ok_or_else(|| {
            Refusal::unauthorized(
                "authentication.required",
                "No authentication bearer token specified.",
            )
        })
}

/// Returns the value of a query parameter.
pub(crate) fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs
        .find(|(given, _)| given == name)
        .map(|(_, value)| value.into_owned())
}

/// The requested page of a list.
pub(crate) struct Page {
    size: usize,
    number: usize,
}

impl Page {
    pub(crate) fn read(query: Option<&str>) -> Result<Self, Refusal> {
        let number =
            |name, otherwise| match parameter(query, name).map(|value| value.parse::<usize>()) {
                None => Ok(otherwise),
                Some(Ok(number @ 1..)) => Ok(number),
                Some(_) => Err(Refusal::bad_request(format!(
                    "{name} is not a number from 1."
                ))),
            };
        Ok(Self {
            size: number("pageSize", 25)?.min(500),
            number: number("pageNumber", 1)?,
        })
    }

    pub(crate) fn of(&self, all: &[Value]) -> Value {
        let from = self
            .number
            .saturating_sub(1)
            .saturating_mul(self.size)
            .min(all.len());
        let to = from.saturating_add(self.size).min(all.len());
        json!({
            "entities": all[from..to], "pageSize": self.size, "pageNumber": self.number, "total": all.len(),
            "pageCount": all.len().div_ceil(self.size),
        })
    }
}
