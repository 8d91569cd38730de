//! The state of the simulated organization. The operations on it are in [`public_api`].
//!
//! [`public_api`]: crate::public_api

pub(crate) mod attachments;
pub(crate) mod authenticated_guests;
pub(crate) mod contact;
pub(crate) mod contacts;
pub(crate) mod conversations;
pub(crate) mod guests;
pub(crate) mod oauth_server;
pub(crate) mod stored_responses;

use std::collections::BTreeMap;

use guestlane_runtime::Timestamp;
use uuid::Uuid;

use crate::{
    duplicates::DuplicateCounter,
    guest_token::GuestKeys,
    options::{Flow, Options},
};
use contacts::Contacts;
use conversations::{Conversation, Conversations};
use guests::Guests;
use oauth_server::OAuthServer;
use stored_responses::StoredResponses;

/// The state of the platform.
#[derive(Debug)]
pub(crate) struct Organization {
    pub(crate) options: Options,
    /// The base URL, such as `http://127.0.0.1:8970`.
    pub(crate) origin: String,
    pub(crate) guest_keys: GuestKeys,
    pub(crate) oauth: OAuthServer,
    pub(crate) duplicates: DuplicateCounter,
    pub(crate) contacts: Contacts,
    pub(crate) conversations: Conversations,
    pub(crate) guests: Guests,
    /// The responses of the surface `rest`, by `Idempotency-Key`.
    pub(crate) stored_responses: StoredResponses,
    /// The number of conversations of the surface `rest` by queue. They wait there, and no other
    /// operation finds them.
    pub(crate) gateway_conversations: BTreeMap<Uuid, u64>,
    next_id: u64,
}

impl Organization {
    pub(crate) fn new(options: Options, origin: String) -> Self {
        Self {
            options,
            origin,
            guest_keys: GuestKeys::default(),
            oauth: OAuthServer::default(),
            duplicates: DuplicateCounter::default(),
            contacts: Contacts::default(),
            conversations: Conversations::default(),
            guests: Guests::default(),
            stored_responses: StoredResponses::default(),
            gateway_conversations: BTreeMap::new(),
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
            .gateway_conversations
            .iter()
            .map(|(queue, waiting)| (*queue, *waiting));
        let public = self.conversations.waiting().map(|queue| (queue, 1));
        for (queue, waiting) in gateway.chain(public) {
            *queues.entry(queue).or_default() += waiting;
        }
        queues
    }

    /// Deletes all contacts, as the platform deletes those without interaction after 60 days.
    pub(crate) fn forget_contacts(&mut self) {
        self.contacts.forget_all(&mut self.duplicates);
    }

    /// Creates a conversation. The inbound message flow accepts it and routes it immediately.
    pub(crate) fn begin_conversation(
        &mut self,
        kind: &'static str,
        session: Option<String>,
        guest: &str,
        attributes: BTreeMap<String, String>,
        now: Timestamp,
    ) -> Uuid {
        let ids: [Uuid; 5] = std::array::from_fn(|_| self.new_id());
        let queue = self.inbound_flow(&attributes);
        self.duplicates.conversation(guest);
        self.conversations.add(
            ids[0],
            Conversation::new(kind, session, guest, attributes, queue, &ids, now),
        );
        ids[0]
    }

    /// Applies the attributes of a later message. They may identify the guest of the conversation.
    pub(crate) fn gain_attributes(
        &mut self,
        conversation: Uuid,
        attributes: BTreeMap<String, String>,
    ) {
        let Some(known) = self.conversations.get_mut(conversation) else {
            return;
        };
        if let Some(guest) = attributes
            .get("guestId")
            .filter(|guest| **guest != known.guest)
        {
            self.duplicates.conversation_gone(&known.guest);
            self.duplicates.conversation(guest);
            known.guest.clone_from(guest);
        }
        known.attributes.extend(attributes);
    }

    /// The queue that the inbound message flow chooses.
    fn inbound_flow(&self, attributes: &BTreeMap<String, String>) -> Option<Uuid> {
        let known = |id: &Uuid| self.options.queues.iter().any(|queue| queue.id == *id);
        let wanted = match self.options.flow {
            Flow::ReadsRoutingTarget => attributes
                .get("routingTarget")
                .and_then(|target| Uuid::try_parse(target).ok()),
            Flow::Ignores => None,
        };
        wanted
            .filter(known)
            .or_else(|| self.options.queues.first().map(|queue| queue.id))
    }
}
