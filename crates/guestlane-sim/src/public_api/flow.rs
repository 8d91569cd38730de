//! The creation of conversations: the inbound message flow reads the first message and routes the
//! conversation to a queue.

use std::collections::{BTreeMap, HashMap};

use guestlane_runtime::Timestamp;
use uuid::Uuid;

use crate::{options::Flow, organization::Organization};

/// The conversations of web messaging and open messaging, and their messages.
#[derive(Debug, Default)]
pub(crate) struct Conversations {
    pub(crate) conversations: HashMap<Uuid, Conversation>,
    pub(crate) messages: HashMap<String, Record>,
    /// The conversation of each sender of open messaging.
    pub(crate) threads: HashMap<String, Uuid>,
    /// The stored responses of open messaging, by the sender's message ID.
    pub(crate) answered: HashMap<String, serde_json::Value>,
    pub(crate) transfers: u64,
}

/// A conversation.
#[derive(Debug)]
pub(crate) struct Conversation {
    /// `webmessaging` or `open`.
    pub(crate) kind: &'static str,
    /// The guest of the conversation, for the count of duplicates.
    pub(crate) guest: String,
    /// The guest session's, of web messaging.
    pub(crate) session: Option<String>,
    pub(crate) started: Timestamp,
    pub(crate) ended: Option<Timestamp>,
    /// The customer's.
    pub(crate) attributes: BTreeMap<String, String>,
    /// Whether the guest signed in.
    pub(crate) authenticated: bool,
    pub(crate) customer: Uuid,
    pub(crate) communication: Uuid,
    /// The participants except the customer, in order of arrival.
    pub(crate) others: Vec<Participant>,
    pub(crate) messages: Vec<String>,
    /// The linked contact, and the time from which it is visible.
    pub(crate) link: Option<(Option<Uuid>, Timestamp)>,
    /// The contact that is visible until then.
    pub(crate) linked_before: Option<Uuid>,
    pub(crate) agent_spoke: bool,
    /// Texts and presences of the guest before an agent wrote.
    first: [u64; 2],
}

/// A participant other than the customer.
#[derive(Debug)]
pub(crate) struct Participant {
    pub(crate) id: Uuid,
    /// `workflow`, `acd` or `agent`.
    pub(crate) purpose: &'static str,
    pub(crate) queue: Option<Uuid>,
    pub(crate) started: Timestamp,
    pub(crate) ended: Option<Timestamp>,
    pub(crate) attributes: BTreeMap<String, String>,
}

impl Participant {
    pub(crate) fn new(
        id: Uuid,
        purpose: &'static str,
        queue: Option<Uuid>,
        started: Timestamp,
    ) -> Self {
        Self {
            id,
            purpose,
            queue,
            started,
            ended: None,
            attributes: BTreeMap::new(),
        }
    }
}

/// A message, for the lookup of its details.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) conversation: Option<Uuid>,
    pub(crate) at: Timestamp,
    pub(crate) inbound: bool,
    pub(crate) provider_id: Option<String>,
}

impl Conversations {
    /// The queues of the conversations that wait for an agent.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Uuid> {
        let living = self
            .conversations
            .values()
            .filter(|known| known.ended.is_none());
        living.filter_map(|known| {
            known
                .others
                .iter()
                .rfind(|other| other.purpose == "acd" && other.ended.is_none())?
                .queue
        })
    }

    /// Guest messages beyond the first of a conversation, before an agent wrote.
    pub(crate) fn repeated_first_messages(&self) -> u64 {
        self.conversations
            .values()
            .flat_map(|known| known.first)
            .map(|sent| sent.saturating_sub(1))
            .sum()
    }

    /// Conversations with a contact.
    pub(crate) fn linked(&self, now: Timestamp) -> u64 {
        self.conversations
            .values()
            .filter(|known| known.contact(now).is_some())
            .count() as u64
    }

    /// Records a message, in a conversation or in none.
    pub(crate) fn record(
        &mut self,
        id: &str,
        conversation: Option<Uuid>,
        inbound: bool,
        provider_id: Option<String>,
        at: Timestamp,
    ) {
        self.messages.insert(
            id.to_owned(),
            Record {
                conversation,
                at,
                inbound,
                provider_id,
            },
        );
        if let Some(known) =
            conversation.and_then(|conversation| self.conversations.get_mut(&conversation))
        {
            known.messages.push(id.to_owned());
        }
    }
}

impl Conversation {
    /// Returns the linked contact that is visible now.
    pub(crate) fn contact(&self, now: Timestamp) -> Option<Uuid> {
        match self.link {
            Some((contact, from)) if from <= now => contact,
            _ => self.linked_before,
        }
    }

    /// An agent accepts the conversation from the queue, unless an agent is already connected.
    pub(crate) fn agent_takes(&mut self, agent: Uuid, now: Timestamp) {
        self.agent_spoke = true;
        if self
            .others
            .iter()
            .any(|other| other.purpose == "agent" && other.ended.is_none())
        {
            return;
        }
        let waiting = self
            .others
            .iter_mut()
            .rfind(|other| other.purpose == "acd" && other.ended.is_none());
        let queue = waiting.and_then(|acd| {
            acd.ended = Some(now);
            acd.queue
        });
        self.others
            .push(Participant::new(agent, "agent", queue, now));
    }

    /// Disconnects all participants.
    pub(crate) fn end(&mut self, now: Timestamp) {
        self.ended.get_or_insert(now);
        for other in &mut self.others {
            other.ended.get_or_insert(now);
        }
    }

    /// Handles a message or a presence of the guest.
    pub(crate) fn on_guest_message(&mut self, only_came: bool) {
        if !self.agent_spoke {
            self.first[usize::from(only_came)] += 1;
        }
    }
}

impl Organization {
    /// Creates a conversation. The flow accepts it and routes it immediately.
    pub(crate) fn begin_conversation(
        &mut self,
        kind: &'static str,
        session: Option<String>,
        guest: &str,
        attributes: BTreeMap<String, String>,
        now: Timestamp,
    ) -> Uuid {
        let ids: [Uuid; 5] = std::array::from_fn(|_| self.new_id());
        let queue = self.flow(&attributes);
        let flow = Participant {
            ended: Some(now),
            ..Participant::new(ids[3], "workflow", None, now)
        };
        let acd = queue.map(|queue| Participant::new(ids[4], "acd", Some(queue), now));
        let conversation = Conversation {
            kind,
            guest: guest.to_owned(),
            session,
            started: now,
            ended: None,
            attributes,
            authenticated: false,
            customer: ids[1],
            communication: ids[2],
            others: std::iter::once(flow).chain(acd).collect(),
            messages: Vec::new(),
            link: None,
            linked_before: None,
            agent_spoke: false,
            first: [0; 2],
        };
        self.tally.conversation(guest);
        self.desk.conversations.insert(ids[0], conversation);
        ids[0]
    }

    /// Applies the attributes of a later message. They may identify the guest of the conversation.
    pub(crate) fn gain_attributes(
        &mut self,
        conversation: Uuid,
        attributes: BTreeMap<String, String>,
    ) {
        let Some(known) = self.desk.conversations.get_mut(&conversation) else {
            return;
        };
        if let Some(guest) = attributes
            .get("guestId")
            .filter(|guest| **guest != known.guest)
        {
            self.tally.conversation_gone(&known.guest);
            self.tally.conversation(guest);
            known.guest.clone_from(guest);
        }
        known.attributes.extend(attributes);
    }

    fn flow(&self, attributes: &BTreeMap<String, String>) -> Option<Uuid> {
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
