//! The operations of the platform: permissions and dispatch of HTTP requests.

mod contacts;
mod conversations;
mod deployment;
mod gateway;
pub(crate) mod guest;
mod oauth;
mod open_messaging;

use guestlane_genesys::RegisterContactRequest;
use guestlane_runtime::Timestamp;
use http::{Response, StatusCode};
use serde_json::Value;

use crate::{
    options::{SCOPE_CONTACTS, SCOPE_CONVERSATIONS},
    organization::Organization,
    rate_window::RateHeaders,
    request::{Request, has_type, parameter},
    response::{Body, Refusal},
    route::Operation,
};

/// Whether the operation belongs to the surface `rest`, which the public platform does not have.
/// For a contact the body decides, so that unknown headers do not change how it is served.
pub(crate) fn is_gateway(op: Operation, request: &Request) -> bool {
    match op {
        Operation::GatewayToken | Operation::GatewayConversation => true,
        Operation::Contact => {
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let has = |field: &str| !body[field].is_null();
            body["type"] == RegisterContactRequest::TYPE
                || has("customAttributes")
                || has("externalContactId")
        }
        _ => false,
    }
}

/// The permissions of which one is required. An error response names the first.
#[deny(clippy::wildcard_enum_match_arm)]
fn required_permissions(
    op: Operation,
    gateway: bool,
    with_gateway: bool,
) -> &'static [&'static str] {
    match op {
        // Requirement R14 names no permission for it, and R18 only two others
        // (docs/requirements.md): a client of the surface `rest` may have no more than those.
        Operation::Queue | Operation::Queues if !with_gateway => &["routing:queue:view"],
        Operation::Queue | Operation::Queues => {
            &["routing:queue:view", SCOPE_CONTACTS, SCOPE_CONVERSATIONS]
        }
        Operation::Contact if gateway => &[SCOPE_CONTACTS],
        Operation::GatewayConversation => &[SCOPE_CONVERSATIONS],
        Operation::Contact => &["externalContacts:contact:add", "relate:contact:add"],
        Operation::Enrich => &["externalContacts:contact:enrich"],
        Operation::ContactRead | Operation::Lookup => {
            &["externalContacts:contact:view", "relate:contact:view"]
        }
        Operation::Link => &["externalContacts:conversation:associate"],
        Operation::Source => &["externalContacts:externalSource:view"],
        Operation::Details => &[
            "conversation:message:view",
            "conversation:webmessaging:view",
        ],
        Operation::ConversationRead => &["conversation:communication:view"],
        Operation::Transfer => &["conversation:communication:blindTransfer"],
        Operation::OpenMessage => &["conversation:message:receive"],
        Operation::Integration => &["messaging:integration:view"],
        Operation::Attributes | Operation::Limits | Operation::TokenInfo | Operation::TokenHead => {
            &[]
        }
        // These have no access token.
        Operation::GatewayToken
        | Operation::Token
        | Operation::Crm
        | Operation::Config
        | Operation::Domains
        | Operation::History
        | Operation::Exchange
        | Operation::Refresh
        | Operation::Revoke
        | Operation::Upload
        | Operation::Download
        | Operation::Socket => &[],
    }
}

impl Organization {
    /// Runs the operation. If it requires an access token, the token, the rate limit and the
    /// permission are checked first.
    pub(crate) fn answer(
        &mut self,
        op: Operation,
        ids: &[String],
        request: &Request,
        now: Timestamp,
    ) -> (Result<Response<Body>, Refusal>, RateHeaders) {
        let gateway = self.options.gateway && is_gateway(op, request);
        if !op.is_behind_a_token() {
            let answer = self.work(op, ids, request, None, gateway, now);
            return (answer, RateHeaders::default());
        }
        let client = match self.client(&request.headers, now) {
            Ok(client) => client,
            Err(refusal) => return (Err(refusal), RateHeaders::default()),
        };
        let (rate, room) = self.count_call(client, op.route(), now);
        let required = required_permissions(op, gateway, self.options.gateway);
        let answer = room
            .and_then(|()| self.check_permission(client, required))
            .and_then(|()| self.work(op, ids, request, Some(client), gateway, now));
        (answer, rate)
    }

    fn check_permission(&self, client: usize, required: &[&str]) -> Result<(), Refusal> {
        let granted = &self.options.clients[client].scopes;
        let has = |wanted: &&str| granted.iter().any(|have| have == wanted);
        match required.first() {
            Some(first) if !required.iter().any(has) => {
                let message = format!(
                    "Unable to perform the requested action. You are missing the following permission(s): {first}"
                );
                Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    "missing.any.permissions",
                    message,
                ))
            }
            _ => Ok(()),
        }
    }

    #[deny(clippy::wildcard_enum_match_arm)]
    fn work(
        &mut self,
        op: Operation,
        ids: &[String],
        request: &Request,
        client: Option<usize>,
        gateway: bool,
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        if takes_json(op) && !has_type(&request.headers, "application/json") {
            let message = "The Content-Type is not application/json.";
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported.media.type",
                message,
            ));
        }
        let (headers, body, query) = (&request.headers, &request.body, request.query.as_deref());
        let id = |at: usize| ids.get(at).map(String::as_str).unwrap_or_default();
        let has = |name| parameter(query, name).as_deref() == Some("true");
        match op {
            Operation::GatewayToken => Ok(self.gateway_token(headers, body, now)),
            Operation::Contact if gateway => self.gateway_contact(headers, body, now),
            Operation::GatewayConversation => self.gateway_conversation(headers, body, now),
            Operation::Token => Ok(self.token(headers, body, now)),
            Operation::TokenInfo | Operation::TokenHead => self.token_info(client),
            Operation::Queue => self.queue(id(0)),
            Operation::Queues => self.list_queues(query),
            Operation::Contact => self.create_contact(body, now),
            Operation::Enrich => self.enrich_contact(body, has("dryRun"), now),
            Operation::ContactRead => self.read_contact(id(0)),
            Operation::Lookup => self.look_up_contact(body),
            Operation::Link => self.link(id(0), body, now),
            Operation::Source => self.source(id(0)),
            Operation::Details => self.details(id(0), now),
            Operation::ConversationRead => self.read_conversation(id(0), now),
            Operation::Attributes => self.set_attributes(id(0), id(1), body),
            Operation::Transfer => self.transfer(id(0), id(1), body, now),
            Operation::Integration => self.integration(id(0)),
            Operation::OpenMessage => {
                self.open_message(id(0), body, has("prefetchConversationId"), now)
            }
            Operation::Limits => self.limits(id(0)),
            Operation::Config => Ok(self.config(id(0))),
            Operation::Domains => Ok(self.domains(id(0))),
            Operation::History => self.history(headers, query, now),
            Operation::Exchange => self.exchange(body, now),
            Operation::Refresh => self.refresh(body, now),
            Operation::Revoke => self.revoke(headers, now),
            Operation::Upload => self.upload(id(0), query, headers, body, now),
            Operation::Download => self.download(id(0), query, now),
            Operation::Socket => self.upgrade(headers, query, now),
            // The webhook receiver's, which is no part of the organization.
            Operation::Crm => Err(Refusal::not_found()),
        }
    }
}

/// Whether the operation has a JSON body.
fn takes_json(op: Operation) -> bool {
    matches!(
        op,
        Operation::Contact
            | Operation::Enrich
            | Operation::Lookup
            | Operation::Link
            | Operation::Attributes
            | Operation::Transfer
            | Operation::OpenMessage
            | Operation::GatewayConversation
            | Operation::Exchange
            | Operation::Refresh
    )
}
