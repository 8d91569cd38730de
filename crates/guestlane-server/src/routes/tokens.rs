//! `POST /v1/tokens:verify`: verifies guest tokens for clients without a JWT library (requirement
//! R17, docs/requirements.md).

use axum::{
    extract::{Request, State},
    response::Response,
};
use guestlane_core::{api_key::Scope, request::ValidationError, token};
use http::StatusCode;

use crate::{
    auth::Authenticated,
    error_responses::{AuthErrors, BodyErrors},
    extract::{json_response, read_json},
    model::{VerifyTokenRequest, VerifyTokenResponse},
    problem::Problem,
    service::App,
};

/// Maximum length of a token in bytes. It far exceeds the length of any guest token.
const MAX_TOKEN: usize = 16 * 1024;

/// Verify a guest token
///
/// Checks that a trusted key of this service signed the token and that the token is valid now, and
/// returns its claims.
#[utoipa::path(
    post, path = "/v1/tokens:verify", tag = "tokens", operation_id = "verifyToken",
    security(("apiKey" = ["tokens:verify"])),
    request_body = VerifyTokenRequest,
    responses((status = 200, description = "Result of the verification; see `valid`", body = VerifyTokenResponse), AuthErrors, BodyErrors),
)]
pub(crate) async fn verify(
    State(app): State<App>,
    who: Authenticated,
    request: Request,
) -> Result<Response, Problem> {
    who.require_scope(Scope::TokensVerify)?;
    let VerifyTokenRequest { token } = read_json(app.clock(), request).await?;
    if token.is_empty() || token.len() > MAX_TOKEN {
        let reason = format!("has {} bytes", token.len());
        return Err(ValidationError::new(
            "token",
            reason,
            format!("send a token of 1 to {MAX_TOKEN} bytes"),
        )
        .into());
    }
    let verdict = match token::verify(&app.engine().keyring(), &token, app.clock().now()) {
        Ok(verified) => VerifyTokenResponse {
            valid: true,
            reason: None,
            guest_id: Some(verified.guest_id),
            kid: Some(verified.kid),
            expires_at: Some(verified.expires_at),
            claims: Some(verified.claims),
        },
        Err(error) => VerifyTokenResponse {
            valid: false,
            reason: Some(error.to_string()),
            ..VerifyTokenResponse::default()
        },
    };
    Ok(json_response(StatusCode::OK, &verdict))
}
