//! The catalogue of failures, each with a stable name (requirements R12 and R18,
//! docs/requirements.md). The command line, the service and the documents all use it.

use std::fmt;

macro_rules! catalogue {
    ($($code:ident $name:literal $retryable:literal $title:literal;)*) => {
        /// Kind of a failure. Its name never changes, and never gets another meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode {
            $(#[doc = $title] $code,)*
        }

        impl ErrorCode {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$code),*];

            /// The stable name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$code => $name),* }
            }

            /// A short title, the same at every occurrence (RFC 9457, section 3.1.3).
            pub fn title(self) -> &'static str {
                match self { $(Self::$code => $title),* }
            }

            /// Whether the same request may succeed later without any change.
            pub fn is_retryable(self) -> bool {
                match self { $(Self::$code => $retryable),* }
            }
        }
    };
}

catalogue! {
    // The request.
    InvalidInput "invalid_input" false "Invalid input";
    InvalidRequest "invalid_request" false "Invalid request";
    Unauthorized "unauthorized" false "Missing or invalid API key";
    InsufficientScope "insufficient_scope" false "Insufficient scope";
    NotFound "not_found" false "Not found";
    MethodNotAllowed "method_not_allowed" false "Method not allowed";
    PayloadTooLarge "payload_too_large" false "Payload too large";
    UnsupportedMedia "unsupported_media_type" false "Unsupported media type";
    IdempotencyKeyReused "idempotency_key_reused" false "Idempotency key reused for another request";
    UnknownQueue "unknown_queue" false "Unknown queue";
    TooManyRequests "too_many_requests" true "Too many requests with this API key";
    Overloaded "overloaded" true "Too many sessions in progress";
    // The state of the session.
    InProgress "in_progress" true "Session creation in progress";
    NeedsAttention "needs_attention" false "Session needs attention";
    LeaseLost "lease_lost" true "Lease lost to another process";
    // Responses of the platform.
    AuthFailed "auth_failed" false "OAuth authentication failed";
    Forbidden "forbidden" false "Permission denied by the platform";
    GuestTokenRejected "guest_token_rejected" false "Guest token rejected by the platform";
    IdempotencyKeyConflict "idempotency_key_conflict" false "Idempotency key already used on the platform";
    ContactConflict "contact_conflict" false "An identifier belongs to another contact";
    SessionExpired "session_expired" false "Guest session expired";
    SessionEnded "session_ended" false "Conversation ended";
    PlatformRejected "platform_rejected" false "Request rejected by the platform";
    RateLimited "rate_limited" true "Platform rate limit reached";
    RateLimitTimeout "rate_limit_timeout" true "Rate limit wait exceeds the deadline";
    // The platform fails or is not reached.
    PlatformFailing "platform_failing" true "Platform failing";
    Unreachable "unreachable" true "Platform unreachable";
    NotReady "not_ready" true "Resource not visible yet";
    TlsUntrusted "tls_untrusted" false "TLS certificate not trusted";
    NoTrustRoots "no_trust_roots" false "No trusted root certificates";
    // Local causes.
    TokenValidation "token_validation" false "Guest token unusable";
    InvalidSettings "invalid_settings" false "Invalid settings";
    SigningKeysUnusable "signing_keys_unusable" false "Signing keys unusable";
    MasterKey "master_key" false "Master key unusable";
    StateUnusable "state_unusable" false "State directory unusable";
    StateNewer "state_newer" false "Store format is newer";
    StoreFailed "store_failed" true "Store failure";
    AuditUnavailable "audit_unavailable" true "Audit log not writable";
    AuditStoreTampered "audit_store_tampered" false "Stored audit records were changed";
    AuditVerificationFailed "audit_verification_failed" false "Audit log verification failed";
    ShuttingDown "shutting_down" true "Service shutting down";
    InternalError "internal_error" false "Internal error";
}

impl ErrorCode {
    /// Returns the kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
