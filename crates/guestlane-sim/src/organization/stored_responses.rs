//! The stored responses of the surface `rest`, by `Idempotency-Key` (requirement R4,
//! docs/requirements.md). All OAuth clients of the organization share the keys.

use std::collections::HashMap;

use aws_lc_rs::digest;
use bytes::Bytes;
use guestlane_runtime::Timestamp;
use http::StatusCode;

use crate::{options::IDEMPOTENCY_WINDOW, response::Refusal, route::Route};

/// The responses by `Idempotency-Key`.
#[derive(Debug, Default)]
pub(crate) struct StoredResponses(HashMap<String, StoredResponse>);

#[derive(Debug)]
struct StoredResponse {
    /// The hash of the route and of the body.
    request: [u8; 32],
    body: Bytes,
    at: Timestamp,
}

impl StoredResponses {
    /// Returns the response of an earlier request with this key, if there was one within
    /// [`IDEMPOTENCY_WINDOW`].
    ///
    /// # Errors
    ///
    /// Fails with 422 if the earlier request was another one.
    pub(crate) fn get(
        &self,
        key: &str,
        route: Route,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Option<Bytes>, Refusal> {
        let Some(stored) = self
            .0
            .get(key)
            .filter(|stored| now.since(stored.at) < IDEMPOTENCY_WINDOW)
        else {
            return Ok(None);
        };
        if stored.request == hash(route, body) {
            return Ok(Some(stored.body.clone()));
        }
        Err(Refusal::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency.key.reused",
            "The Idempotency-Key was used for another request.",
        ))
    }

    pub(crate) fn insert(
        &mut self,
        key: &str,
        route: Route,
        request: &[u8],
        body: Bytes,
        at: Timestamp,
    ) {
        let request = hash(route, request);
        self.0
            .insert(key.to_owned(), StoredResponse { request, body, at });
    }
}

fn hash(route: Route, body: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(route.name().as_bytes());
    context.update(body);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}
