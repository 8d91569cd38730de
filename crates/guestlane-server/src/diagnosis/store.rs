//! Cause and fix of errors of the store.

use guestlane::StoreError;
use guestlane_runtime::text::display_chain;
use guestlane_store::CertificateProblem;

pub(super) fn cause(error: &StoreError) -> String {
    match error {
        StoreError::Postgres { .. } if error.is_transaction_pooling() => format!(
            "{}: a connection pool in front of the database uses another connection for each transaction",
            display_chain(error)
        ),
        error => display_chain(error),
    }
}

/// Fix for a connection pool in transaction mode, in front of the database.
const SESSION_POOL: &str = "configure the pool to keep one connection for each client (PgBouncer: pool_mode = session), or connect to the database directly";

#[deny(clippy::wildcard_enum_match_arm)]
pub(super) fn fix(error: &StoreError) -> String {
    let fix = match error {
        StoreError::Open(path, _) => {
            return format!(
                "make {} writable for this user, or choose another directory with --state-dir",
                path.display()
            );
        }
        StoreError::Newer { .. } => {
            "use the newer version of guestlane, or another --state-dir; nothing was changed"
        }
        StoreError::LeaseLost => {
            "repeat the request with the same key to get the result of that process"
        }
        StoreError::Sqlite(_) | StoreError::Commit(_) | StoreError::Closed => {
            "check the disk, and whether another process locks the database; then repeat the request with the same key"
        }
        StoreError::ClockSkew(_) => {
            "synchronize the clocks of both machines by NTP; they may differ by two seconds"
        }
        StoreError::TransactionPooling => SESSION_POOL,
        StoreError::InUse(_) => "stop all processes that use the store first",
        StoreError::MigrationInProgress(_) => {
            "wait until `guestlane store migrate` has ended, then use the database"
        }
        StoreError::Migrated { .. } => {
            "set GUESTLANE_DATABASE_URL to that database; keep the file until the move is verified, then remove it"
        }
        StoreError::Superseded { .. } => {
            "restart this process with the newer version, and repeat the request with the same key; nothing was written"
        }
        StoreError::MigrationUnfinished { .. } => {
            "finish the move with the same `guestlane store migrate`, or continue with the file after `guestlane store migrate --abandon --yes`"
        }
        StoreError::MigrationIncomplete(_) => {
            "finish the move with `guestlane store migrate`; after `guestlane store migrate --abandon --yes` only the file is used"
        }
        StoreError::NotShared => {
            "set GUESTLANE_DATABASE_URL=postgres://…, the same for all processes"
        }
        StoreError::Untrusted { distrust, .. } => certificate_fix(*distrust),
        StoreError::Unreachable { reason, .. } if reason.contains("does not allow writes") => {
            READ_ONLY
        }
        StoreError::Unreachable { .. } => {
            "start the database, or correct GUESTLANE_DATABASE_URL; then repeat the request with the same key"
        }
        StoreError::Postgres { .. } if error.is_transaction_pooling() => SESSION_POOL,
        StoreError::Postgres { code, message, .. } => {
            sqlstate_fix(code.as_deref().unwrap_or_default(), message)
        }
        StoreError::Busy => "retry later, with fewer concurrent reads",
        StoreError::ReadTimeout(_) => {
            "narrow the filter or lower the limit; docs/scaling.md names the reads that use an index"
        }
        StoreError::AuditTampered(_) => {
            "find out which user or program changed the database; the audit log's files and checkpoints kept elsewhere show the original records"
        }
        StoreError::Row(_) | StoreError::IllegalTransition(_) | StoreError::NoAuditLog => {
            "this is a bug: please report it with this line"
        }
    };
    fix.to_owned()
}

const READ_ONLY: &str = "set GUESTLANE_DATABASE_URL to the primary, or make the database writable again \
     (default_transaction_read_only, a standby that was not promoted)";

fn certificate_fix(problem: CertificateProblem) -> &'static str {
    match problem {
        CertificateProblem::Issuer => {
            "add sslrootcert=FILE to GUESTLANE_DATABASE_URL, with the certificate of the server's authority in PEM"
        }
        CertificateProblem::Name => {
            "use a host name in GUESTLANE_DATABASE_URL that the server's certificate has"
        }
        CertificateProblem::Time => {
            "renew the server's certificate, and check the clocks of both machines"
        }
    }
}

/// The fix of an error with this SQLSTATE and message of PostgreSQL.
fn sqlstate_fix(code: &str, message: &str) -> &'static str {
    match code {
        "53300" => {
            "raise max_connections or the user's CONNECTION LIMIT, or run fewer processes: each uses up to seven connections"
        }
        "53100" => "free space on the disk of the database",
        "25006" => READ_ONLY,
        "28000" if message.contains("no encryption") || message.contains("SSL off") => {
            "add sslmode=require to GUESTLANE_DATABASE_URL: the server accepts this user over TLS only"
        }
        "28000" if message.contains("pg_hba.conf") => {
            "add a line for this user, database and address to the server's pg_hba.conf"
        }
        "08P01" if message.contains("startup parameter") => {
            "remove `options` from GUESTLANE_DATABASE_URL, or configure the pool to ignore it (PgBouncer: ignore_startup_parameters)"
        }
        code if code.starts_with("28") || code.starts_with("3D") => {
            "correct the user, password and database in GUESTLANE_DATABASE_URL"
        }
        "3F000" => "create the schema that GUESTLANE_DATABASE_URL names as search_path",
        "42501" => "grant the user CREATE on the schema, and the privileges on its tables",
        _ => "check the log of the database; then repeat the request with the same key",
    }
}
