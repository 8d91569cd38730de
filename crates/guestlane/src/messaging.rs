//! What each surface sends to the platform.

use std::collections::BTreeMap;

use guestlane_genesys::{
    ContactIdentifier, ExternalContact, ExternalId, ExternalSourceRef, IdentifierKind,
    InboundMessage, OpenChannel, OpenMetadata, OpenSender, PhoneNumber,
    guest::event::{Message, attribute_bytes},
};
use http::HeaderValue;
use uuid::Uuid;

use guestlane_core::{
    request::{Attributes, SessionRequest, ValidationError},
    surface::Surface,
    token::GuestToken,
};

/// The first message of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstMessage {
    /// A Presence event of type Join; no text is sent.
    Join,
    /// A text message.
    Text(String),
}

impl FirstMessage {
    /// Largest number of characters of a text (code 4011 of the guest API).
    pub const MAX: usize = 4096;
}

/// Settings of the surfaces `web-messaging` and `open-messaging`, except their deployment or
/// integration.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MessagingConfig {
    /// The `Origin` header, which the deployment must allow.
    pub origin: HeaderValue,
    /// The external source in which the guest ID is the external ID of the contact.
    pub external_source: Option<Uuid>,
    /// The first message of the guest.
    pub first_message: FirstMessage,
    /// Whether the contact is linked to the conversation.
    pub link_contact: bool,
    /// Whether the conversation is moved to its queue, for inbound flows that do not read
    /// `routingTarget`.
    pub move_to_queue: bool,
    /// Whether the guest token is sent as an attribute, if it fits.
    pub send_guest_token: bool,
}

impl Default for MessagingConfig {
    fn default() -> Self {
        Self {
            origin: HeaderValue::from_static("https://localhost"),
            external_source: None,
            first_message: FirstMessage::Text("Hello".to_owned()),
            link_contact: true,
            move_to_queue: false,
            send_guest_token: false,
        }
    }
}

impl MessagingConfig {
    /// The attributes for the inbound flow: the caller's attributes, the guest, and the queue. The
    /// guest token is added if it is enabled and fits.
    pub fn attributes(
        &self,
        request: &SessionRequest,
        token: &GuestToken,
    ) -> BTreeMap<String, String> {
        let mut attributes = without_token(request);
        let size = attribute_bytes(&attributes) + GUEST_TOKEN.len() + token.expose().len();
        if self.send_guest_token && size <= Attributes::MAX_BYTES {
            attributes.insert(GUEST_TOKEN.to_owned(), token.expose().to_owned());
        }
        attributes
    }

    /// The first message on the guest WebSocket.
    pub fn first_message(&self, request: &SessionRequest, token: &GuestToken) -> Message {
        let message = match &self.first_message {
            FirstMessage::Join => Message::join(),
            FirstMessage::Text(text) => Message::text(text),
        };
        message.with_attributes(self.attributes(request, token))
    }

    /// The first message by Open Messaging. The session ID is the ID of sender and message. It is
    /// stored before the first call, and the message is the same at every attempt.
    pub fn inbound_message<'a>(
        &'a self,
        request: &'a SessionRequest,
        token: &GuestToken,
        session_id: &str,
        admitted_at: &str,
    ) -> InboundMessage<'a> {
        let text = match &self.first_message {
            FirstMessage::Text(text) => text,
            FirstMessage::Join => "", // The settings reject `Join` on this surface.
        };
        let person = &request.contact_details;
        let from = OpenSender {
            id: session_id.to_owned(),
            id_type: "Opaque",
            nickname: person.first_name().unwrap_or(request.guest.as_str()),
            first_name: person.first_name(),
            last_name: person.last_name(),
        };
        let metadata = OpenMetadata {
            custom_attributes: self.attributes(request, token),
        };
        let channel = OpenChannel {
            from,
            message_id: session_id.to_owned(),
            time: admitted_at.to_owned(),
            metadata,
        };
        InboundMessage { channel, text }
    }

    /// The identifiers by which the contact of the guest is found. If empty, nothing prevents a
    /// second contact.
    pub fn identifiers(&self, request: &SessionRequest) -> Vec<ContactIdentifier> {
        let identifier = |kind, value: &str, external_source| ContactIdentifier {
            kind,
            value: value.to_owned(),
            external_source,
        };
        if let Some(id) = self.external_source {
            return vec![identifier(
                IdentifierKind::ExternalId,
                request.guest.as_str(),
                Some(ExternalSourceRef { id }),
            )];
        }
        // Send one identifier only: a telephone that two people share must not merge their contacts
        // where e-mail addresses distinguish them.
        let email = request
            .contact_details
            .email()
            .map(|email| identifier(IdentifierKind::Email, email, None));
        let phone = || {
            request
                .contact_details
                .phone_e164()
                .map(|phone| identifier(IdentifierKind::Phone, &phone, None))
        };
        email.or_else(phone).into_iter().collect()
    }

    /// The contact that represents the guest.
    pub fn contact(&self, request: &SessionRequest) -> ExternalContact {
        let person = &request.contact_details;
        let text = |text: Option<&str>| text.map(str::to_owned);
        let external_id = |id| ExternalId {
            external_source: ExternalSourceRef { id },
            value: request.guest.to_string(),
        };
        let unnamed = self.external_source.is_none() && person.is_empty();
        ExternalContact {
            // If nothing else is known about the contact, its first name is the guest ID.
            first_name: text(person.first_name())
                .or_else(|| unnamed.then(|| request.guest.to_string())),
            last_name: text(person.last_name()),
            personal_email: text(person.email()),
            cell_phone: person.phone().map(|phone| PhoneNumber {
                display: phone.to_owned(),
            }),
            external_ids: self.external_source.into_iter().map(external_id).collect(),
        }
    }
}

const GUEST_TOKEN: &str = "guestToken";

fn without_token(request: &SessionRequest) -> BTreeMap<String, String> {
    let mut attributes = request.attributes.as_map().clone();
    attributes.insert("guestId".to_owned(), request.guest.to_string());
    attributes.insert("routingTarget".to_owned(), request.queue.to_string());
    attributes
}

/// Checks that the surface can carry the request, before anything is created.
///
/// # Errors
/// Returns an error if the attributes are too large, or `rest` has no place for a field.
pub fn validate(surface: &Surface, request: &SessionRequest) -> Result<(), ValidationError> {
    if surface.is_public_api() {
        let size = attribute_bytes(&without_token(request));
        if size > Attributes::MAX_BYTES {
            let reason = format!(
                "have {size} bytes with guestId and routingTarget, which the inbound flow needs"
            );
            let fix = format!(
                "shorten them to at most {} bytes, the platform's maximum",
                Attributes::MAX_BYTES
            );
            return Err(ValidationError::new("attributes", reason, fix));
        }
        return Ok(());
    }
    match request
        .contact_details
        .fields()
        .into_iter()
        .find(|(_, value)| value.is_some())
    {
        Some((field, _)) => Err(ValidationError::new(
            field,
            "is not supported on the surface rest",
            "send it as an attribute, or use the surface web-messaging or open-messaging",
        )),
        None => Ok(()),
    }
}
