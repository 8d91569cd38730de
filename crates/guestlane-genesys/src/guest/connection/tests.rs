//! Tests of `connection`.

use super::*;

fn classify_frame(text: &str) -> Result<ServerFrame, AttemptError> {
    accepted(ServerFrame::parse(text).unwrap())
}

#[test]
fn error_frames_are_classified_by_possible_effect() {
    let text = |code: u16| {
        classify_frame(&format!(
            r#"{{"type":"response","class":"string","code":{code},"body":"x"}}"#
        ))
    };
    for code in [429, 4029] {
        assert!(
            matches!(text(code), Err(AttemptError::Throttled { .. })),
            "{code}"
        );
    }
    for code in [408, 500, 503, 5000] {
        assert!(
            matches!(text(code), Err(AttemptError::OutcomeUnknown { .. })),
            "{code}"
        );
    }
    for code in [400, 401, 403, 404, 409, 4006, 4007, 4011, 4013, 4017, 4020] {
        assert!(
            matches!(text(code), Err(AttemptError::Rejected(_))),
            "{code}"
        );
    }
    let slow = r#"{"type":"response","class":"TooManyRequestsErrorMessage","code":429,"body":{"errorCode":4029,"retryAfter":3}}"#;
    let Err(AttemptError::Throttled { retry_after, .. }) = classify_frame(slow) else {
        panic!("not throttled")
    };
    assert_eq!(retry_after, Some(Duration::from_secs(3)));
    for (body, seconds) in [
        (r#"{"retryAfter":18446744073709551615}"#, 3600),
        (r#"{"message":"in [9] seconds"}"#, 9),
    ] {
        let slow = format!(
            r#"{{"type":"response","class":"TooManyRequestsErrorMessage","code":429,"body":{body}}}"#
        );
        let Err(AttemptError::Throttled { retry_after, .. }) = classify_frame(&slow) else {
            panic!("not throttled")
        };
        assert_eq!(retry_after, Some(Duration::from_secs(seconds)));
    }
    assert!(
        classify_frame(
            r#"{"type":"response","class":"SessionResponse","code":200,"body":{"connected":true}}"#
        )
        .is_ok()
    );
}
