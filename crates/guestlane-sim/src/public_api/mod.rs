//! The operations of the public platform: routing, authorization and dispatch of HTTP requests.

mod contact;
mod contacts;
mod conversations;
mod deployment;
mod flow;
pub(crate) mod guest;
mod oauth_server;
mod open_messaging;

use guestlane_genesys::CreateContactRequest;
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
    route::Op,
    simulation::Incoming,
};

/// Whether the operation belongs to the surface `rest`, which the public platform does not have.
/// For a contact the body decides, so that unknown headers do not change how it is served.
pub(crate) fn is_gateway(op: Op, request: &Incoming) -> bool {
    match op {
        Op::BriefToken | Op::BriefConversation => true,
        Op::Contact => {
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let has = |field: &str| !body[field].is_null();
            body["type"] == CreateContactRequest::TYPE
                || has("customAttributes")
                || has("externalContactId")
        }
        _ => false,
    }
}

/// The permissions of which one is required. An error response names the first.
fn needed(op: Op, brief: bool, with_brief: bool) -> &'static [&'static str] {
    match op {
        // Requirement R14 names no permission for it, and R18 only two others
        // (docs/requirements.md): a client of the surface `rest` may have no more than those.
        Op::Queue | Op::Queues if !with_brief => &["routing:queue:view"],
        Op::Queue | Op::Queues => &["routing:queue:view", SCOPE_CONTACTS, SCOPE_CONVERSATIONS],
        Op::Contact if brief => &[SCOPE_CONTACTS],
        Op::BriefConversation => &[SCOPE_CONVERSATIONS],
        Op::Contact => &["externalContacts:contact:add", "relate:contact:add"],
        Op::Enrich => &["externalContacts:contact:enrich"],
        Op::ContactRead | Op::Lookup => &["externalContacts:contact:view", "relate:contact:view"],
        Op::Link => &["externalContacts:conversation:associate"],
        Op::Source => &["externalContacts:externalSource:view"],
        Op::Details => &[
            "conversation:message:view",
            "conversation:webmessaging:view",
        ],
        Op::ConversationRead => &["conversation:communication:view"],
        Op::Transfer => &["conversation:communication:blindTransfer"],
        Op::OpenMessage => &["conversation:message:receive"],
        Op::Integration => &["messaging:integration:view"],
        _ => &[],
    }
}

impl Organization {
    /// Runs the operation.
    pub(crate) fn answer(
        &mut self,
        op: Op,
        ids: &[String],
        request: &Incoming,
        now: Timestamp,
    ) -> (Result<Response<Body>, Refusal>, RateHeaders) {
        let (headers, body, query) = (&request.headers, &request.body, request.query.as_deref());
        let id = ids.first().map(String::as_str).unwrap_or_default();
        let answer = match op {
            Op::BriefToken => Ok(self.brief_token(headers, body, now)),
            Op::Token => Ok(self.token(headers, body, now)),
            Op::Config => Ok(self.config(id)),
            Op::Domains => Ok(self.domains(id)),
            Op::History => self.history(headers, query, now),
            Op::Exchange => json(request).and_then(|()| self.exchange(body, now)),
            Op::Refresh => json(request).and_then(|()| self.refresh(body, now)),
            Op::Revoke => self.revoke(headers, now),
            Op::Upload => self.upload(id, query, headers, body, now),
            Op::Download => self.download(id, query, now),
            Op::Socket => self.upgrade(headers, query, now),
            _ => return self.behind_a_token(op, ids, request, now),
        };
        (answer, RateHeaders::default())
    }

    /// Checks the access token, the rate limit and the permission, then runs the operation.
    fn behind_a_token(
        &mut self,
        op: Op,
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
        let with_brief = self.options.brief;
        let brief = with_brief && is_gateway(op, request);
        let permitted = |()| self.permitted(client, needed(op, brief, with_brief));
        (
            room.and_then(permitted)
                .and_then(|()| self.work(op, ids, request, client, brief, now)),
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
        op: Op,
        ids: &[String],
        request: &Incoming,
        client: usize,
        brief: bool,
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        let (headers, body, query) = (&request.headers, &request.body, request.query.as_deref());
        let id = |at: usize| ids.get(at).map(String::as_str).unwrap_or_default();
        let is = |name, value| deployment::parameter(query, name).as_deref() == Some(value);
        match op {
            Op::Queue => return self.queue(id(0)),
            Op::Queues => return self.list_queues(query),
            Op::ContactRead => return self.read_contact(id(0)),
            Op::Details => return self.details(id(0), now),
            Op::ConversationRead => return self.read_conversation(id(0), now),
            Op::Integration => return self.integration(id(0)),
            Op::Source => return self.source(id(0)),
            Op::Limits => return self.limits(id(0)),
            Op::TokenInfo | Op::TokenHead => return Ok(self.token_info(client)),
            _ => json(request)?,
        }
        match op {
            Op::Contact if brief => self.brief_contact(headers, body, now),
            Op::Contact => self.create_official_contact(body, now),
            Op::Enrich => self.enrich_contact(body, is("dryRun", "true"), now),
            Op::Lookup => self.look_up_contact(body),
            Op::Link => self.link(id(0), body, now),
            Op::Attributes => self.set_attributes(id(0), id(1), body),
            Op::Transfer => self.transfer(id(0), id(1), body, now),
            Op::OpenMessage => {
                self.open_message(id(0), body, is("prefetchConversationId", "true"), now)
            }
            Op::BriefConversation => self.brief_conversation(headers, body, now),
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
