//! The state of the simulated organization, and the operations of the surface `rest`.

use std::collections::{BTreeMap, HashMap};

use aws_lc_rs::digest;
use bytes::Bytes;
use guestlane_genesys::{NewConversation, RegisterContactRequest, guest::event::attribute_bytes};
use guestlane_runtime::Timestamp;
use http::{HeaderMap, Response, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::json;
use uuid::Uuid;

use crate::{
    duplicates::DuplicateCounter,
    guest_token::GuestKeys,
    options::{IDEMPOTENCY_WINDOW, MAX_ATTRIBUTES, Options},
    public_api::{Contacts, Conversations, Guests, OAuthServer},
    response::{self, Body, Refusal},
    route::Route,
};

/// The state of the platform.
#[derive(Debug)]
pub(crate) struct Organization {
    pub(crate) options: Options,
    /// The base URL, such as `http://127.0.0.1:8970`.
    pub(crate) origin: String,
    pub(crate) guest_keys: GuestKeys,
    pub(crate) sign_in: OAuthServer,
    keys: HashMap<String, Remembered>,
    pub(crate) tally: DuplicateCounter,
    pub(crate) directory: Contacts,
    pub(crate) desk: Conversations,
    pub(crate) guests: Guests,
    /// The conversations of the surface `rest`. They wait in a queue, and no other operation finds
    /// them.
    waiting: BTreeMap<Uuid, u64>,
    next_id: u64,
}

/// The stored response of an `Idempotency-Key`.
#[derive(Debug)]
struct Remembered {
    request: [u8; 32],
    body: Bytes,
    at: Timestamp,
}

type Create = fn(&mut Organization, &[u8], Timestamp) -> Result<serde_json::Value, Refusal>;

impl Organization {
    pub(crate) fn new(options: Options, origin: String) -> Self {
        Self {
            options,
            origin,
            guest_keys: GuestKeys::default(),
            sign_in: OAuthServer::default(),
            keys: HashMap::new(),
            tally: DuplicateCounter::default(),
            directory: Contacts::default(),
            desk: Conversations::default(),
            guests: Guests::default(),
            waiting: BTreeMap::new(),
            next_id: 0,
        }
    }

    /// Returns a new ID. IDs are sequential, not random, so that the same run has the same IDs.
    pub(crate) fn new_id(&mut self) -> Uuid {
        self.next_id += 1;
        Uuid::from_u64_pair(
            0x0a11_0000_0000_4000 | (self.options.seed & 0xffff) << 32,
            (1 << 63) | self.next_id,
        )
    }

    /// Returns the number of waiting conversations by queue, including empty queues.
    pub(crate) fn queues(&self) -> BTreeMap<Uuid, u64> {
        let mut queues: BTreeMap<_, _> = self
            .options
            .queues
            .iter()
            .map(|queue| (queue.id, 0))
            .collect();
        let gateway = self
            .waiting
            .iter()
            .map(|(queue, waiting)| (*queue, *waiting));
        for (queue, waiting) in gateway.chain(self.desk.waiting().map(|queue| (queue, 1))) {
            *queues.entry(queue).or_default() += waiting;
        }
        queues
    }

    /// `POST /api/v2/externalcontacts/contacts` of the surface `rest` (requirement R4,
    /// docs/requirements.md).
    pub(crate) fn gateway_contact(
        &mut self,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        self.once(Route::Contact, headers, body, now, Self::create_contact)
    }

    /// `POST /api/v2/conversations/messaging` of the surface `rest` (requirement R5,
    /// docs/requirements.md).
    pub(crate) fn gateway_conversation(
        &mut self,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        self.once(
            Route::Conversation,
            headers,
            body,
            now,
            Self::create_conversation,
        )
    }

    /// Looks up the `Idempotency-Key` before it creates anything. A known key is answered from the
    /// stored response before the body is validated, because a valid body may have expired since.
    fn once(
        &mut self,
        route: Route,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
        create: Create,
    ) -> Result<Response<Body>, Refusal> {
        let key = headers
            .get("idempotency-key")
            .and_then(|value| value.to_str().ok())
            .filter(|key| !key.is_empty());
        let key =
            key.ok_or_else(|| Refusal::bad_request("The header Idempotency-Key is missing."))?;
        let request = hash(route, body);
        // All OAuth clients of the organization share the idempotency keys.
        if let Some(known) = self.keys.get(key)
            && now.since(known.at) < IDEMPOTENCY_WINDOW
        {
            if known.request != request {
                let message = "The Idempotency-Key was used for another request.";
                return Err(Refusal::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "idempotency.key.reused",
                    message,
                ));
            }
            return Ok(response::bytes(
                StatusCode::OK,
                "application/json",
                known.body.clone(),
            ));
        }
        let made = Bytes::from(create(self, body, now)?.to_string());
        self.keys.insert(
            key.to_owned(),
            Remembered {
                request,
                body: made.clone(),
                at: now,
            },
        );
        Ok(response::bytes(StatusCode::OK, "application/json", made))
    }

    fn create_contact(
        &mut self,
        body: &[u8],
        now: Timestamp,
    ) -> Result<serde_json::Value, Refusal> {
        let new: RegisterContactRequest<'_> = parse(body)?;
        let guest_id = new.external_contact_id.as_ref();
        if new.kind != RegisterContactRequest::TYPE {
            return Err(Refusal::bad_request("type is not webchat."));
        }
        if guest_id.is_empty() || new.address != guestlane_genesys::guest_address(guest_id) {
            return Err(Refusal::bad_request(
                "address is not guest-<externalContactId>.",
            ));
        }
        let size = attribute_bytes(&new.custom_attributes.attributes);
        if size > MAX_ATTRIBUTES {
            let message = format!(
                "customAttributes are too large: {size} bytes. Maximum bytes: {MAX_ATTRIBUTES}"
            );
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "custom.attributes.too.large",
                message,
            ));
        }
        self.guest_keys
            .check(&new.custom_attributes.guest_token, guest_id, now)?;
        self.tally.contact(guest_id);
        let id = self.new_id();
        Ok(json!({
            "id": id, "type": new.kind, "address": new.address, "externalContactId": guest_id,
            "selfUri": format!("/api/v2/externalcontacts/contacts/{id}"),
        }))
    }

    fn create_conversation(
        &mut self,
        body: &[u8],
        now: Timestamp,
    ) -> Result<serde_json::Value, Refusal> {
        let new: NewConversation<'_> = parse(body)?;
        let queue = new.routing_data.queue_id;
        if !self.options.queues.iter().any(|known| known.id == queue) {
            // Requirement R18 (docs/requirements.md): an unknown queue is a 403.
            let message = format!("The queue {queue} does not exist in the organization.");
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "not.authorized",
                message,
            ));
        }
        if new.custom_attributes.routing_target != queue {
            return Err(Refusal::bad_request(
                "customAttributes.routingTarget is not routingData.queueId.",
            ));
        }
        let guest_id = self
            .tally
            .guest_at(new.contact_id.as_ref())
            .map(str::to_owned);
        let guest_id = guest_id
            .ok_or_else(|| Refusal::bad_request("contactId is not the address of a contact."))?;
        self.guest_keys
            .check(&new.custom_attributes.session_token, &guest_id, now)?;
        self.tally.conversation(&guest_id);
        *self.waiting.entry(queue).or_default() += 1;
        let id = self.new_id();
        Ok(json!({"id": id, "selfUri": format!("/api/v2/conversations/{id}")}))
    }
}

pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("The body cannot be parsed: {error}")))
}

pub(crate) fn has_type(headers: &HeaderMap, wanted: &str) -> bool {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    given
        .split(';')
        .next()
        .is_some_and(|given| given.trim().eq_ignore_ascii_case(wanted))
}

fn hash(route: Route, body: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(route.name().as_bytes());
    context.update(body);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}
