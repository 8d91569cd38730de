//! JSON models of guest-token verification, for clients without a JWT library (requirement R17,
//! docs/requirements.md).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A guest token to verify.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerifyTokenRequest {
    /// The complete guest token.
    #[schema(
        min_length = 1,
        max_length = 16384,
        example = "eyJhbGciOiJSUzI1NiIsImtpZCI6IndlYmNoYXQtZ3Vlc3Qta2V5LXYxIn0.e30.c2ln"
    )]
    pub token: String,
}

/// The published public keys of guest tokens, as a JWK set (RFC 7517, section 5).
#[derive(Serialize, ToSchema)]
pub struct KeySet {
    /// The published keys.
    #[schema(max_items = 1000)]
    keys: Vec<PublicKey>,
}

/// A public key (RFC 7517, section 4; RFC 7518, section 6.3).
#[derive(Serialize, ToSchema)]
pub struct PublicKey {
    /// The key type, always `RSA`.
    #[schema(max_length = 8, example = "RSA")]
    kty: String,
    /// The use of the key, always `sig`.
    #[serde(rename = "use")]
    #[schema(max_length = 8, example = "sig")]
    usage: String,
    /// The signature algorithm, always `RS256`.
    #[schema(max_length = 8, example = "RS256")]
    alg: String,
    /// The key ID, as in the header `kid` of guest tokens.
    #[schema(max_length = 128, example = "webchat-guest-key-v1")]
    kid: String,
    /// The modulus, in base64url.
    #[schema(
        max_length = 1024,
        example = "u1SU1LfVLPHCozMxH2Mo4lgOEePzNm0tRgeLezV6ffAt0gunVTLw7onLRnrq0_IzW7yWR7QkrmBL7jTKEn5u-qKhbwKfBstIs-bMY2Zkp18gnTxKLxoS2tFczGkPLPgizskuemMghRniWaoLcyeh"
    )]
    n: String,
    /// The exponent, in base64url.
    #[schema(max_length = 16, example = "AQAB")]
    e: String,
}

/// The result of a verification: whether this service signed the token and the token is valid now,
/// and its claims if so.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifyTokenResponse {
    /// Whether the token is valid.
    #[schema(example = true)]
    pub valid: bool,
    /// The reason why the token is not valid; absent if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 512, example = "the guest token has expired")]
    pub reason: Option<String>,
    /// The ID of the guest; absent if the token is not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128, example = "user-8842-xyz")]
    pub guest_id: Option<String>,
    /// The ID of the key that signed the token; absent if the token is not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128, example = "webchat-guest-key-v1")]
    pub kid: Option<String>,
    /// The expiry, in seconds since the Unix epoch (RFC 7519, section 4.1.4); absent if the token
    /// is not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, example = 1_795_361_329_i64)]
    pub expires_at: Option<i64>,
    /// All claims of the token; absent if the token is not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, example = json!({"guestId": "user-8842-xyz", "tier": "premium"}))]
    pub claims: Option<Map<String, Value>>,
}
