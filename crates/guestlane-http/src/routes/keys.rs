//! `GET /.well-known/jwks.json`: the public halves of the signing keys (R17).

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header};

use crate::{model::KeySet, service::App};

/// How long a verifier may keep the set, in seconds. A key is published for longer than that before it signs.
const KEEP: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// The public keys
///
/// A JWK set (RFC 7517, section 5): the key that signs, the next one, and those whose last tokens are not over yet.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "tokens", operation_id = "getKeys", security(()),
    responses((status = 200, description = "The key set", content_type = "application/jwk-set+json", body = KeySet)),
)]
pub(crate) async fn jwks(State(app): State<App>) -> Response {
    let set = app.lane().keyring().jwks(app.clock().now()).to_string();
    let kind = HeaderValue::from_static("application/jwk-set+json");
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, KEEP)], set).into_response()
}
