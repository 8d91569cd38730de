//! How the service presents an error code: the HTTP status and the documentation page.

use guestlane::error::ErrorCode;

macro_rules! pages {
    ($($code:ident $name:literal $status:literal;)*) => {
        /// Returns the HTTP status of the response (RFC 9110, section 15).
        pub fn status(code: ErrorCode) -> u16 {
            match code { $(ErrorCode::$code => $status),* }
        }

        /// Returns the page in `errors/`, in Markdown: meaning, cause and fix.
        pub fn page(code: ErrorCode) -> &'static str {
            match code {
                $(ErrorCode::$code => include_str!(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/errors/",
                    $name,
                    ".md"
                ))),*
            }
        }
    };
}

pages! {
    InvalidInput "invalid_input" 400;
    InvalidRequest "invalid_request" 400;
    Unauthorized "unauthorized" 401;
    InsufficientScope "insufficient_scope" 403;
    NotFound "not_found" 404;
    MethodNotAllowed "method_not_allowed" 405;
    PayloadTooLarge "payload_too_large" 413;
    UnsupportedMedia "unsupported_media_type" 415;
    IdempotencyKeyReused "idempotency_key_reused" 422;
    UnknownQueue "unknown_queue" 422;
    TooManyRequests "too_many_requests" 429;
    Overloaded "overloaded" 429;
    InProgress "in_progress" 409;
    NeedsAttention "needs_attention" 409;
    LeaseLost "lease_lost" 409;
    AuthFailed "auth_failed" 502;
    Forbidden "forbidden" 502;
    GuestTokenRejected "guest_token_rejected" 502;
    IdempotencyKeyConflict "idempotency_key_conflict" 409;
    ContactConflict "contact_conflict" 409;
    SessionExpired "session_expired" 502;
    SessionEnded "session_ended" 502;
    PlatformRejected "platform_rejected" 502;
    RateLimited "rate_limited" 503;
    RateLimitTimeout "rate_limit_timeout" 429;
    PlatformFailing "platform_failing" 503;
    Unreachable "unreachable" 503;
    NotReady "not_ready" 503;
    TlsUntrusted "tls_untrusted" 502;
    NoTrustRoots "no_trust_roots" 500;
    TokenValidation "token_validation" 500;
    InvalidSettings "invalid_settings" 500;
    SigningKeysUnusable "signing_keys_unusable" 500;
    MasterKey "master_key" 500;
    StateUnusable "state_unusable" 500;
    StateNewer "state_newer" 500;
    StoreFailed "store_failed" 503;
    AuditUnavailable "audit_unavailable" 503;
    AuditStoreTampered "audit_store_tampered" 500;
    AuditVerificationFailed "audit_verification_failed" 500;
    ShuttingDown "shutting_down" 503;
    InternalError "internal_error" 500;
}

/// Returns the general cause: the first paragraph of the page.
pub(crate) fn cause(code: ErrorCode) -> String {
    page(code)
        .split("\n\n")
        .nth(2)
        .unwrap_or_default()
        .lines()
        .collect::<Vec<_>>()
        .join(" ")
}

/// Returns the path of the page in the service, as a relative reference (RFC 9457, section 3.1.1).
pub fn page_path(code: ErrorCode) -> String {
    format!("/problems/{}", code.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_code_has_a_page_with_title_status_and_fix() {
        for code in ErrorCode::ALL.iter().copied() {
            let page = page(code);
            let first = page.lines().next().unwrap_or_default();
            assert_eq!(first, format!("# {}", code.title()), "{code}");
            for part in [
                format!("`{code}`"),
                format!("HTTP {}", status(code)),
                "## What to do".to_owned(),
            ] {
                assert!(page.contains(&part), "errors/{code}.md has no {part}");
            }
            let retry = if code.is_retryable() {
                "may be repeated"
            } else {
                "is not repeated"
            };
            assert!(
                page.contains(retry),
                "errors/{code}.md does not say that it {retry}"
            );
            assert_eq!(ErrorCode::from_name(code.name()), Some(code));
            let cause = super::cause(code);
            assert!(
                cause.ends_with(['.', ')']) && !cause.contains(['#', '\n']) && cause.len() < 800,
                "{code}: {cause}"
            );
        }
        let pages = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/errors"))
            .unwrap()
            .count();
        assert_eq!(
            pages,
            ErrorCode::ALL.len() + 1,
            "one page for each, and a README"
        );
    }
}
