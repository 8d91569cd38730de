//! Errors of the library, each with its cause and its fix (requirement R18, docs/requirements.md).

mod catalogue;
mod kind;

use std::{fmt::Write as _, sync::Arc};

use guestlane_genesys::{
    AttemptError, CallError, CorrelationId, ErrorResponse, Operation, PlatformId, PlatformMessage,
};
use guestlane_runtime::{Timestamp, http_client::NoTlsRoots, text::display_chain, tls_error};
use http::StatusCode;
use serde::Serialize;

use guestlane_core::{
    request::{IdempotencyKey, QueueId, ValidationError},
    session::{IllegalTransition, SessionId, SessionRecord},
    token::{KeyState, KeyringError, MasterKeyError, TokenError},
};
use guestlane_store::{CertificateProblem, StoreError};
use guestlane_tlog::AuditError;

pub use catalogue::ErrorCode;
pub use kind::ErrorKind;

/// Why a session was not created, or has no result yet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request or a setting is invalid.
    #[error("{0}")]
    Invalid(#[from] ValidationError),
    /// Several settings are invalid.
    #[error("{}", settings(.0))]
    Settings(Vec<ValidationError>),
    /// The queue does not exist on the platform.
    #[error("the queue {queue} does not exist in this organization")]
    UnknownQueue {
        /// ID of the queue.
        queue: QueueId,
        /// Correlation ID of the platform's response.
        correlation_id: Option<CorrelationId>,
    },
    /// The idempotency key was used for another request.
    #[error("the idempotency key `{key}` was used for another request; these differ: {}", .fields.join(", "))]
    IdempotencyKeyReused {
        /// The idempotency key.
        key: IdempotencyKey,
        /// Names of the fields that differ.
        fields: Vec<String>,
        /// The session that has the key.
        session: SessionId,
    },
    /// Another caller holds the lease of the session and did not finish before the deadline, or the
    /// session waits for the platform.
    #[error("the session {session} is being created by another caller, or waits for the platform")]
    InProgress {
        /// ID of the session.
        session: SessionId,
        /// When a retry with the same key may have a result.
        retry_at: Timestamp,
    },
    /// The session is too old to be repeated safely.
    #[error("the session {session} was not completed in time, and retrying is no longer safe")]
    NeedsAttention {
        /// ID of the session.
        session: SessionId,
        /// What is known to exist on the platform: its kind and its ID.
        known: Vec<(&'static str, PlatformId)>,
    },
    /// A call to the platform failed.
    #[error("{failed}")]
    Platform {
        /// ID of the session, if it exists.
        session: Option<SessionId>,
        /// What happens to the session now.
        then: SessionOutcome,
        /// The failed call.
        #[source]
        failed: CallError,
    },
    /// A guest token could not be created or verified.
    #[error("the guest token cannot be used")]
    Token(#[from] TokenError),
    /// The keyring cannot be opened.
    #[error("the signing keys cannot be used")]
    Keyring(#[from] KeyringError),
    /// The master key cannot be used.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// The store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The audit log could not be written, so nothing was created.
    #[error("nothing was created, because the attempt could not be written to the audit log")]
    Audit(#[source] Arc<AuditError>),
    /// No trusted root certificates were found on this machine.
    #[error(transparent)]
    Trust(#[from] NoTlsRoots),
}

impl From<IllegalTransition> for Error {
    fn from(illegal: IllegalTransition) -> Self {
        Self::Store(illegal.into())
    }
}

impl Error {
    /// Returns the error for a session that a person must examine, with what is known to exist of
    /// it.
    pub fn needs_attention(session: &SessionRecord) -> Self {
        let ids = [
            ("contact", &session.contact_id),
            ("the guest's first message", &session.message_id),
            ("conversation", &session.conversation_id),
        ];
        let known = ids
            .into_iter()
            .filter_map(|(what, id)| id.clone().map(|id| (what, id)))
            .collect();
        Self::NeedsAttention {
            session: session.id,
            known,
        }
    }
}

fn settings(invalid: &[ValidationError]) -> String {
    let mut text = match invalid.len() {
        1 => "a setting cannot be used:".to_owned(),
        n => format!("{n} settings cannot be used:"),
    };
    for invalid in invalid {
        let _ = write!(
            text,
            "\n  {}: {}\n      {}",
            invalid.field, invalid.reason, invalid.fix
        );
    }
    text
}

/// What happens to a session after a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SessionOutcome {
    /// No session exists, and nothing was created.
    NothingCreated,
    /// The session is stored and will be completed.
    WillComplete,
    /// The platform rejected the session. The same key may be used again once the cause is fixed.
    Rejected,
}

/// Cause and fix of an error, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// Kind of the failure.
    pub code: ErrorCode,
    /// Why the failure happened, in a form that may be stored, logged and displayed.
    pub cause: String,
    /// What to do now.
    pub fix: String,
    /// The message of the platform, which may repeat what was sent.
    sentence: PlatformMessage,
}

impl Diagnosis {
    fn new(code: ErrorCode, cause: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            code,
            cause: cause.into(),
            fix: fix.into(),
            sentence: PlatformMessage::default(),
        }
    }

    /// The cause with the platform's message, which may repeat what was sent. Show it only to the
    /// caller whose request failed.
    pub fn cause_for_caller(&self) -> String {
        match self.sentence.is_empty() {
            true => self.cause.clone(),
            false => format!("{}: {}", self.cause, self.sentence.for_caller()),
        }
    }

    /// Removes the platform's message, so that the diagnosis can be stored or shown to others.
    #[must_use]
    pub fn for_others(self) -> Self {
        Self {
            sentence: PlatformMessage::default(),
            ..self
        }
    }
}

impl Error {
    /// Whether the written input (settings, flags, request) must change before a retry can succeed.
    /// This is false for a condition that may pass by itself, such as a port in use or a read-only
    /// file system: there, a supervisor should restart the process.
    pub fn is_user_error(&self) -> bool {
        match self {
            Self::Invalid(invalid) => !invalid.may_pass,
            Self::Settings(refused) => refused.iter().any(|invalid| !invalid.may_pass),
            Self::MasterKey(error) => !error.may_pass(),
            Self::Keyring(_) => true,
            Self::Store(error) => matches!(error, StoreError::Newer { .. }),
            _ => false,
        }
    }

    /// The session that the error concerns.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::IdempotencyKeyReused { session, .. }
            | Self::InProgress { session, .. }
            | Self::NeedsAttention { session, .. } => Some(*session),
            Self::Platform { session, .. } => *session,
            _ => None,
        }
    }

    /// The field of the request that the error concerns.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Invalid(invalid) => Some(&invalid.field),
            Self::UnknownQueue { .. } => Some("queueId"),
            Self::IdempotencyKeyReused { fields, .. } => fields.first().map(String::as_str),
            Self::Settings(invalid) => invalid.first().map(|invalid| invalid.field.as_str()),
            _ => None,
        }
    }

    /// The platform's correlation ID, to quote to its support.
    pub fn correlation_id(&self) -> Option<&str> {
        match self {
            Self::UnknownQueue { correlation_id, .. } => correlation_id.as_deref(),
            Self::Platform { failed, .. } => {
                failed.cause.correlation_id().map(CorrelationId::as_str)
            }
            _ => None,
        }
    }

    /// The message as it may be stored in the session record and the audit log. It repeats nothing
    /// of what was sent.
    pub fn redacted(&self) -> String {
        match self {
            Self::Platform { failed, .. } => format!("{failed}: {}", failed.cause.redacted()),
            _ => display_chain(self),
        }
    }

    /// Returns the cause and the fix.
    pub fn advice(&self) -> Diagnosis {
        match self {
            Self::Invalid(invalid) => {
                Diagnosis::new(ErrorCode::InvalidInput, invalid.sentence(), &invalid.fix)
            }
            Self::Settings(_) => Diagnosis::new(
                ErrorCode::InvalidSettings,
                "settings are missing or malformed",
                "set them in the environment or in guestlane.toml; `guestlane config show` shows the source of each",
            ),
            Self::UnknownQueue { .. } => Diagnosis::new(
                ErrorCode::UnknownQueue,
                "the organization has no queue with this ID, or the OAuth client has no access to its division",
                "copy the id from Admin > Contact Center > Queues; nothing was created",
            ),
            Self::IdempotencyKeyReused { .. } => Diagnosis::new(
                ErrorCode::IdempotencyKeyReused,
                "an idempotency key identifies one request",
                "use a new key for the new request, or repeat the first request unchanged",
            ),
            Self::InProgress { retry_at, .. } => Diagnosis::new(
                ErrorCode::InProgress,
                "the session is recorded and is being completed",
                format!("repeat the request with the same key after {retry_at}"),
            ),
            Self::NeedsAttention { known, .. } => {
                let said = known.iter().any(|(what, _)| *what != "contact");
                let ids = known
                    .iter()
                    .map(|(what, id)| format!("{what} {id}"))
                    .collect::<Vec<_>>()
                    .join(", ");
                let known = if ids.is_empty() {
                    "nothing is known to exist".to_owned()
                } else {
                    format!("these objects exist: {ids}")
                };
                let fix = if said {
                    "open that conversation in the organization: it has the guest's message; a new session would create a second conversation"
                } else {
                    "search for the guest in the organization; if there is no conversation, create the session under a new key"
                };
                Diagnosis::new(
                    ErrorCode::NeedsAttention,
                    format!("a retry could create a second contact or conversation; {known}"),
                    fix,
                )
            }
            Self::Platform { failed, then, .. } => {
                let sentence = failed.cause.sentence().cloned().unwrap_or_default();
                Diagnosis {
                    sentence,
                    ..platform_advice(failed, *then)
                }
            }
            Self::Token(error) => Diagnosis::new(
                ErrorCode::TokenValidation,
                error.to_string(),
                token_fix(error),
            ),
            Self::Keyring(error) => Diagnosis::new(
                ErrorCode::SigningKeysUnusable,
                error.to_string(),
                "use the master key that encrypted the store; if that key is lost, use a new state directory",
            ),
            Self::MasterKey(error) => Diagnosis::new(
                ErrorCode::MasterKey,
                error.to_string(),
                master_key_fix(error),
            ),
            Self::Store(error) => store_advice(error),
            Self::Audit(error) => Diagnosis::new(
                ErrorCode::AuditUnavailable,
                display_chain(error),
                audit_fix(error),
            ),
            Self::Trust(error) => Diagnosis::new(
                ErrorCode::NoTrustRoots,
                error.to_string(),
                "install the operating system's package `ca-certificates`",
            ),
        }
    }
}

fn audit_fix(error: &AuditError) -> &'static str {
    match error {
        AuditError::Foreign(..) => {
            "move the file away (a complete one is written from the store), or set GUESTLANE_AUDIT_LOG to another path; then repeat the request with the same key"
        }
        AuditError::Write(..) | AuditError::Store(..) => {
            "make the file writable, or set GUESTLANE_AUDIT_LOG to another path; then repeat the request with the same key"
        }
    }
}

fn token_fix(error: &TokenError) -> &'static str {
    match error {
        TokenError::Malformed => "pass the complete token: three parts joined by dots",
        TokenError::Expired => "a token is valid for five minutes: request a new one",
        TokenError::NotYet => "set the clocks of both machines",
        TokenError::NotTrusted {
            state: KeyState::Next,
            ..
        } => "that key is not active yet: do not trust the token",
        TokenError::NotTrusted {
            state: KeyState::Revoked,
            ..
        } => "do not trust the token; request a new one",
        TokenError::NotTrusted { .. } => "all tokens of this key have expired: request a new one",
        TokenError::TooLong
        | TokenError::DuplicateName(_)
        | TokenError::Algorithm
        | TokenError::Header(_)
        | TokenError::Type
        | TokenError::NoKey
        | TokenError::Claim(_)
        | TokenError::IdentityMismatch => "guestlane did not issue this token: do not trust it",
        TokenError::UnknownKey(_) | TokenError::Signature | TokenError::Key(_) => {
            "verify with the state directory whose key signed the token (`guestlane signing-keys list`); otherwise do not trust it"
        }
    }
}

fn master_key_fix(error: &MasterKeyError) -> String {
    match error {
        MasterKeyError::Damaged(_) => {
            "restore the key from a backup; for a new state directory create one with `openssl rand -base64 32`".to_owned()
        }
        MasterKeyError::PreviousAlone { current, .. } => {
            format!("set {current} to the current key; the previous key alone cannot encrypt new values")
        }
        MasterKeyError::InUse(_) => {
            "stop all processes that use this state directory first; a fleet rotates its key without downtime (docs/tokens.md)".to_owned()
        }
        MasterKeyError::BeingRotated(_) => "wait until `guestlane master-key rotate` has ended".to_owned(),
        MasterKeyError::PreviousInUse => {
            "set GUESTLANE_MASTER_KEY to the new key on every node, restart each node or send it SIGHUP, and run the same command again".to_owned()
        }
        MasterKeyError::ExposedFile(path, _) => format!("run `chmod o= {0}`, or `chmod 600 {0}`", path.display()),
        MasterKeyError::Missing(path) => {
            format!("restore {} from a backup or from the machine that created it, or set GUESTLANE_MASTER_KEY", path.display())
        }
        MasterKeyError::File(path, _) => format!("make {} readable for this user, or set GUESTLANE_MASTER_KEY", path.display()),
        MasterKeyError::Undecryptable(_) | MasterKeyError::Unusable => {
            "set GUESTLANE_MASTER_KEY to the master key that encrypted the store, the same on all machines; if that key is lost, use a new store".to_owned()
        }
    }
}

/// Fix for a connection pool in transaction mode, in front of the database.
const SESSION_POOL: &str = "configure the pool to keep one connection for each client (PgBouncer: pool_mode = session), or connect to the database directly";

fn store_advice(error: &StoreError) -> Diagnosis {
    match error {
        StoreError::Open(path, _) => Diagnosis::new(
            ErrorCode::StateUnusable,
            display_chain(error),
            format!(
                "make {} writable for this user, or choose another directory with --state-dir",
                path.display()
            ),
        ),
        StoreError::Newer { .. } => Diagnosis::new(
            ErrorCode::StateNewer,
            error.to_string(),
            "use the newer version of guestlane, or another --state-dir; nothing was changed",
        ),
        StoreError::LeaseLost => Diagnosis::new(
            ErrorCode::LeaseLost,
            error.to_string(),
            "repeat the request with the same key to get the result of that process",
        ),
        StoreError::Database(_) | StoreError::Commit(_) | StoreError::Closed => Diagnosis::new(
            ErrorCode::StoreFailed,
            display_chain(error),
            "check the disk, and whether another process locks the database; then repeat the request with the same key",
        ),
        StoreError::ClockSkew(_) => Diagnosis::new(
            ErrorCode::StateUnusable,
            error.to_string(),
            "synchronize the clocks of both machines by NTP; they may differ by two seconds",
        ),
        StoreError::Postgres { .. }
        | StoreError::Unreachable { .. }
        | StoreError::Untrusted { .. }
            if database_fix(error).is_some() =>
        {
            Diagnosis::new(
                ErrorCode::StoreFailed,
                display_chain(error),
                database_fix(error).unwrap_or_default(),
            )
        }
        StoreError::Postgres {
            code: Some(code), ..
        } if ["28", "3D"]
            .iter()
            .any(|class| code.code().starts_with(class)) =>
        {
            Diagnosis::new(
                ErrorCode::StoreFailed,
                display_chain(error),
                "correct the user, password and database in GUESTLANE_DATABASE_URL",
            )
        }
        StoreError::TransactionPooling => {
            Diagnosis::new(ErrorCode::StateUnusable, error.to_string(), SESSION_POOL)
        }
        // 26000: the prepared statement does not exist; 42P05: it exists already.
        StoreError::Postgres {
            code: Some(code), ..
        } if ["26000", "42P05"].contains(&code.code()) => {
            let cause = format!(
                "{}: a connection pool in front of the database uses another connection for each transaction",
                display_chain(error)
            );
            Diagnosis::new(ErrorCode::StateUnusable, cause, SESSION_POOL)
        }
        StoreError::InUse(_) => Diagnosis::new(
            ErrorCode::StateUnusable,
            error.to_string(),
            "stop all processes that use the store first",
        ),
        StoreError::MigrationInProgress(_) => Diagnosis::new(
            ErrorCode::StateUnusable,
            error.to_string(),
            "wait until `guestlane store migrate` has ended, then use the database",
        ),
        StoreError::Postgres {
            code: Some(code), ..
        } if code.code() == "3F000" => Diagnosis::new(
            ErrorCode::StoreFailed,
            display_chain(error),
            "create the schema that GUESTLANE_DATABASE_URL names as search_path",
        ),
        StoreError::Postgres {
            code: Some(code), ..
        } if code.code() == "42501" => Diagnosis::new(
            ErrorCode::StoreFailed,
            display_chain(error),
            "grant the user CREATE on the schema, and the privileges on its tables",
        ),
        StoreError::Migrated { .. } => Diagnosis::new(
            ErrorCode::StateUnusable,
            error.to_string(),
            "set GUESTLANE_DATABASE_URL to that database; keep the file until the move is verified, then remove it",
        ),
        StoreError::Superseded { .. } => Diagnosis::new(
            ErrorCode::StateNewer,
            error.to_string(),
            "restart this process with the newer version, and repeat the request with the same key; nothing was written",
        ),
        StoreError::MigrationUnfinished { .. } => Diagnosis::new(
            ErrorCode::StateUnusable,
            error.to_string(),
            "finish the move with the same `guestlane store migrate`, or continue with the file after `guestlane store migrate --abandon --yes`",
        ),
        StoreError::MigrationIncomplete(_) => Diagnosis::new(
            ErrorCode::StateUnusable,
            error.to_string(),
            "finish the move with `guestlane store migrate`; after `guestlane store migrate --abandon --yes` only the file is used",
        ),
        StoreError::NotShared => Diagnosis::new(
            ErrorCode::InvalidSettings,
            error.to_string(),
            "set GUESTLANE_DATABASE_URL=postgres://…, the same for all processes",
        ),
        StoreError::Untrusted { .. } | StoreError::Unreachable { .. } => Diagnosis::new(
            ErrorCode::StoreFailed,
            display_chain(error),
            "start the database, or correct GUESTLANE_DATABASE_URL; then repeat the request with the same key",
        ),
        StoreError::Postgres { .. } => Diagnosis::new(
            ErrorCode::StoreFailed,
            display_chain(error),
            "check the log of the database; then repeat the request with the same key",
        ),
        StoreError::Busy => Diagnosis::new(
            ErrorCode::StoreFailed,
            error.to_string(),
            "retry later, with fewer concurrent reads",
        ),
        StoreError::ReadTimeout(_) => Diagnosis::new(
            ErrorCode::StoreFailed,
            error.to_string(),
            "narrow the filter or lower the limit; docs/scaling.md names the reads that use an index",
        ),
        StoreError::AuditTampered(_) => Diagnosis::new(
            ErrorCode::AuditStoreTampered,
            display_chain(error),
            "find out which user or program changed the database; the audit log's files and checkpoints kept elsewhere show the original records",
        ),
        StoreError::Row(_) | StoreError::IllegalTransition(_) | StoreError::NoAuditLog => {
            Diagnosis::new(
                ErrorCode::InternalError,
                display_chain(error),
                "this is a bug: please report it with this line",
            )
        }
    }
}

/// The fix, if the SQLSTATE or the reason of a failed connection identifies the cause.
fn database_fix(error: &StoreError) -> Option<&'static str> {
    const READ_ONLY: &str = "set GUESTLANE_DATABASE_URL to the primary, or make the database writable again \
         (default_transaction_read_only, a standby that was not promoted)";
    match error {
        StoreError::Postgres {
            code: Some(code),
            message,
            ..
        } => match code.code() {
            "53300" => Some(
                "raise max_connections or the user's CONNECTION LIMIT, or run fewer processes: each uses up to seven connections",
            ),
            "53100" => Some("free space on the disk of the database"),
            "25006" => Some(READ_ONLY),
            "28000" if message.contains("no encryption") || message.contains("SSL off") => Some(
                "add sslmode=require to GUESTLANE_DATABASE_URL: the server accepts this user over TLS only",
            ),
            "28000" if message.contains("pg_hba.conf") => {
                Some("add a line for this user, database and address to the server's pg_hba.conf")
            }
            "08P01" if message.contains("startup parameter") => Some(
                "remove `options` from GUESTLANE_DATABASE_URL, or configure the pool to ignore it (PgBouncer: ignore_startup_parameters)",
            ),
            _ => None,
        },
        StoreError::Untrusted { distrust, .. } => Some(match distrust {
            CertificateProblem::Issuer => {
                "add sslrootcert=FILE to GUESTLANE_DATABASE_URL, with the certificate of the server's authority in PEM"
            }
            CertificateProblem::Name => {
                "use a host name in GUESTLANE_DATABASE_URL that the server's certificate has"
            }
            CertificateProblem::Time => {
                "renew the server's certificate, and check the clocks of both machines"
            }
        }),
        StoreError::Unreachable { reason, .. } if reason.contains("does not allow writes") => {
            Some(READ_ONLY)
        }
        _ => None,
    }
}

/// The diagnosis of a failed call (requirement R18, docs/requirements.md), from the platform's
/// response.
fn platform_advice(failed: &CallError, then: SessionOutcome) -> Diagnosis {
    let later = match then {
        SessionOutcome::NothingCreated => "; nothing was created",
        SessionOutcome::WillComplete => {
            "; the session is recorded: a request with the same key, or `guestlane sessions resume`, completes it"
        }
        SessionOutcome::Rejected => "; then repeat the request with the same key",
    };
    let (signing_in, cause) = match &failed.cause {
        AttemptError::AuthenticationFailed(cause) => (true, cause.as_ref()),
        cause => (failed.operation == Operation::Token, cause),
    };
    if let Some(refusal) = cause.refusal() {
        let said = refusal.to_string();
        if signing_in || refusal.status == StatusCode::UNAUTHORIZED {
            return Diagnosis::new(
                ErrorCode::AuthFailed,
                format!("OAuth authentication failed: {said}"),
                format!(
                    "verify client credentials and scopes (GENESYS_CLIENT_ID, GENESYS_CLIENT_SECRET; Admin > Integrations > OAuth, in this region){later}"
                ),
            );
        }
        if refusal.is_expired_guest_token() {
            return Diagnosis::new(
                ErrorCode::GuestTokenRejected,
                format!("the platform rejected a new guest token as expired: {said}"),
                format!("set this machine's clock (a token is valid for five minutes){later}"),
            );
        }
        if refusal.status == StatusCode::UNPROCESSABLE_ENTITY
            && refusal.code.contains("idempotency")
        {
            return Diagnosis::new(
                ErrorCode::IdempotencyKeyConflict,
                format!(
                    "another state directory or program, or an erased guest's session, already used this key on the platform: {said}"
                ),
                "the session exists: use the state directory that created it; for a new session use a new key",
            );
        }
        if refusal.status.is_redirection() {
            return Diagnosis::new(
                ErrorCode::PlatformRejected,
                format!("the platform responded with a redirect: {said}"),
                format!(
                    "check GENESYS_ORG_DOMAIN (or GENESYS_BASE_URL): redirects are not followed{later}"
                ),
            );
        }
        if let Some((code, cause, fix)) = official_refusal(refusal, failed.operation) {
            return Diagnosis::new(code, format!("{cause}: {said}"), format!("{fix}{later}"));
        }
        if refusal.is_guest_token() {
            return Diagnosis::new(
                ErrorCode::GuestTokenRejected,
                format!("the platform rejected the guest token: {said}"),
                format!(
                    "register the public key (`guestlane signing-keys export`) under its kid in Messaging > Security > Guest Token Keys{later}"
                ),
            );
        }
        if refusal.status == StatusCode::FORBIDDEN {
            return Diagnosis::new(
                ErrorCode::Forbidden,
                said,
                match failed.operation {
                    Operation::Queue | Operation::Contact | Operation::OpenConversation => format!(
                        "grant the OAuth client the scopes externalcontacts:create and conversations:messaging, and check the queue ID{later}"
                    ),
                    operation => format!(
                        "grant {} to a role of the OAuth client, in the affected division; `guestlane doctor` checks all permissions{later}",
                        operation.permissions().join(" or ")
                    ),
                },
            );
        }
        return Diagnosis::new(
            ErrorCode::PlatformRejected,
            said,
            format!("correct the request; `-vv` shows the shape of what was sent{later}"),
        );
    }
    match cause {
        AttemptError::Throttled { .. } => Diagnosis::new(
            ErrorCode::RateLimited,
            "the platform's rate limit was reached, by this or another program with the same OAuth client",
            format!(
                "lower GUESTLANE_PLATFORM_RATE_LIMIT, or give GENESYS_CLIENT_ID another OAuth client{later}"
            ),
        ),
        AttemptError::RateLimitTimeout => Diagnosis::new(
            ErrorCode::RateLimitTimeout,
            "more calls wait for the rate limiter than the rate limit allows before the deadline",
            format!(
                "raise GUESTLANE_SESSION_TIMEOUT, give GENESYS_CLIENT_ID another OAuth client, or raise GUESTLANE_PLATFORM_RATE_LIMIT if the platform allows more{later}"
            ),
        ),
        AttemptError::NotSent(reason) if reason.contains(tls_error::CERTIFICATE) => Diagnosis::new(
            ErrorCode::TlsUntrusted,
            format!("the platform's certificate is not trusted: {reason}"),
            format!(
                "for a private certificate authority set GENESYS_CA_FILE to its certificate in PEM{later}"
            ),
        ),
        AttemptError::Local(reason) => Diagnosis::new(
            ErrorCode::Unreachable,
            format!("this machine cannot open a connection: {reason}"),
            format!(
                "raise the limit of open files (`ulimit -n`, LimitNOFILE=), or run fewer sessions concurrently{later}"
            ),
        ),
        AttemptError::NotSent(reason) => Diagnosis::new(
            ErrorCode::Unreachable,
            format!("the platform cannot be reached: {reason}"),
            format!(
                "check GENESYS_ORG_DOMAIN or GENESYS_REGION (or GENESYS_BASE_URL), DNS and firewall; HTTP proxies are not supported{later}"
            ),
        ),
        AttemptError::NotReady(_) if failed.operation == Operation::Details => Diagnosis::new(
            ErrorCode::NotReady,
            "the platform accepted the guest's first message, and does not show its conversation yet",
            format!(
                "if it never appears: the deployment or integration needs an inbound message flow, and a Presence event may not open a conversation (set GENESYS_FIRST_MESSAGE to a text for later sessions; the message of this session is not sent again){later}"
            ),
        ),
        AttemptError::NotReady(_) => Diagnosis::new(
            ErrorCode::NotReady,
            "the platform does not show the conversation's participants yet",
            format!("no change is needed{later}"),
        ),
        AttemptError::OutcomeUnknown { reason, .. } => Diagnosis::new(
            ErrorCode::PlatformFailing,
            reason.clone(),
            format!("no change is needed{later}"),
        ),
        AttemptError::Unauthorized(_)
        | AttemptError::Rejected(_)
        | AttemptError::AuthenticationFailed(_)
        | AttemptError::Failover(_) => Diagnosis::new(
            ErrorCode::PlatformRejected,
            cause.to_string(),
            format!("correct the request{later}"),
        ),
    }
}

/// Code, cause and fix of rejections that only the surfaces of the public platform have.
fn official_refusal(
    refusal: &ErrorResponse,
    operation: Operation,
) -> Option<(ErrorCode, &'static str, &'static str)> {
    const DEPLOYMENT: &str =
        "check GENESYS_DEPLOYMENT_ID, its status and GENESYS_REGION (`guestlane doctor`)";
    if refusal.is_guest_api() {
        return Some(match refusal.code.rsplit('-').next().unwrap_or_default() {
            "4006" | "4007" => (
                ErrorCode::SessionExpired,
                "the guest's session on the platform has ended",
                "no message was sent in it",
            ),
            "409" => (
                ErrorCode::SessionEnded,
                "the guest's conversation was ended",
                "no message was sent in it",
            ),
            "4013" => (
                ErrorCode::PlatformRejected,
                "the attributes are too large for the platform",
                "shorten the attributes",
            ),
            "4011" => (
                ErrorCode::PlatformRejected,
                "the first message is too long for the platform",
                "shorten GENESYS_FIRST_MESSAGE",
            ),
            "403" => (
                ErrorCode::Forbidden,
                "the deployment does not allow the request",
                DEPLOYMENT,
            ),
            _ => (
                ErrorCode::PlatformRejected,
                "the guest API rejected the request",
                DEPLOYMENT,
            ),
        });
    }
    match (operation, refusal.status) {
        (Operation::FirstMessage, StatusCode::FORBIDDEN) => Some((
            ErrorCode::Forbidden,
            "the deployment does not allow this origin",
            "set GENESYS_ORIGIN to one of its allowed domains, or allow the domain in Admin > Message > Messenger Deployments",
        )),
        (Operation::FirstMessage, _) => Some((
            ErrorCode::PlatformRejected,
            "the guest WebSocket rejected the connection",
            DEPLOYMENT,
        )),
        (Operation::OpenMessage, StatusCode::NOT_FOUND) => Some((
            ErrorCode::PlatformRejected,
            "the integration does not exist",
            "check GENESYS_INTEGRATION_ID (`guestlane doctor`)",
        )),
        (Operation::EnrichContact | Operation::CreateContact, StatusCode::CONFLICT) => Some((
            ErrorCode::ContactConflict,
            "an identifier of the guest belongs to another contact",
            "search External Contacts for the guest's ID, e-mail and telephone number, and merge the contacts or release the identifier",
        )),
        (
            Operation::LinkContact | Operation::MoveToQueue,
            StatusCode::NOT_FOUND | StatusCode::CONFLICT,
        ) => Some((
            ErrorCode::PlatformRejected,
            "the conversation, its contact or its participant does not exist, or no longer exists",
            "check the conversation in the organization (`guestlane sessions show` shows its ID); the step is retried",
        )),
        (Operation::EnrichContact, _) if refusal.message.mentions("source") => Some((
            ErrorCode::PlatformRejected,
            "the external source does not exist",
            "check GENESYS_EXTERNAL_SOURCE_ID: the ID of a source in Admin > External Contacts > External Sources",
        )),
        _ => None,
    }
}
