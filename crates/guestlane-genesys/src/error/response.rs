//! Error responses of the platform.

use std::fmt;

use http::StatusCode;

use crate::foreign::{CorrelationId, ErrorCode, PlatformMessage};

/// Prefix of the error codes of the guest socket.
pub(crate) const GUEST_CODE: &str = "guest-api-";

/// The platform's error body (`ErrorBody`, or OAuth's three fields), reduced to what an operator
/// needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorResponse {
    /// HTTP status.
    pub status: StatusCode,
    /// The platform's dotted code, or OAuth's `error`; empty when the body had neither.
    pub code: ErrorCode,
    /// The platform's error message; empty when the body had none.
    pub message: PlatformMessage,
    /// Correlation ID to quote to the platform's support.
    pub correlation_id: Option<CorrelationId>,
}

/// Formats status, code and correlation ID, and omits the platform's message. The message may
/// repeat request data, and `Display` output ends up in logs and audit records.
impl fmt::Display for ErrorResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An error of the guest socket has a code of its own and no HTTP status.
        if !self.is_guest_api() {
            write!(f, "HTTP {}", self.status.as_u16())?;
        }
        if !self.code.is_empty() {
            let space = if self.is_guest_api() { "" } else { " " };
            write!(f, "{space}{}", self.code)?;
        }
        if let Some(id) = &self.correlation_id {
            write!(f, " (correlation id {id})")?;
        }
        Ok(())
    }
}

impl ErrorResponse {
    /// Whether the platform rejected the guest token as expired. In that case it cannot have stored
    /// the idempotency key of the request. The code is the simulator's; no public document names
    /// one.
    pub fn is_expired_guest_token(&self) -> bool {
        self.code == "guest.token.expired"
    }

    /// Whether the guest session on the platform has expired or is no longer known (4006, 4007;
    /// docs/platform.md#guest-codes).
    pub fn is_conversation_ended(&self) -> bool {
        matches!(self.guest_api_code(), Some("4006" | "4007"))
    }

    /// Whether the error came from the guest socket.
    pub fn is_guest_api(&self) -> bool {
        self.guest_api_code().is_some()
    }

    /// The code of the guest socket, such as `4011`, if the error came from it
    /// (docs/platform.md#guest-codes).
    pub fn guest_api_code(&self) -> Option<&str> {
        self.code.strip_prefix(GUEST_CODE)
    }

    /// Whether the platform knows the idempotency key from another request.
    pub fn is_idempotency_conflict(&self) -> bool {
        self.status == StatusCode::UNPROCESSABLE_ENTITY && self.code.contains("idempotency")
    }

    /// Whether the platform rejected the guest token, for any reason.
    pub fn is_guest_token(&self) -> bool {
        self.code.starts_with("guest.token.")
    }
}
