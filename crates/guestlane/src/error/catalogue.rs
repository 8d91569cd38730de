//! Every kind of failure by its stable name (requirements R12 and R18, docs/requirements.md): the
//! command line, the service and its documents all speak from this list.

use std::fmt;

macro_rules! catalogue {
    ($($code:ident $name:literal $status:literal $retryable:literal $title:literal;)*) => {
        /// A kind of failure. Its name never changes and never means anything else.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $title] $code,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$code),*];

            /// The stable name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$code => $name),* }
            }

            /// What it is, in a few words that are the same each time (RFC 9457, section 3.1.3).
            pub fn title(self) -> &'static str {
                match self { $(Self::$code => $title),* }
            }

            /// The status with which the service answers (RFC 9110, section 15).
            pub fn status(self) -> u16 {
                match self { $(Self::$code => $status),* }
            }

            /// Whether the same request may go well without anybody changing anything.
            pub fn is_retryable(self) -> bool {
                match self { $(Self::$code => $retryable),* }
            }

            /// What it means, why it happens and what to do, in Markdown: the page under `docs/errors/`.
            pub fn page(self) -> &'static str {
                match self {
                    $(Self::$code => include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors/", $name, ".md"))),*
                }
            }
        }
    };
}

catalogue! {
    // What the caller sent.
    InvalidInput       "invalid_input"       400 false "A value cannot be used";
    Malformed          "malformed"           400 false "The request cannot be read";
    Unauthorized       "unauthorized"        401 false "An API key is needed";
    NotPermitted       "not_permitted"       403 false "The API key does not allow this";
    NotFound           "not_found"           404 false "There is no such thing";
    MethodNotAllowed   "method_not_allowed"  405 false "This cannot be done here";
    TooLarge           "too_large"           413 false "The request is too large";
    UnsupportedMedia   "unsupported_media_type" 415 false "The request has the wrong media type";
    KeyMismatch        "key_mismatch"        422 false "The idempotency key was used for another request";
    UnknownQueue       "unknown_queue"       422 false "There is no such queue";
    TooManyRequests    "too_many_requests"   429 true  "Too many requests with this API key";
    Overloaded         "overloaded"          429 true  "Too many sessions are under way";
    // Where the session stands.
    InProgress         "in_progress"         409 true  "The session is being created";
    NeedsAttention     "needs_attention"     409 false "A person must look at the session";
    TakenOver          "taken_over"          409 true  "Another process has taken the session over";
    // What the platform said.
    AuthFailed         "auth_failed"         502 false "OAuth authentication failed";
    Forbidden          "forbidden"           502 false "The platform forbids it";
    TokenRefused       "token_refused"       502 false "The platform refused the guest token";
    KeyTaken           "key_taken"           409 false "The platform knows the key from elsewhere";
    ContactConflict    "contact_conflict"    409 false "An identifier belongs to another contact";
    SessionExpired     "session_expired"     502 false "The guest's session on the platform is over";
    SessionEnded       "session_ended"       502 false "The guest's conversation was ended";
    Refused            "refused"             502 false "The platform refused the request";
    RateLimited        "rate_limited"        503 true  "The platform's rate limit was reached";
    QuotaFull          "quota_full"          429 true  "More calls wait than the quota allows";
    // How the platform was not reached.
    PlatformFailing    "platform_failing"    503 true  "The platform is failing";
    Unreachable        "unreachable"         503 true  "The platform cannot be reached";
    NotThereYet        "not_there_yet"       503 true  "The platform does not show it yet";
    Untrusted          "untrusted"           502 false "The platform's certificate is not believed";
    NoTrustRoots       "no_trust_roots"      500 false "This machine believes no certificate";
    // What is wrong here.
    TokenValidation    "token_validation"    500 false "The guest token cannot be used";
    InvalidSettings    "invalid_settings"    500 false "Settings are missing or malformed";
    KeysUnusable       "keys_unusable"       500 false "The signing keys cannot be used";
    MasterKey          "master_key"          500 false "The master key cannot be used";
    StateUnusable      "state_unusable"      500 false "The state directory cannot be used";
    StateNewer         "state_newer"         500 false "The store is of a newer version";
    StoreFailed        "store_failed"        503 true  "The store failed";
    AuditUnavailable   "audit_unavailable"   503 true  "The audit log cannot be written";
    RecordsChanged     "records_changed"     500 false "Somebody changed the records";
    AuditUnproven      "audit_unproven"      500 false "The audit log is not proven";
    Ending             "ending"              503 true  "The service is ending";
    Defect             "defect"              500 false "A defect of guestlane";
}

impl Code {
    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }

    /// Why it happens, as its page says in general: the first paragraph.
    pub fn cause(self) -> String {
        self.page().split("\n\n").nth(2).unwrap_or_default().lines().collect::<Vec<_>>().join(" ")
    }

    /// Where its page is, as a reference that the service answers (RFC 9457, section 3.1.1).
    pub fn page_path(self) -> String {
        format!("/problems/{}", self.name())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_page_that_begins_with_its_title_and_says_what_to_do() {
        for code in Code::ALL {
            let page = code.page();
            let first = page.lines().next().unwrap_or_default();
            assert_eq!(first, format!("# {}", code.title()), "{code}");
            for part in [format!("`{code}`"), format!("HTTP {}", code.status()), "## What to do".to_owned()] {
                assert!(page.contains(&part), "docs/errors/{code}.md has no {part}");
            }
            let retry = if code.is_retryable() { "may be repeated" } else { "is not repeated" };
            assert!(page.contains(retry), "docs/errors/{code}.md does not say that it {retry}");
            assert_eq!(Code::from_name(code.name()), Some(*code));
            let cause = code.cause();
            assert!(cause.ends_with(['.', ')']) && !cause.contains(['#', '\n']) && cause.len() < 800, "{code}: {cause}");
        }
        let pages = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors")).unwrap().count();
        assert_eq!(pages, Code::ALL.len() + 1, "one page for each, and a README");
    }
}
