//! Cause and fix of each error (requirement R18, docs/requirements.md).

use super::platform_advice::platform_advice;
use super::{Diagnosis, Error, ErrorCode};
use guestlane_core::token::{KeyState, MasterKeyError, TokenError};
use guestlane_runtime::text::display_chain;
use guestlane_store::{CertificateProblem, StoreError};
use guestlane_tlog::AuditError;

impl Error {
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
        StoreError::Sqlite(_) | StoreError::Commit(_) | StoreError::Closed => Diagnosis::new(
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
            .any(|class| code.as_str().starts_with(class)) =>
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
        } if ["26000", "42P05"].contains(&code.as_str()) => {
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
        } if code.as_str() == "3F000" => Diagnosis::new(
            ErrorCode::StoreFailed,
            display_chain(error),
            "create the schema that GUESTLANE_DATABASE_URL names as search_path",
        ),
        StoreError::Postgres {
            code: Some(code), ..
        } if code.as_str() == "42501" => Diagnosis::new(
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
        } => match code.as_str() {
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
