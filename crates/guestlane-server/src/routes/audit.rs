//! `/v1/audit…`: the audit log's checkpoint, and its verification.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use guestlane::error::ErrorCode;
use guestlane_core::api_key::Scope;
use guestlane_runtime::text::display_chain;
use guestlane_store::{LogVerification, ReadLimits};
use http::StatusCode;

use crate::{
    auth::Authenticated,
    error_responses::{AuthErrors, NotFoundErrors},
    extract::json_response,
    model::{AuditProof, Checkpoint, ProvenLog},
    problem::Problem,
    service::App,
};

/// Get the checkpoint of the audit log
///
/// Returns the signed size and root hash of the current log. Store the checkpoint elsewhere: it
/// reveals any later change, removal or insertion among the records that it covers.
#[utoipa::path(
    get, path = "/v1/audit/checkpoint", tag = "audit", operation_id = "getCheckpoint",
    security(("apiKey" = ["sessions:read"])),
    responses((status = 200, description = "Checkpoint of the current log", body = Checkpoint), AuthErrors, NotFoundErrors),
)]
pub(crate) async fn checkpoint(
    State(app): State<App>,
    who: Authenticated,
) -> Result<Response, Problem> {
    who.require_scope(Scope::SessionsRead)?;
    let engine = app.engine();
    let logs = app
        .reads()
        .logs(engine.audit_log(), engine.audit_key())
        .await;
    let logs = logs.map_err(|error| app.problem(error))?;
    let nothing = || {
        Problem::new(
            ErrorCode::NotFound,
            "the audit log has no records yet",
            "create a session first",
        )
    };
    let log = logs
        .iter()
        .rfind(|log| !log.other_node)
        .or(logs.last())
        .ok_or_else(nothing)?;
    let answered = Checkpoint {
        log: log.log,
        origin: log.checkpoint.origin.clone(),
        size: log.checkpoint.size,
        root: log.checkpoint.root_base64(),
        note: engine.sign_checkpoint(&log.checkpoint),
        key: engine.audit_key().to_string(),
    };
    Ok(json_response(StatusCode::OK, &answered))
}

/// Verify the audit log
///
/// Reads all files line by line and compares them with the signed checkpoints and with the store.
/// This takes about a second per million records. One verification runs at a time; a further
/// request waits for its turn.
#[utoipa::path(
    post, path = "/v1/audit:verify", tag = "audit", operation_id = "verifyAudit",
    security(("apiKey" = ["admin"])),
    responses((status = 200,
        description = "Result of the verification: no record was changed, removed or added", body = AuditProof), AuthErrors),
)]
pub(crate) async fn verify(
    State(app): State<App>,
    who: Authenticated,
) -> Result<Response, Problem> {
    who.require_scope(Scope::Admin)?;
    // The verification task holds the lock, not the request: a client that disconnects must not
    // allow a second verification to start.
    let alone = Arc::clone(app.audit_verify_lock()).lock_owned().await;
    let started = app.clock().monotonic();
    let engine = Arc::clone(app.engine());
    let store = engine
        .store()
        .with_own_reads(ReadLimits::BULK)
        .map_err(|error| app.problem(error))?;
    let runtime = tokio::runtime::Handle::current();
    // It may read gigabytes, so it runs on a blocking thread and does not stall other requests.
    let checking = tokio::task::spawn_blocking(move || {
        let (_alone, clock) = (alone, engine.clock().clone());
        let key = engine.audit_key().clone();
        runtime.block_on(async move {
            guestlane_store::verify_all(&store, engine.audit_log(), &key, Vec::new(), &clock).await
        })
    });
    let defect = |_| {
        Problem::new(
            ErrorCode::InternalError,
            "the verification task failed",
            "retry",
        )
    };
    let checked = checking
        .await
        .map_err(defect)?
        .map_err(|error| app.problem(error))?;
    let logs = checked
        .into_iter()
        .map(proven)
        .collect::<Result<Vec<_>, _>>()?;
    let milliseconds = app.clock().monotonic().since(started).as_secs_f64() * 1000.0;
    Ok(json_response(
        StatusCode::OK,
        &AuditProof {
            verified: true,
            logs,
            milliseconds,
        },
    ))
}

fn proven((log, checked): LogVerification) -> Result<ProvenLog, Problem> {
    match checked {
        Ok(checkpoint) => {
            let root = checkpoint.root_base64();
            Ok(ProvenLog {
                log: log.log,
                size: checkpoint.size,
                root,
                origin: checkpoint.origin,
            })
        }
        Err(unproven) => {
            let fix = "keep the files unchanged; docs/audit.md describes how to find the change";
            Err(Problem::new(
                ErrorCode::AuditVerificationFailed,
                display_chain(&unproven),
                fix,
            ))
        }
    }
}
