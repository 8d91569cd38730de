//! The pretended organization: its contacts and conversations, who may do what, and what was asked before.

use std::{collections::HashMap, time::Duration};

use aws_lc_rs::digest;
use bytes::Bytes;
use guestlane_genesys::{NewContact, NewConversation, Timestamp};
use http::{HeaderMap, Response, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use uuid::Uuid;

use crate::{
    answer::{self, Body, Refusal},
    guest_token::GuestKeys,
    options::{KEY_LIFE, MAX_ATTRIBUTES, OAuthClient, Options, SCOPE_CONTACTS, SCOPE_CONVERSATIONS},
    route::{Route, Target},
};

/// All that the platform remembers.
#[derive(Debug)]
pub(crate) struct Organization {
    options: Options,
    pub(crate) guest_keys: GuestKeys,
    tokens: HashMap<String, Token>,
    windows: HashMap<String, Window>,
    keys: HashMap<String, Remembered>,
    /// Contacts by address: the guest id, and how many there are.
    contacts: HashMap<String, Contact>,
    next_id: u64,
    pub(crate) tokens_issued: u64,
    pub(crate) throttled: u64,
}

#[derive(Debug)]
struct Token {
    client: usize,
    expires_at: Timestamp,
}

/// A quota's window: it begins with the first call after the one before has passed.
#[derive(Debug, Clone, Copy)]
struct Window {
    began: Timestamp,
    calls: u32,
}

/// What was answered under an `Idempotency-Key`.
#[derive(Debug)]
struct Remembered {
    request: [u8; 32],
    body: Bytes,
    at: Timestamp,
}

#[derive(Debug, Default)]
struct Contact {
    guest_id: String,
    contacts: u64,
    conversations: u64,
}

/// The quota as the platform tells it with each answer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RateHeaders {
    pub(crate) count: u32,
    pub(crate) allowed: u32,
    pub(crate) reset: u64,
}

/// What exists, and what exists more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Duplicates {
    /// Contacts beyond a guest's first.
    pub contacts: u64,
    /// Conversations beyond a guest's first.
    pub conversations: u64,
    /// The guests concerned, at most 100.
    pub guests: Vec<GuestCounts>,
}

/// One guest's share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestCounts {
    /// The guest.
    pub guest_id: String,
    /// Contacts under the guest's address.
    pub contacts: u64,
    /// Conversations under the guest's address.
    pub conversations: u64,
}

impl Organization {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            options,
            guest_keys: GuestKeys::default(),
            tokens: HashMap::new(),
            windows: HashMap::new(),
            keys: HashMap::new(),
            contacts: HashMap::new(),
            next_id: 0,
            tokens_issued: 0,
            throttled: 0,
        }
    }

    /// Ids are counted, not drawn: the same run has the same ids.
    fn new_id(&mut self) -> Uuid {
        self.next_id += 1;
        Uuid::from_u64_pair(0x0a11_0000_0000_4000 | (self.options.seed & 0xffff) << 32, (1 << 63) | self.next_id)
    }

    pub(crate) fn contacts(&self) -> u64 {
        self.contacts.values().map(|contact| contact.contacts).sum()
    }

    pub(crate) fn conversations(&self) -> u64 {
        self.contacts.values().map(|contact| contact.conversations).sum()
    }

    pub(crate) fn guests(&self) -> u64 {
        self.contacts.len() as u64
    }

    pub(crate) fn duplicates(&self) -> Duplicates {
        let mut found = Duplicates::default();
        for contact in self.contacts.values().filter(|contact| contact.contacts > 1 || contact.conversations > 1) {
            found.contacts += contact.contacts.saturating_sub(1);
            found.conversations += contact.conversations.saturating_sub(1);
            found.guests.push(GuestCounts {
                guest_id: contact.guest_id.clone(),
                contacts: contact.contacts,
                conversations: contact.conversations,
            });
        }
        found.guests.sort_by(|a, b| a.guest_id.cmp(&b.guest_id));
        found.guests.truncate(100);
        found
    }

    /// Every access token issued so far is good no longer.
    pub(crate) fn revoke_tokens(&mut self) {
        self.tokens.clear();
    }

    /// `POST /api/v2/oauth/token` by form fields (R1).
    pub(crate) fn token(&mut self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Response<Body> {
        let refuse = |status, error: &str, text: &str| {
            answer::json(status, &json!({"error": error, "description": text, "error_description": text}))
        };
        if !has_type(headers, "application/x-www-form-urlencoded") {
            return refuse(StatusCode::BAD_REQUEST, "invalid_request", "the body is not a form");
        }
        let form: HashMap<_, _> = form_fields(body).collect();
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        if field("grant_type") != "client_credentials" {
            return refuse(StatusCode::BAD_REQUEST, "unsupported_grant_type", "grant_type is not client_credentials");
        }
        let client = self.options.clients.iter().position(|client| client.id == field("client_id"));
        let client = client.filter(|client| self.options.clients[*client].secret == field("client_secret"));
        let Some(client) = client else {
            return refuse(StatusCode::UNAUTHORIZED, "invalid_client", "authentication failed");
        };
        self.tokens_issued += 1;
        let token = format!("sim-{}", self.new_id().simple());
        self.tokens.insert(token.clone(), Token { client, expires_at: now + self.options.token_life });
        let life = self.options.token_life.as_secs();
        answer::json(StatusCode::OK, &json!({"access_token": token, "token_type": "bearer", "expires_in": life}))
    }

    /// Everything behind an access token.
    pub(crate) fn api(
        &mut self,
        route: Route,
        target: Target,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> (Result<Response<Body>, Refusal>, RateHeaders) {
        let client = match self.client(headers, now) {
            Ok(client) => self.options.clients[client].clone(),
            Err(refusal) => return (Err(refusal), RateHeaders::default()),
        };
        let (rate, room) = self.count_call(&client.id, now);
        if !room {
            self.throttled += 1;
            return (Err(Refusal::too_many_requests(rate.reset)), rate);
        }
        let answer = match (route, target) {
            (Route::Queue, Target::Queue(id)) => self.queue(id),
            (Route::Queue, Target::NotAnId | Target::None) => Err(Refusal::bad_request("The queue id is not a UUID.")),
            (Route::Contact, _) => self.once(&client, SCOPE_CONTACTS, route, headers, body, now, Self::create_contact),
            (Route::Conversation, _) => {
                self.once(&client, SCOPE_CONVERSATIONS, route, headers, body, now, Self::create_conversation)
            }
            (Route::Token | Route::Crm, _) => Err(Refusal::not_found()),
        };
        (answer, rate)
    }

    fn client(&self, headers: &HeaderMap, now: Timestamp) -> Result<usize, Refusal> {
        let unauthorized = |code, message: &str| Refusal::new(StatusCode::UNAUTHORIZED, code, message);
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = bearer.and_then(|value| value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("bearer ")));
        let bearer =
            bearer.ok_or_else(|| unauthorized("authentication.required", "No authentication bearer token specified."))?;
        match self.tokens.get(bearer) {
            None => Err(unauthorized("bad.credentials", "Invalid login credentials.")),
            Some(token) if token.expires_at <= now => Err(unauthorized("credentials.expired", "The access token has expired.")),
            Some(token) => Ok(token.client),
        }
    }

    fn count_call(&mut self, client: &str, now: Timestamp) -> (RateHeaders, bool) {
        let Some(rate) = self.options.quota else { return (RateHeaders::default(), true) };
        let fresh = Window { began: now, calls: 0 };
        if !self.windows.contains_key(client) {
            self.windows.insert(client.to_owned(), fresh);
        }
        let Some(window) = self.windows.get_mut(client) else { return (RateHeaders::default(), true) };
        if now.since(window.began) >= rate.window() {
            *window = fresh;
        }
        let room = window.calls < rate.calls();
        window.calls += u32::from(room);
        let left = rate.window().saturating_sub(now.since(window.began));
        let reset = left.max(Duration::from_micros(1)).as_micros().div_ceil(1_000_000);
        (RateHeaders { count: window.calls, allowed: rate.calls(), reset: u64::try_from(reset).unwrap_or(1) }, room)
    }

    fn queue(&self, id: Uuid) -> Result<Response<Body>, Refusal> {
        let queue = self.options.queues.iter().find(|queue| queue.id == id).ok_or_else(Refusal::not_found)?;
        Ok(answer::json(
            StatusCode::OK,
            &json!({"id": queue.id, "name": queue.name, "selfUri": format!("/api/v2/routing/queues/{id}")}),
        ))
    }

    /// The door in front of what creates: permission, then the memory of `Idempotency-Key`, then the work. A remembered key is
    /// answered before the body is looked at: what was good once may have expired since.
    #[expect(clippy::too_many_arguments, reason = "a request is what it is")]
    fn once(
        &mut self,
        client: &OAuthClient,
        scope: &str,
        route: Route,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
        create: fn(&mut Self, &[u8], Timestamp) -> Result<serde_json::Value, Refusal>,
    ) -> Result<Response<Body>, Refusal> {
        if !client.scopes.iter().any(|have| have == scope) {
            let message = format!("Unable to perform the requested action. You are missing the following permission(s): {scope}");
            return Err(Refusal::new(StatusCode::FORBIDDEN, "missing.any.permissions", message));
        }
        if !has_type(headers, "application/json") {
            let message = "The Content-Type is not application/json.";
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported.media.type", message));
        }
        let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok()).filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| Refusal::bad_request("The header Idempotency-Key is missing."))?;
        let request = hash(route, body);
        // The memory is the organization's, whichever of its clients asks.
        if let Some(known) = self.keys.get(key)
            && now.since(known.at) < KEY_LIFE
        {
            if known.request != request {
                let message = "The Idempotency-Key was used for another request.";
                return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency.key.reused", message));
            }
            return Ok(answer::bytes(StatusCode::OK, "application/json", known.body.clone()));
        }
        let made = Bytes::from(create(self, body, now)?.to_string());
        self.keys.insert(key.to_owned(), Remembered { request, body: made.clone(), at: now });
        Ok(answer::bytes(StatusCode::OK, "application/json", made))
    }

    fn create_contact(&mut self, body: &[u8], now: Timestamp) -> Result<serde_json::Value, Refusal> {
        let new: NewContact<'_> = parse(body)?;
        let guest_id = new.external_contact_id.as_ref();
        if new.kind != NewContact::TYPE {
            return Err(Refusal::bad_request("type is not webchat."));
        }
        if guest_id.is_empty() || new.address != guestlane_genesys::guest_address(guest_id) {
            return Err(Refusal::bad_request("address is not guest-<externalContactId>."));
        }
        let size = new.custom_attributes.attributes.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if size > MAX_ATTRIBUTES {
            let message = format!("customAttributes are too large: {size} bytes. Maximum bytes: {MAX_ATTRIBUTES}");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "custom.attributes.too.large", message));
        }
        self.guest_keys.check(&new.custom_attributes.guest_token, guest_id, now)?;
        let contact = self.contacts.entry(new.address.to_string()).or_default();
        contact.guest_id = guest_id.to_owned();
        contact.contacts += 1;
        let id = self.new_id();
        Ok(json!({
            "id": id, "type": new.kind, "address": new.address, "externalContactId": guest_id,
            "selfUri": format!("/api/v2/externalcontacts/contacts/{id}"),
        }))
    }

    fn create_conversation(&mut self, body: &[u8], now: Timestamp) -> Result<serde_json::Value, Refusal> {
        let new: NewConversation<'_> = parse(body)?;
        let queue = new.routing_data.queue_id;
        if !self.options.queues.iter().any(|known| known.id == queue) {
            // The brief: «403 … or the queue ID does not exist in the organization».
            let message = format!("The queue {queue} does not exist in the organization.");
            return Err(Refusal::new(StatusCode::FORBIDDEN, "not.authorized", message));
        }
        if new.custom_attributes.routing_target != queue {
            return Err(Refusal::bad_request("customAttributes.routingTarget is not routingData.queueId."));
        }
        let contact = self.contacts.get_mut(new.contact_id.as_ref());
        let contact = contact.ok_or_else(|| Refusal::bad_request("contactId is not the address of a contact."))?;
        self.guest_keys.check(&new.custom_attributes.session_token, &contact.guest_id, now)?;
        contact.conversations += 1;
        let id = self.new_id();
        Ok(json!({"id": id, "selfUri": format!("/api/v2/conversations/{id}")}))
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("The body is not what this operation takes: {error}")))
}

fn has_type(headers: &HeaderMap, wanted: &str) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    given.split(';').next().is_some_and(|given| given.trim().eq_ignore_ascii_case(wanted))
}

fn hash(route: Route, body: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(route.name().as_bytes());
    context.update(body);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

fn form_fields(body: &[u8]) -> impl Iterator<Item = (String, String)> {
    url::form_urlencoded::parse(body).map(|(name, value)| (name.into_owned(), value.into_owned()))
}
