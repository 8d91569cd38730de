//! Cause and fix of a failed call, from the response of the platform.

use guestlane::error::SessionOutcome;
use guestlane_genesys::{AttemptError, CallError, ErrorResponse, Operation};
use guestlane_runtime::tls_error;
use http::StatusCode;

/// Returns the cause of a failed call, and the fix with what happens to the session.
pub(super) fn cause_and_fix(failed: &CallError, then: SessionOutcome) -> (String, String) {
    let (cause, fix) = match failed.root_cause().refusal() {
        Some(refusal) => refusal_cause_and_fix(refusal, failed),
        None => failure_cause_and_fix(failed),
    };
    let then = match then {
        SessionOutcome::NothingCreated => "; nothing was created",
        SessionOutcome::WillComplete => {
            "; the session is recorded: a request with the same key, or `guestlane sessions resume`, completes it"
        }
        SessionOutcome::Rejected => "; then repeat the request with the same key",
    };
    (cause, format!("{fix}{then}"))
}

/// The cause and fix if the platform knows the idempotency key from another request. Nothing is
/// repeated then.
pub(super) fn idempotency_conflict(failed: &CallError) -> (String, String) {
    (
        format!(
            "another state directory or program, or an erased guest's session, already used this key on the platform: {}",
            failed.root_cause().redacted()
        ),
        "the session exists: use the state directory that created it; for a new session use a new key".to_owned(),
    )
}

fn refusal_cause_and_fix(refusal: &ErrorResponse, failed: &CallError) -> (String, String) {
    let operation = failed.operation;
    let (cause, fix): (&str, &str) = if failed.is_sign_in()
        || refusal.status == StatusCode::UNAUTHORIZED
    {
        (
            "OAuth authentication failed",
            "verify client credentials and scopes (GENESYS_CLIENT_ID, GENESYS_CLIENT_SECRET; Admin > Integrations > OAuth, in this region)",
        )
    } else if refusal.is_expired_guest_token() {
        (
            "the platform rejected a new guest token as expired",
            "set this machine's clock (a token is valid for five minutes)",
        )
    } else if refusal.status.is_redirection() {
        (
            "the platform responded with a redirect",
            "check GENESYS_ORG_DOMAIN (or GENESYS_BASE_URL): redirects are not followed",
        )
    } else if let Some(code) = refusal.guest_api_code() {
        guest_api_cause_and_fix(code)
    } else if let Some(specific) = public_api_cause_and_fix(refusal, operation) {
        specific
    } else if refusal.is_guest_token() {
        (
            "the platform rejected the guest token",
            "register the public key (`guestlane signing-keys export`) under its kid in Messaging > Security > Guest Token Keys",
        )
    } else {
        let fix = if refusal.status == StatusCode::FORBIDDEN {
            permission_fix(operation)
        } else {
            "correct the request; `-vv` shows the shape of what was sent".to_owned()
        };
        return (refusal.to_string(), fix);
    };
    (format!("{cause}: {refusal}"), fix.to_owned())
}

fn permission_fix(operation: Operation) -> String {
    match operation {
        Operation::Queue | Operation::Contact | Operation::OpenConversation => {
            "grant the OAuth client the scopes externalcontacts:create and conversations:messaging, and check the queue ID".to_owned()
        }
        operation => format!(
            "grant {} to a role of the OAuth client, in the affected division; `guestlane doctor` checks all permissions",
            operation.permissions().join(" or ")
        ),
    }
}

/// The cause and fix of a failure without a refusal of the platform.
fn failure_cause_and_fix(failed: &CallError) -> (String, String) {
    let cause = failed.root_cause();
    let (cause, fix) = match cause {
        AttemptError::Throttled { .. } => (
            "the platform's rate limit was reached, by this or another program with the same OAuth client".to_owned(),
            "lower GUESTLANE_PLATFORM_RATE_LIMIT, or give GENESYS_CLIENT_ID another OAuth client",
        ),
        AttemptError::RateLimitTimeout => (
            "more calls wait for the rate limiter than the rate limit allows before the deadline".to_owned(),
            "raise GUESTLANE_SESSION_TIMEOUT, give GENESYS_CLIENT_ID another OAuth client, or raise GUESTLANE_PLATFORM_RATE_LIMIT if the platform allows more",
        ),
        AttemptError::NotSent(reason) if reason.contains(tls_error::CERTIFICATE) => (
            format!("the platform's certificate is not trusted: {reason}"),
            "for a private certificate authority set GENESYS_CA_FILE to its certificate in PEM",
        ),
        AttemptError::Local(reason) => (
            format!("this machine cannot open a connection: {reason}"),
            "raise the limit of open files (`ulimit -n`, LimitNOFILE=), or run fewer sessions concurrently",
        ),
        AttemptError::NotSent(reason) => (
            format!("the platform cannot be reached: {reason}"),
            "check GENESYS_ORG_DOMAIN or GENESYS_REGION (or GENESYS_BASE_URL), DNS and firewall; HTTP proxies are not supported",
        ),
        AttemptError::NotReady(_) if failed.operation == Operation::Details => (
            "the platform accepted the guest's first message, and does not show its conversation yet".to_owned(),
            "if it never appears: the deployment or integration needs an inbound message flow, and a Presence event may not open a conversation (set GENESYS_FIRST_MESSAGE to a text for later sessions; the message of this session is not sent again)",
        ),
        AttemptError::NotReady(_) => (
            "the platform does not show the conversation's participants yet".to_owned(),
            "no change is needed",
        ),
        AttemptError::OutcomeUnknown { reason, .. } => (reason.clone(), "no change is needed"),
        AttemptError::Unauthorized(_)
        | AttemptError::Rejected(_)
        | AttemptError::AuthenticationFailed(_)
        | AttemptError::Failover(_) => (cause.to_string(), "correct the request"),
    };
    (cause, fix.to_owned())
}

const CHECK_DEPLOYMENT: &str =
    "check GENESYS_DEPLOYMENT_ID, its status and GENESYS_REGION (`guestlane doctor`)";

/// The cause and fix of an error of the guest socket (docs/platform.md#guest-codes).
fn guest_api_cause_and_fix(code: &str) -> (&'static str, &'static str) {
    match code {
        "4006" | "4007" => (
            "the guest's session on the platform has ended",
            "no message was sent in it",
        ),
        "409" => (
            "the guest's conversation was ended",
            "no message was sent in it",
        ),
        "4013" => (
            "the attributes are too large for the platform",
            "shorten the attributes",
        ),
        "4011" => (
            "the first message is too long for the platform",
            "shorten GENESYS_FIRST_MESSAGE",
        ),
        "403" => (
            "the deployment does not allow the request",
            CHECK_DEPLOYMENT,
        ),
        _ => ("the guest API rejected the request", CHECK_DEPLOYMENT),
    }
}

/// The cause and fix of refusals that only operations of the public platform have.
fn public_api_cause_and_fix(
    refusal: &ErrorResponse,
    operation: Operation,
) -> Option<(&'static str, &'static str)> {
    match (operation, refusal.status) {
        (Operation::FirstMessage, StatusCode::FORBIDDEN) => Some((
            "the deployment does not allow this origin",
            "set GENESYS_ORIGIN to one of its allowed domains, or allow the domain in Admin > Message > Messenger Deployments",
        )),
        (Operation::FirstMessage, _) => Some((
            "the guest WebSocket rejected the connection",
            CHECK_DEPLOYMENT,
        )),
        (Operation::OpenMessage, StatusCode::NOT_FOUND) => Some((
            "the integration does not exist",
            "check GENESYS_INTEGRATION_ID (`guestlane doctor`)",
        )),
        (Operation::EnrichContact | Operation::CreateContact, StatusCode::CONFLICT) => Some((
            "an identifier of the guest belongs to another contact",
            "search External Contacts for the guest's ID, e-mail and telephone number, and merge the contacts or release the identifier",
        )),
        (
            Operation::LinkContact | Operation::MoveToQueue,
            StatusCode::NOT_FOUND | StatusCode::CONFLICT,
        ) => Some((
            "the conversation, its contact or its participant does not exist, or no longer exists",
            "check the conversation in the organization (`guestlane sessions show` shows its ID); the step is retried",
        )),
        (Operation::EnrichContact, _) if refusal.message.mentions("source") => Some((
            "the external source does not exist",
            "check GENESYS_EXTERNAL_SOURCE_ID: the ID of a source in Admin > External Contacts > External Sources",
        )),
        _ => None,
    }
}
