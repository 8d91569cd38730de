//! `GET /.well-known/jwks.json`: the public halves of the signing keys (requirement R17,
//! docs/requirements.md).

use std::time::Duration;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::header;

use crate::{model::KeySet, service::App};

/// How long a verifier is asked to keep the set; less where keys are published for a shorter time before they sign.
const KEEP: Duration = Duration::from_secs(3600);

/// The public keys
///
/// A JWK set (RFC 7517, section 5): the key that signs, the next one, and those whose last tokens are not over yet.
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
