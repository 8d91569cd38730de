//! Code, cause and fix of a failed call, from the response of the platform.

use super::{Diagnosis, ErrorCode, SessionOutcome};
use guestlane_genesys::{AttemptError, CallError, ErrorResponse, Operation};
use guestlane_runtime::tls_error;
use http::StatusCode;

/// The diagnosis of a failed call (requirement R18, docs/requirements.md), from the platform's
/// response.
pub(super) fn platform_advice(failed: &CallError, then: SessionOutcome) -> Diagnosis {
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
