//! Entry points for the targets in `fuzz/`: they parse request data with the same functions as the
//! routes. They are not part of the public API.

use guestlane_core::request::{Owner, SessionRequest};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use crate::{
    extract::{read, read_query},
    headers,
    model::{CreateSessionRequest, DefaultKey},
    routes::{outbox, sessions},
};

/// Parses a body of `POST /v1/sessions`, or one line of a batch.
pub fn session(text: &[u8]) -> Option<SessionRequest> {
    let queue = "5e0c0000-0000-4000-8000-000000000001".parse().ok();
    read::<CreateSessionRequest>(text)
        .ok()?
        .request(queue, DefaultKey::OfRow("fuzz"), &Owner::local())
        .ok()
}

/// Parses request headers, one per line.
pub fn headers(text: &[u8]) {
    let mut map = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n').take(16) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(parts.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(parts.next().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            map.append(name, value);
        }
    }
    if let Ok(Some(key)) = headers::idempotency_key(&map) {
        assert!(
            headers::quoted(&key).is_some(),
            "a key that was read can be written"
        );
    }
    let _ = (headers::wait(&map), headers::traceparent(&map));
}

/// Parses the query of a list, with its cursor.
pub fn query(text: &[u8]) {
    let Ok(uri) = Uri::try_from([b"/v1/sessions?", text].concat()) else {
        return;
    };
    let _ = read_query::<sessions::Which>(&uri).map(sessions::Which::filter);
    let _ = read_query::<outbox::Which>(&uri).map(|which| which.before());
}
