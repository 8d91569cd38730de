//! Checks of the OAuth client's permissions, by requests without effect.

use guestlane::messaging::MessagingConfig;
use guestlane_core::surface::Surface;
use guestlane_genesys::{ApiPath, Operation};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    super::{CheckStatus, Finding},
    Probe, is_failing, of_error, refused, response_excerpt,
};

/// Statuses with which the platform answers a permitted call on an object that does not exist.
const PERMISSION_GRANTED_STATUSES: [StatusCode; 3] = [
    StatusCode::NOT_FOUND,
    StatusCode::CONFLICT,
    StatusCode::UNPROCESSABLE_ENTITY,
];

/// An ID that no object has.
pub(super) const NONEXISTENT_ID: Uuid = Uuid::from_u128(0x00d0_c70f_0000_4000_8000_0000_0000_0000);

/// Returns a call that needs the permission of the operation and has nothing to act on.
fn harmless(operation: Operation, cloud: &MessagingConfig) -> Option<(Method, ApiPath, Value)> {
    const NOWHERE: &str = "guestlane-doctor@guestlane.invalid";
    let nonexistent_id = NONEXISTENT_ID.to_string();
    let identifier = json!({"type": "Email", "value": NOWHERE});
    Some(match operation {
        Operation::EnrichContact => {
            let identifiers = match cloud.external_source {
                Some(id) => {
                    json!([{"type": "ExternalId", "value": "guestlane-doctor", "externalSource": {"id": id}}])
                }
                None => json!([identifier]),
            };
            let body =
                json!({"matchingIdentifiers": identifiers, "action": "Upsert", "contact": {}});
            (
                Method::POST,
                ApiPath::new("/api/v2/externalcontacts/contacts/enrich?dryRun=true"),
                body,
            )
        }
        Operation::FindContact => (
            Method::POST,
            ApiPath::new("/api/v2/externalcontacts/identifierlookup/contacts"),
            identifier,
        ),
        Operation::OpenMessage => {
            let path = ApiPath::new("/api/v2/conversations/messages")
                .segment(&nonexistent_id)
                .then("/inbound/open/message?prefetchConversationId=true");
            let from = json!({"id": nonexistent_id, "idType": "Opaque"});
            let channel = json!({"from": from, "time": "2026-01-01T00:00:00.000Z", "messageId": nonexistent_id});
            (
                Method::POST,
                path,
                json!({"channel": channel, "text": "guestlane doctor"}),
            )
        }
        Operation::Details => {
            let message = NONEXISTENT_ID.simple();
            (
                Method::GET,
                ApiPath::new("/api/v2/conversations/messages")
                    .segment(message)
                    .then("/details"),
                Value::Null,
            )
        }
        Operation::Conversation => (
            Method::GET,
            ApiPath::new("/api/v2/conversations").segment(&nonexistent_id),
            Value::Null,
        ),
        Operation::LinkContact => {
            let body = json!({
                "externalContactId": nonexistent_id, "conversationId": nonexistent_id, "communicationId": nonexistent_id, "mediaType": "MESSAGE",
            });
            (
                Method::PUT,
                ApiPath::new("/api/v2/externalcontacts/conversations").segment(&nonexistent_id),
                body,
            )
        }
        Operation::MoveToQueue => {
            let path = ApiPath::new("/api/v2/conversations")
                .segment(&nonexistent_id)
                .then("/participants")
                .segment(&nonexistent_id)
                .then("/replace/queue");
            (Method::POST, path, json!({"queueId": nonexistent_id}))
        }
        // No call can check the permission to create a contact without creating one.
        Operation::CreateContact
        | Operation::Token
        | Operation::Queue
        | Operation::Contact
        | Operation::OpenConversation
        | Operation::FirstMessage
        | Operation::Probe => return None,
    })
}

pub(super) fn grant(operation: Operation) -> String {
    format!(
        "add {} to a role of the OAuth client, in the division concerned (Admin > Integrations > \
         OAuth > Roles)",
        operation.permissions().join(" or ")
    )
}

impl Probe<'_> {
    /// Probes each permission with a call that has nothing to act on. A response of 404, 409 or 422
    /// shows that the client has the permission, 403 that it does not. A 400 decides nothing,
    /// because the request was validated first.
    pub(super) async fn permissions(&self) -> Vec<Finding> {
        let cloud = &self.config.messaging;
        let mut wanted = vec![Operation::EnrichContact, Operation::FindContact];
        if cloud.external_source.is_none() {
            wanted.push(Operation::CreateContact);
        }
        if matches!(self.config.surface, Surface::OpenMessaging { .. }) {
            wanted.push(Operation::OpenMessage);
        }
        wanted.push(Operation::Details);
        if cloud.link_contact || cloud.move_to_queue {
            wanted.push(Operation::Conversation);
        }
        if cloud.link_contact {
            wanted.push(Operation::LinkContact);
        }
        if cloud.move_to_queue {
            wanted.push(Operation::MoveToQueue);
        }
        let mut findings = Vec::new();
        for operation in wanted {
            findings.push(self.permission(operation).await);
        }
        findings
    }

    async fn permission(&self, operation: Operation) -> Finding {
        let check = format!("permission to {operation}");
        let names = operation.permissions().join(" or ");
        let Some((method, path, body)) = harmless(operation, &self.config.messaging) else {
            let result = format!("{names}: no call can check it without creating an object");
            return Finding::new(check, CheckStatus::Skipped, result);
        };
        let seen = match method {
            Method::GET => self.platform.probe_get(path, &self.context()).await,
            method => {
                self.platform
                    .probe(method, path, &body, &self.context())
                    .await
            }
        };
        match seen {
            // The contact lookup is called only after an upsert ended in a conflict, so a missing
            // permission is a warning.
            Ok(seen)
                if seen.status == StatusCode::FORBIDDEN && operation == Operation::FindContact =>
            {
                Finding {
                    outcome: CheckStatus::Warning,
                    ..refused(&check, &seen)
                }
                .fix(grant(operation))
            }
            Ok(seen) if is_failing(&seen) => Finding::new(
                check,
                CheckStatus::Skipped,
                format!("unknown: {}", response_excerpt(&seen)),
            )
            .fix("run `guestlane doctor` again in a minute")
            .correlated(seen.correlation_id.as_deref()),
            Ok(seen) if seen.status == StatusCode::FORBIDDEN => {
                refused(&check, &seen).fix(grant(operation))
            }
            Ok(seen)
                if seen.status.is_success()
                    || PERMISSION_GRANTED_STATUSES.contains(&seen.status) =>
            {
                Finding::good(check, names)
            }
            Ok(seen) if seen.status == StatusCode::BAD_REQUEST => Finding::new(
                check,
                CheckStatus::Skipped,
                format!(
                    "{names}: unknown, because the request failed with {}",
                    response_excerpt(&seen)
                ),
            ),
            Ok(seen) => refused(&check, &seen),
            Err(error) => of_error(&check, &error),
        }
    }
}
