//! Conversations, their participants and messages (docs/platform.md#conversations).

use std::collections::{BTreeMap, HashMap};

use guestlane_runtime::Timestamp;
use uuid::Uuid;

/// The conversations of web messaging and open messaging, and their messages.
#[derive(Debug, Default)]
pub(crate) struct Conversations {
    all: HashMap<Uuid, Conversation>,
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
    pub(crate) fn add(&mut self, id: Uuid, conversation: Conversation) {
        self.all.insert(id, conversation);
    }

    pub(crate) fn get(&self, id: Uuid) -> Option<&Conversation> {
        self.all.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: Uuid) -> Option<&mut Conversation> {
        self.all.get_mut(&id)
    }

    /// The queues of the conversations that wait for an agent.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Uuid> {
        let living = self.all.values().filter(|known| known.ended.is_none());
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
        self.all
            .values()
            .flat_map(|known| known.first)
            .map(|sent| sent.saturating_sub(1))
            .sum()
    }

    /// Conversations with a contact.
    pub(crate) fn linked(&self, now: Timestamp) -> u64 {
        self.all
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
        if let Some(known) = conversation.and_then(|conversation| self.all.get_mut(&conversation)) {
            known.messages.push(id.to_owned());
        }
    }
}

impl Conversation {
    /// Builds a conversation that the inbound message flow accepted and routed. The IDs are of the
    /// conversation, the customer, the communication, the flow, and the place in the queue.
    pub(crate) fn new(
        kind: &'static str,
        session: Option<String>,
        guest: &str,
        attributes: BTreeMap<String, String>,
        queue: Option<Uuid>,
        ids: &[Uuid; 5],
        now: Timestamp,
    ) -> Self {
        let flow = Participant {
            ended: Some(now),
            ..Participant::new(ids[3], "workflow", None, now)
        };
        let acd = queue.map(|queue| Participant::new(ids[4], "acd", Some(queue), now));
        Self {
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
        }
    }

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
