//! The operations of the public platform: routing, authorization and dispatch of HTTP requests.

mod contact;
mod contacts;
mod conversations;
mod deployment;
mod flow;
pub(crate) mod guest;
mod oauth_server;
mod open_messaging;

use guestlane_genesys::RegisterContactRequest;
use guestlane_runtime::Timestamp;
use http::{Response, StatusCode};
use serde_json::Value;

pub(crate) use contacts::Contacts;
pub(crate) use flow::Conversations;
pub(crate) use guest::Guests;
pub(crate) use oauth_server::OAuthServer;

use crate::{
    options::{SCOPE_CONTACTS, SCOPE_CONVERSATIONS},
    organization::{Organization, has_type},
    rate_window::RateHeaders,
    response::{Body, Refusal},
    route::Operation,
    simulation::Incoming,
};

/// Whether the operation belongs to the surface `rest`, which the public platform does not have.
/// For a contact the body decides, so that unknown headers do not change how it is served.
pub(crate) fn is_gateway(op: Operation, request: &Incoming) -> bool {
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
fn needed(op: Operation, gateway: bool, with_gateway: bool) -> &'static [&'static str] {
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
        _ => &[],
    }
}

impl Organization {
    /// Runs the operation.
    pub(crate) fn answer(
        &mut self,
        op: Operation,
        ids: &[String],
        request: &Incoming,
        now: Timestamp,
    ) -> (Result<Response<Body>, Refusal>, RateHeaders) {
        let (headers, body, query) = (&request.headers, &request.body, request.query.as_deref());
        let id = ids.first().map(String::as_str).unwrap_or_default();
        let answer = match op {
            Operation::GatewayToken => Ok(self.gateway_token(headers, body, now)),
            Operation::Token => Ok(self.token(headers, body, now)),
            Operation::Config => Ok(self.config(id)),
            Operation::Domains => Ok(self.domains(id)),
            Operation::History => self.history(headers, query, now),
            Operation::Exchange => json(request).and_then(|()| self.exchange(body, now)),
            Operation::Refresh => json(request).and_then(|()| self.refresh(body, now)),
            Operation::Revoke => self.revoke(headers, now),
            Operation::Upload => self.upload(id, query, headers, body, now),
            Operation::Download => self.download(id, query, now),
            Operation::Socket => self.upgrade(headers, query, now),
            _ => return self.behind_a_token(op, ids, request, now),
        };
        (answer, RateHeaders::default())
    }

    /// Checks the access token, the rate limit and the permission, then runs the operation.
    fn behind_a_token(
        &mut self,
        op: Operation,
        ids: &[String],
        request: &Incoming,
        now: Timestamp,
    ) -> (Result<Response<Body>, Refusal>, RateHeaders) {
        let client = match self.client(&request.headers, now) {
            Ok(client) => client,
            Err(refusal) => return (Err(refusal), RateHeaders::default()),
        };
        let id = self.options.clients[client].id.clone();
        let (rate, room) = self.count_call(&id, op.route(), now);
        let with_gateway = self.options.gateway;
        let gateway = with_gateway && is_gateway(op, request);
        let permitted = |()| self.permitted(client, needed(op, gateway, with_gateway));
        (
            room.and_then(permitted)
                .and_then(|()| self.work(op, ids, request, client, gateway, now)),
            rate,
        )
    }

    fn permitted(&self, client: usize, needed: &[&str]) -> Result<(), Refusal> {
        let scopes = &self.options.clients[client].scopes;
        match needed.first() {
            Some(first)
                if !needed
                    .iter()
                    .any(|wanted| scopes.iter().any(|have| have == wanted)) =>
            {
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

    fn work(
        &mut self,
        op: Operation,
        ids: &[String],
        request: &Incoming,
        client: usize,
        gateway: bool,
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        let (headers, body, query) = (&request.headers, &request.body, request.query.as_deref());
        let id = |at: usize| ids.get(at).map(String::as_str).unwrap_or_default();
        let is = |name, value| deployment::parameter(query, name).as_deref() == Some(value);
        match op {
            Operation::Queue => return self.queue(id(0)),
            Operation::Queues => return self.list_queues(query),
            Operation::ContactRead => return self.read_contact(id(0)),
            Operation::Details => return self.details(id(0), now),
            Operation::ConversationRead => return self.read_conversation(id(0), now),
            Operation::Integration => return self.integration(id(0)),
            Operation::Source => return self.source(id(0)),
            Operation::Limits => return self.limits(id(0)),
            Operation::TokenInfo | Operation::TokenHead => return Ok(self.token_info(client)),
            _ => json(request)?,
        }
        match op {
            Operation::Contact if gateway => self.gateway_contact(headers, body, now),
            Operation::Contact => self.create_official_contact(body, now),
            Operation::Enrich => self.enrich_contact(body, is("dryRun", "true"), now),
            Operation::Lookup => self.look_up_contact(body),
            Operation::Link => self.link(id(0), body, now),
            Operation::Attributes => self.set_attributes(id(0), id(1), body),
            Operation::Transfer => self.transfer(id(0), id(1), body, now),
            Operation::OpenMessage => {
                self.open_message(id(0), body, is("prefetchConversationId", "true"), now)
            }
            Operation::GatewayConversation => self.gateway_conversation(headers, body, now),
            _ => Err(Refusal::not_found()),
        }
    }
}

fn json(request: &Incoming) -> Result<(), Refusal> {
    if has_type(&request.headers, "application/json") {
        return Ok(());
    }
    let message = "The Content-Type is not application/json.";
    Err(Refusal::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported.media.type",
        message,
    ))
}
