//! Which of the platform's APIs opens conversations, and what each needs to be told.

use std::{collections::BTreeMap, fmt};

use guestlane_genesys::{
    ContactIdentifier, ExternalContact, ExternalId, ExternalSourceRef, IdentifierKind, InboundMessage, OpenChannel, OpenMetadata,
    OpenSender, PhoneNumber,
    guest::event::{Message, attribute_bytes},
};
use http::HeaderValue;
use uuid::Uuid;

use crate::{
    request::{Attributes, SessionRequest, ValidationError},
    token::GuestToken,
};

/// Which of the platform's APIs opens conversations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Surface {
    /// The calls of requirements R4 and R5 (docs/requirements.md), which the public platform does
    /// not have.
    Rest,
    /// The public platform's guest socket.
    WebMessaging {
        /// The web deployment.
        deployment: Uuid,
    },
    /// The public platform's Open Messaging.
    OpenMessaging {
        /// The integration.
        integration: Uuid,
    },
}

impl Surface {
    /// The names in settings, documents and the store.
    pub const NAMES: [&'static str; 3] = ["rest", "web-messaging", "open-messaging"];

    /// The name in settings, documents and the store.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rest => Self::NAMES[0],
            Self::WebMessaging { .. } => Self::NAMES[1],
            Self::OpenMessaging { .. } => Self::NAMES[2],
        }
    }

    /// Whether the public platform has it.
    pub fn is_public_api(&self) -> bool {
        !matches!(self, Self::Rest)
    }
}

impl fmt::Display for Surface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a guest's first message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstMessage {
    /// A Presence event of type Join: the guest has said nothing yet.
    Join,
    /// A text.
    Text(String),
}

impl FirstMessage {
    /// The most characters of a text (code 4011 of the guest API).
    pub const MAX: usize = 4096;
}

/// What the public platform's surfaces need to be told beyond where they are.
#[derive(Debug, Clone)]
pub struct MessagingConfig {
    /// The `Origin` that the deployment allows.
    pub origin: HeaderValue,
    /// The external source in which a guest id is a contact's external id.
    pub external_source: Option<Uuid>,
    /// What a guest's first message is.
    pub first_message: FirstMessage,
    /// Whether the contact is linked to the conversation.
    pub link_contact: bool,
    /// Whether the conversation is moved to its queue, for inbound flows that do not read `routingTarget`.
    pub move_to_queue: bool,
    /// Whether the guest token goes into the attributes, where it fits.
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
    /// What the inbound flow is told: the caller's attributes, the guest, the queue, and the guest token if that is asked for and fits.
    pub fn attributes(&self, request: &SessionRequest, token: &GuestToken) -> BTreeMap<String, String> {
        let mut attributes = without_token(request);
        let size = attribute_bytes(&attributes) + GUEST_TOKEN.len() + token.expose().len();
        if self.send_guest_token && size <= Attributes::MAX_BYTES {
            attributes.insert(GUEST_TOKEN.to_owned(), token.expose().to_owned());
        }
        attributes
    }

    /// The first message on the guest socket.
    pub fn first_message(&self, request: &SessionRequest, token: &GuestToken) -> Message {
        let message = match &self.first_message {
            FirstMessage::Join => Message::join(),
            FirstMessage::Text(text) => Message::text(text),
        };
        message.with_attributes(self.attributes(request, token))
    }

    /// The first message by Open Messaging. The session's own id is the sender's and the message's: recorded before the first call, and the same
    /// however often this is sent.
    pub fn inbound_message<'a>(
        &'a self,
        request: &'a SessionRequest,
        token: &GuestToken,
        session_id: &str,
        admitted_at: &str,
    ) -> InboundMessage<'a> {
        let text = match &self.first_message {
            FirstMessage::Text(text) => text,
            FirstMessage::Join => "", // refused with the settings
        };
        let person = &request.contact_details;
        let from = OpenSender {
            id: session_id.to_owned(),
            id_type: "Opaque",
            nickname: person.first_name().unwrap_or(request.guest.as_str()),
            first_name: person.first_name(),
            last_name: person.last_name(),
        };
        let metadata = OpenMetadata { custom_attributes: self.attributes(request, token) };
        let channel = OpenChannel { from, message_id: session_id.to_owned(), time: admitted_at.to_owned(), metadata };
        InboundMessage { channel, text }
    }

    /// By what the guest's contact is found. Nothing: then nothing keeps a second one from being made.
    pub fn identifiers(&self, request: &SessionRequest) -> Vec<ContactIdentifier> {
        let identifier =
            |kind, value: &str, external_source| ContactIdentifier { kind, value: value.to_owned(), external_source };
        if let Some(id) = self.external_source {
            return vec![identifier(IdentifierKind::ExternalId, request.guest.as_str(), Some(ExternalSourceRef { id }))];
        }
        // One only: a telephone that two people share must not make one contact of them where e-mails tell them apart.
        let email = request.contact_details.email().map(|email| identifier(IdentifierKind::Email, email, None));
        let phone = || request.contact_details.phone_e164().map(|phone| identifier(IdentifierKind::Phone, &phone, None));
        email.or_else(phone).into_iter().collect()
    }

    /// The guest as a contact.
    pub fn contact(&self, request: &SessionRequest) -> ExternalContact {
        let person = &request.contact_details;
        let text = |text: Option<&str>| text.map(str::to_owned);
        let external_id = |id| ExternalId { external_source: ExternalSourceRef { id }, value: request.guest.to_string() };
        let unnamed = self.external_source.is_none() && person.is_empty();
        ExternalContact {
            // A contact about which nothing else is known is called by the guest's id.
            first_name: text(person.first_name()).or_else(|| unnamed.then(|| request.guest.to_string())),
            last_name: text(person.last_name()),
            personal_email: text(person.email()),
            cell_phone: person.phone().map(|phone| PhoneNumber { display: phone.to_owned() }),
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

impl Surface {
    /// Whether a request can go this way: found before anything is created.
    pub fn validate(&self, request: &SessionRequest) -> Result<(), ValidationError> {
        if self.is_public_api() {
            let size = attribute_bytes(&without_token(request));
            if size > Attributes::MAX_BYTES {
                let reason = format!("have {size} bytes with guestId and routingTarget, which the inbound flow needs");
                let fix = format!("the platform takes {} bytes: shorten them", Attributes::MAX_BYTES);
                return Err(ValidationError::new("attributes", reason, fix));
            }
            return Ok(());
        }
        match request.contact_details.fields().into_iter().find(|(_, value)| value.is_some()) {
            Some((field, _)) => Err(ValidationError::new(
                field,
                "has no place on the surface rest",
                "give it as an attribute, or use the surface web-messaging or open-messaging",
            )),
            None => Ok(()),
        }
    }
}
