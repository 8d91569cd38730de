//! `GET /.well-known/jwks.json`: the public halves of the signing keys (requirement R17,
//! docs/requirements.md).

use std::time::Duration;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::header;

use crate::{model::KeySet, service::App};

/// Longest `max-age` of the key set. It is shorter where a new key is published for less time
/// before it signs; a verifier would otherwise miss the new key.
const KEEP: Duration = Duration::from_secs(3600);

/// Get the public keys of guest tokens
///
/// Returns a JWK set (RFC 7517, section 5) with the active signing key, the next key, and the keys
/// whose last guest tokens have not expired yet.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "tokens", operation_id = "getKeys", security(()),
    responses((status = 200, description = "JWK set of the published signing keys", content_type = "application/jwk-set+json", body = KeySet)),
)]
pub(crate) async fn jwks(State(app): State<App>) -> Response {
    let set = app.engine().keyring().jwks(app.clock().now()).to_string();
    let keep = KEEP
        .min(app.engine().key_schedule().publish_lead_time())
        .as_secs();
    let headers = [
        (header::CONTENT_TYPE, "application/jwk-set+json".to_owned()),
        (header::CACHE_CONTROL, format!("public, max-age={keep}")),
    ];
    (headers, set).into_response()
}
