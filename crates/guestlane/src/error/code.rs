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
        _ if refusal.is_guest_token() => ErrorCode::GuestTokenRejected,
        (_, StatusCode::FORBIDDEN) => ErrorCode::Forbidden,
        _ => ErrorCode::PlatformRejected,
    }
}

#[deny(clippy::wildcard_enum_match_arm)]
fn store_code(error: &StoreError) -> ErrorCode {
    match error {
        StoreError::Newer { .. } | StoreError::Superseded { .. } => ErrorCode::StateNewer,
        StoreError::LeaseLost => ErrorCode::LeaseLost,
        StoreError::Open(..)
        | StoreError::ClockSkew(_)
        | StoreError::TransactionPooling
        | StoreError::InUse(_)
        | StoreError::Migrated { .. }
        | StoreError::MigrationInProgress(_)
        | StoreError::MigrationUnfinished { .. }
        | StoreError::MigrationIncomplete(_) => ErrorCode::StateUnusable,
        // 26000, 42P05: a connection pool in transaction mode.
        StoreError::Postgres {
            code: Some(code), ..
        } if ["26000", "42P05"].contains(&code.as_str()) => ErrorCode::StateUnusable,
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
