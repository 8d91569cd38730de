//! The catalogue of failures, each with a stable name (requirements R12 and R18,
//! docs/requirements.md). The command line, the service and the documents all use it.

use std::fmt;

macro_rules! catalogue {
    ($($code:ident $name:literal $status:literal $retryable:literal $title:literal;)*) => {
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

            /// The HTTP status of the service's response (RFC 9110, section 15).
            pub fn status(self) -> u16 {
                match self { $(Self::$code => $status),* }
            }

            /// Whether the same request may succeed later without any change.
            pub fn is_retryable(self) -> bool {
                match self { $(Self::$code => $retryable),* }
            }

            /// The page under `docs/errors/` in Markdown: meaning, cause and fix.
            pub fn page(self) -> &'static str {
                match self {
                    $(Self::$code => include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors/", $name, ".md"))),*
                }
            }
        }
    };
}

catalogue! {
    // The request.
    InvalidInput       "invalid_input"       400 false "Invalid input";
    InvalidRequest "invalid_request"           400 false "Invalid request";
    Unauthorized       "unauthorized"        401 false "Missing or invalid API key";
    InsufficientScope "insufficient_scope"       403 false "Insufficient scope";
    NotFound           "not_found"           404 false "Not found";
    MethodNotAllowed   "method_not_allowed"  405 false "Method not allowed";
    PayloadTooLarge "payload_too_large"           413 false "Payload too large";
    UnsupportedMedia   "unsupported_media_type" 415 false "Unsupported media type";
    IdempotencyKeyReused "idempotency_key_reused"        422 false "Idempotency key reused for another request";
    UnknownQueue       "unknown_queue"       422 false "Unknown queue";
    TooManyRequests    "too_many_requests"   429 true  "Too many requests with this API key";
    Overloaded         "overloaded"          429 true  "Too many sessions in progress";
    // The state of the session.
    InProgress         "in_progress"         409 true  "Session creation in progress";
    NeedsAttention     "needs_attention"     409 false "Session needs attention";
    LeaseLost "lease_lost"          409 true  "Lease lost to another process";
    // Responses of the platform.
    AuthFailed         "auth_failed"         502 false "OAuth authentication failed";
    Forbidden          "forbidden"           502 false "Permission denied by the platform";
    GuestTokenRejected "guest_token_rejected"       502 false "Guest token rejected by the platform";
    IdempotencyKeyConflict "idempotency_key_conflict"           409 false "Idempotency key already used on the platform";
    ContactConflict    "contact_conflict"    409 false "An identifier belongs to another contact";
    SessionExpired     "session_expired"     502 false "Guest session expired";
    SessionEnded       "session_ended"       502 false "Conversation ended";
    PlatformRejected "platform_rejected"             502 false "Request rejected by the platform";
    RateLimited        "rate_limited"        503 true  "Platform rate limit reached";
    RateLimitTimeout "rate_limit_timeout"          429 true  "Rate limit wait exceeds the deadline";
    // The platform fails or is not reached.
    PlatformFailing    "platform_failing"    503 true  "Platform failing";
    Unreachable        "unreachable"         503 true  "Platform unreachable";
    NotReady "not_ready"       503 true  "Resource not visible yet";
    TlsUntrusted "tls_untrusted"           502 false "TLS certificate not trusted";
    NoTrustRoots       "no_trust_roots"      500 false "No trusted root certificates";
    // Local causes.
    TokenValidation    "token_validation"    500 false "Guest token unusable";
    InvalidSettings    "invalid_settings"    500 false "Invalid settings";
    SigningKeysUnusable "signing_keys_unusable"       500 false "Signing keys unusable";
    MasterKey          "master_key"          500 false "Master key unusable";
    StateUnusable      "state_unusable"      500 false "State directory unusable";
    StateNewer         "state_newer"         500 false "Store format is newer";
    StoreFailed        "store_failed"        503 true  "Store failure";
    AuditUnavailable   "audit_unavailable"   503 true  "Audit log not writable";
    AuditStoreTampered "audit_store_tampered"     500 false "Stored audit records were changed";
    AuditVerificationFailed "audit_verification_failed"      500 false "Audit log verification failed";
    ShuttingDown "shutting_down"              503 true  "Service shutting down";
    InternalError "internal_error"              500 false "Internal error";
}

impl ErrorCode {
    /// Returns the kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }

    /// The general cause: the first paragraph of the page.
    pub fn cause(self) -> String {
        self.page()
            .split("\n\n")
            .nth(2)
            .unwrap_or_default()
            .lines()
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The path of the page in the service, as a relative reference (RFC 9457, section 3.1.1).
    pub fn page_path(self) -> String {
        format!("/problems/{}", self.name())
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_page_that_begins_with_its_title_and_says_what_to_do() {
        for code in ErrorCode::ALL {
            let page = code.page();
            let first = page.lines().next().unwrap_or_default();
            assert_eq!(first, format!("# {}", code.title()), "{code}");
            for part in [
                format!("`{code}`"),
                format!("HTTP {}", code.status()),
                "## What to do".to_owned(),
            ] {
                assert!(page.contains(&part), "docs/errors/{code}.md has no {part}");
            }
            let retry = if code.is_retryable() {
                "may be repeated"
            } else {
                "is not repeated"
            };
            assert!(
                page.contains(retry),
                "docs/errors/{code}.md does not say that it {retry}"
            );
            assert_eq!(ErrorCode::from_name(code.name()), Some(*code));
            let cause = code.cause();
            assert!(
                cause.ends_with(['.', ')']) && !cause.contains(['#', '\n']) && cause.len() < 800,
                "{code}: {cause}"
            );
        }
        let pages = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors"))
            .unwrap()
            .count();
        assert_eq!(
            pages,
            ErrorCode::ALL.len() + 1,
            "one page for each, and a README"
        );
    }
}
