//! The code of each error.

use guestlane_genesys::{AttemptError, CallError, ErrorResponse, Operation};
use guestlane_runtime::tls_error;
use guestlane_store::StoreError;
use http::StatusCode;

use super::{Error, ErrorCode};

impl Error {
    /// Returns the stable code of the failure (requirement R18, docs/requirements.md).
    #[deny(clippy::wildcard_enum_match_arm)]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid(_) => ErrorCode::InvalidInput,
            Self::Settings(_) => ErrorCode::InvalidSettings,
            Self::UnknownQueue { .. } => ErrorCode::UnknownQueue,
            Self::IdempotencyKeyReused { .. } => ErrorCode::IdempotencyKeyReused,
            Self::InProgress { .. } => ErrorCode::InProgress,
            Self::NeedsAttention { .. } => ErrorCode::NeedsAttention,
            Self::Platform { failed, .. } => platform_code(failed),
            Self::Token(_) => ErrorCode::TokenValidation,
            Self::Keyring(_) => ErrorCode::SigningKeysUnusable,
            Self::MasterKey(_) => ErrorCode::MasterKey,
            Self::Store(error) => store_code(error),
            Self::Audit(_) => ErrorCode::AuditUnavailable,
            Self::Trust(_) => ErrorCode::NoTrustRoots,
        }
    }
}

fn platform_code(failed: &CallError) -> ErrorCode {
    let cause = failed.root_cause();
    match cause {
        AttemptError::Throttled { .. } => ErrorCode::RateLimited,
        AttemptError::RateLimitTimeout => ErrorCode::RateLimitTimeout,
        AttemptError::NotSent(reason) if reason.contains(tls_error::CERTIFICATE) => {
            ErrorCode::TlsUntrusted
        }
        AttemptError::Local(_) | AttemptError::NotSent(_) => ErrorCode::Unreachable,
        AttemptError::NotReady(_) => ErrorCode::NotReady,
        AttemptError::OutcomeUnknown { .. } => ErrorCode::PlatformFailing,
        AttemptError::Unauthorized(_)
        | AttemptError::Rejected(_)
        | AttemptError::AuthenticationFailed(_)
        | AttemptError::Failover(_) => match cause.refusal() {
            Some(_) if failed.is_sign_in() => ErrorCode::AuthFailed,
            Some(refusal) => refusal_code(refusal, failed.operation),
            None => ErrorCode::PlatformRejected,
        },
    }
}

fn refusal_code(refusal: &ErrorResponse, operation: Operation) -> ErrorCode {
    if refusal.status == StatusCode::UNAUTHORIZED {
        return ErrorCode::AuthFailed;
    }
    if refusal.is_expired_guest_token() {
        return ErrorCode::GuestTokenRejected;
    }
    if refusal.is_idempotency_conflict() {
        return ErrorCode::IdempotencyKeyConflict;
    }
    if refusal.status.is_redirection() {
        return ErrorCode::PlatformRejected;
    }
    if let Some(code) = refusal.guest_api_code() {
        return match code {
            "4006" | "4007" => ErrorCode::SessionExpired,
            "409" => ErrorCode::SessionEnded,
            "403" => ErrorCode::Forbidden,
            _ => ErrorCode::PlatformRejected,
        };
    }
    match (operation, refusal.status) {
        (Operation::EnrichContact | Operation::CreateContact, StatusCode::CONFLICT) => {
            ErrorCode::ContactConflict
        }
        (Operation::EnrichContact, _) if refusal.message.mentions("source") => {
            ErrorCode::PlatformRejected
        }
        // The upgrade of the guest socket.
        (Operation::FirstMessage, StatusCode::FORBIDDEN) => ErrorCode::Forbidden,
        (Operation::FirstMessage, _)
        | (Operation::OpenMessage, StatusCode::NOT_FOUND)
        | (
            Operation::LinkContact | Operation::MoveToQueue,
            StatusCode::NOT_FOUND | StatusCode::CONFLICT,
        ) => ErrorCode::PlatformRejected,
        _ if refusal.is_guest_token() => ErrorCode::GuestTokenRejected,
        (_, StatusCode::FORBIDDEN) => ErrorCode::Forbidden,
        _ => ErrorCode::PlatformRejected,
    }
}

#[deny(clippy::wildcard_enum_match_arm)]
fn store_code(error: &StoreError) -> ErrorCode {
    if error.is_transaction_pooling() {
        return ErrorCode::StateUnusable;
    }
    match error {
        StoreError::Newer { .. } | StoreError::Superseded { .. } => ErrorCode::StateNewer,
        StoreError::LeaseLost => ErrorCode::LeaseLost,
        StoreError::Open(..)
        | StoreError::TransactionPooling
        | StoreError::ClockSkew(_)
        | StoreError::InUse(_)
        | StoreError::Migrated { .. }
        | StoreError::MigrationInProgress(_)
        | StoreError::MigrationUnfinished { .. }
        | StoreError::MigrationIncomplete(_) => ErrorCode::StateUnusable,
        StoreError::Sqlite(_)
        | StoreError::Commit(_)
        | StoreError::Closed
        | StoreError::Postgres { .. }
        | StoreError::Unreachable { .. }
        | StoreError::Untrusted { .. }
        | StoreError::Busy
        | StoreError::ReadTimeout(_) => ErrorCode::StoreFailed,
        StoreError::NotShared => ErrorCode::InvalidSettings,
        StoreError::AuditTampered(_) => ErrorCode::AuditStoreTampered,
        StoreError::Row(_) | StoreError::IllegalTransition(_) | StoreError::NoAuditLog => {
            ErrorCode::InternalError
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use guestlane_genesys::PlatformMessage;

    use super::*;

    fn code_of(operation: Operation, status: u16, code: &str, message: &str) -> ErrorCode {
        let refusal = ErrorResponse {
            status: StatusCode::from_u16(status).unwrap(),
            code: guestlane_genesys::ErrorCode::new(code),
            message: PlatformMessage::new(message),
            correlation_id: None,
        };
        platform_code(&CallError {
            operation,
            attempts: 1,
            elapsed: Duration::ZERO,
            cause: AttemptError::Rejected(refusal),
            may_exist: false,
            retry_after: None,
        })
    }

    #[test]
    fn refusal_of_the_platform_has_a_code_by_operation_status_and_code() {
        use Operation::*;
        for (operation, status, code, expected) in [
            (Token, 400, "invalid_client", ErrorCode::AuthFailed),
            (Contact, 401, "", ErrorCode::AuthFailed),
            (
                Contact,
                400,
                "guest.token.expired",
                ErrorCode::GuestTokenRejected,
            ),
            (
                Contact,
                400,
                "guest.token.invalid",
                ErrorCode::GuestTokenRejected,
            ),
            (
                Contact,
                422,
                "idempotency.key.reused",
                ErrorCode::IdempotencyKeyConflict,
            ),
            (Contact, 422, "other", ErrorCode::PlatformRejected),
            (Contact, 403, "", ErrorCode::Forbidden),
            (Contact, 409, "", ErrorCode::PlatformRejected),
            (EnrichContact, 409, "", ErrorCode::ContactConflict),
            (CreateContact, 409, "", ErrorCode::ContactConflict),
            (
                LinkContact,
                409,
                "guest.token.invalid",
                ErrorCode::PlatformRejected,
            ),
            (MoveToQueue, 404, "", ErrorCode::PlatformRejected),
            (MoveToQueue, 403, "", ErrorCode::Forbidden),
            (
                OpenMessage,
                404,
                "guest.token.invalid",
                ErrorCode::PlatformRejected,
            ),
            (
                FirstMessage,
                403,
                "guest.token.invalid",
                ErrorCode::Forbidden,
            ),
            (FirstMessage, 400, "", ErrorCode::PlatformRejected),
            (
                FirstMessage,
                400,
                "guest-api-4006",
                ErrorCode::SessionExpired,
            ),
            (
                FirstMessage,
                400,
                "guest-api-4007",
                ErrorCode::SessionExpired,
            ),
            (FirstMessage, 400, "guest-api-409", ErrorCode::SessionEnded),
            (FirstMessage, 400, "guest-api-403", ErrorCode::Forbidden),
            (
                FirstMessage,
                400,
                "guest-api-4011",
                ErrorCode::PlatformRejected,
            ),
            // A redirect is none of these, whatever its body says.
            (Contact, 302, "guest-api-403", ErrorCode::PlatformRejected),
            (
                Contact,
                302,
                "guest.token.invalid",
                ErrorCode::PlatformRejected,
            ),
        ] {
            let found = code_of(operation, status, code, "");
            assert_eq!(found, expected, "{operation} {status} {code}");
        }
        let source = code_of(EnrichContact, 403, "", "externalSource is unknown");
        assert_eq!(source, ErrorCode::PlatformRejected);
    }
}
