//! The operations of the surface `rest`, which the public platform does not have
//! (docs/requirements.md).

use bytes::Bytes;
use guestlane_genesys::{NewConversation, RegisterContactRequest, guest::event::attribute_bytes};
use guestlane_runtime::Timestamp;
use http::{HeaderMap, Response, StatusCode};
use serde_json::json;

use crate::{
    options::MAX_ATTRIBUTES,
    organization::Organization,
    request::parse,
    response::{self, Body, Refusal},
    route::Route,
};

type Create = fn(&mut Organization, &[u8], Timestamp) -> Result<serde_json::Value, Refusal>;

impl Organization {
    /// `POST /api/v2/externalcontacts/contacts` of the surface `rest` (requirement R4,
    /// docs/requirements.md).
    pub(crate) fn gateway_contact(
        &mut self,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        self.once(Route::Contact, headers, body, now, Self::register_contact)
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
            Self::open_conversation,
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
        let created = match self.stored_responses.get(key, route, body, now)? {
            Some(stored) => stored,
            None => {
                let created = Bytes::from(create(self, body, now)?.to_string());
                self.stored_responses
                    .insert(key, route, body, created.clone(), now);
                created
            }
        };
        Ok(response::bytes(StatusCode::OK, "application/json", created))
    }

    fn register_contact(
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
        self.duplicates.contact(guest_id);
        let id = self.new_id();
        Ok(json!({
            "id": id, "type": new.kind, "address": new.address, "externalContactId": guest_id,
            "selfUri": format!("/api/v2/externalcontacts/contacts/{id}"),
        }))
    }

    fn open_conversation(
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
            .duplicates
            .guest_at(new.contact_id.as_ref())
            .map(str::to_owned);
        let guest_id = guest_id
            .ok_or_else(|| Refusal::bad_request("contactId is not the address of a contact."))?;
        self.guest_keys
            .check(&new.custom_attributes.session_token, &guest_id, now)?;
        self.duplicates.conversation(&guest_id);
        *self.gateway_conversations.entry(queue).or_default() += 1;
        let id = self.new_id();
        Ok(json!({"id": id, "selfUri": format!("/api/v2/conversations/{id}")}))
    }
}
