use std::time::Duration;

use guestlane::error::SessionOutcome;
use guestlane_core::request::ValidationError;
use guestlane_genesys::{AttemptError, CallError, ErrorCode, ErrorResponse, Operation};
use http::StatusCode;

use super::*;

fn refused(status: u16, code: &str) -> Error {
    let refusal = ErrorResponse {
        status: StatusCode::from_u16(status).unwrap(),
        code: ErrorCode::new(code),
        message: Default::default(),
        correlation_id: None,
    };
    Error::Platform {
        session: None,
        then: SessionOutcome::Rejected,
        failed: CallError {
            operation: Operation::Contact,
            attempts: 1,
            elapsed: Duration::ZERO,
            cause: AttemptError::Rejected(refusal),
            may_exist: false,
            retry_after: None,
        },
    }
}

#[test]
fn fix_of_a_refusal_ends_with_what_happens_to_the_session() {
    let fix = of(&refused(400, "bad.request")).fix;
    assert!(
        fix.ends_with("; then repeat the request with the same key"),
        "{fix}"
    );
    // The session exists already, so nothing is repeated.
    let fix = of(&refused(422, "idempotency.key.reused")).fix;
    assert!(fix.ends_with("for a new session use a new key"), "{fix}");
}

#[test]
fn settings_have_the_names_of_the_executable() {
    let invalid = |field: &str, reason: &str| ValidationError::new(field, reason, "mend it");
    let of_library = Error::Invalid(invalid(
        "storage.master_key",
        "is set, storage.database too",
    ));
    let shown = of(&of_library);
    assert_eq!(
        shown.cause,
        "GUESTLANE_MASTER_KEY is set, GUESTLANE_DATABASE_URL too"
    );
    assert!(!shown.message.contains("storage."), "{}", shown.message);
    // What the user wrote is not changed.
    let of_user = Error::Invalid(invalid("FILE", "/srv/storage.home/rows.csv cannot be read"));
    assert_eq!(
        of(&of_user).cause,
        "FILE /srv/storage.home/rows.csv cannot be read"
    );
    let attribute = Error::Invalid(invalid(
        "attributes.webhooks.secret",
        "has a control character",
    ));
    assert_eq!(
        of(&attribute).cause,
        "attributes.webhooks.secret has a control character"
    );
}
