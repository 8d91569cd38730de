//! JSON models of guest-token verification, for clients without a JWT library (requirement R17,
//! docs/requirements.md).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A token to be verified.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerifyTokenRequest {
    /// The guest token, whole.
    #[schema(
        min_length = 1,
        max_length = 16384,
        example = "eyJhbGciOiJSUzI1NiIsImtpZCI6IndlYmNoYXQtZ3Vlc3Qta2V5LXYxIn0.e30.c2ln"
    )]
    pub token: String,
}

/// The public keys (RFC 7517, section 5).
#[derive(Serialize, ToSchema)]
pub struct KeySet {
    /// Those that are published.
    #[schema(max_items = 1000)]
    keys: Vec<PublicKey>,
}

/// A public key (RFC 7517, section 4; RFC 7518, section 6.3).
#[derive(Serialize, ToSchema)]
pub struct PublicKey {
    /// `RSA`.
    #[schema(max_length = 8, example = "RSA")]
    kty: String,
    /// `sig`.
    #[serde(rename = "use")]
    #[schema(max_length = 8, example = "sig")]
    usage: String,
    /// `RS256`.
    #[schema(max_length = 8, example = "RS256")]
    alg: String,
    /// Its id.
    #[schema(max_length = 128, example = "webchat-guest-key-v1")]
    kid: String,
    /// The modulus, base64url.
    #[schema(
        max_length = 1024,
        example = "u1SU1LfVLPHCozMxH2Mo4lgOEePzNm0tRgeLezV6ffAt0gunVTLw7onLRnrq0_IzW7yWR7QkrmBL7jTKEn5u-qKhbwKfBstIs-bMY2Zkp18gnTxKLxoS2tFczGkPLPgizskuemMghRniWaoLcyeh"
    )]
    n: String,
    /// The exponent, base64url.
    #[schema(max_length = 16, example = "AQAB")]
    e: String,
}

/// Whether a token is ours and good now; if so, whose it is.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifyTokenResponse {
    /// Whether it is good.
    #[schema(example = true)]
    pub valid: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 512, example = "the guest token has expired")]
    pub reason: Option<String>,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128, example = "user-8842-xyz")]
    pub guest_id: Option<String>,
    /// Which key signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128, example = "webchat-guest-key-v1")]
    pub kid: Option<String>,
    /// Seconds since the Unix epoch (RFC 7519, section 4.1.4).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, example = 1_795_361_329_i64)]
    pub expires_at: Option<i64>,
    /// All claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, example = json!({"guestId": "user-8842-xyz", "tier": "premium"}))]
    pub claims: Option<Map<String, Value>>,
}
