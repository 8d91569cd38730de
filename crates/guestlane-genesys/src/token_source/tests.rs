//! Tests of `token_source`.

use http::StatusCode;

use super::*;
use crate::foreign::{ErrorCode, PlatformMessage};

#[test]
fn token_response_tolerates_missing_and_mistyped_fields() {
    let life = |answer: &str| {
        serde_json::from_str::<TokenResponse>(answer).map(|answer| answer.life().as_secs())
    };
    for stated in [r#""1800""#, "1800", "1800.0"] {
        assert_eq!(
            life(&format!(r#"{{"access_token":"t","expires_in":{stated}}}"#)).unwrap(),
            1800,
            "{stated}"
        );
    }
    assert_eq!(life(r#"{"access_token":"t"}"#).unwrap(), 300);
    assert_eq!(
        life(r#"{"access_token":"t","expires_in":null,"token_type":7}"#).unwrap(),
        300
    );
    assert_eq!(
        life(r#"{"access_token":"t","expires_in":18446744073709551615}"#).unwrap(),
        172_800
    );
    let long = "t".repeat(16_385);
    for bad in ["", "a b", "a\\n", &long] {
        assert!(
            life(&format!(r#"{{"access_token":"{bad}","expires_in":1800}}"#)).is_err(),
            "{}",
            bad.len()
        );
    }
    assert!(life("{}").is_err());
}

#[test]
fn throttled_token_request_is_recognized_by_its_message() {
    let refusal = |code: &str, message: &str| ErrorResponse {
        status: StatusCode::BAD_REQUEST,
        code: ErrorCode::new(code),
        message: PlatformMessage::new(message),
        correlation_id: None,
    };
    assert!(is_throttled(&refusal(
        "invalid_request",
        "rate limit exceeded; try again in 60 seconds"
    )));
    assert!(!is_throttled(&refusal(
        "invalid_request",
        "grant_type is missing"
    )));
    assert!(!is_throttled(&refusal(
        "invalid_client",
        "rate limit exceeded"
    )));
}
