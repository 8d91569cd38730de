//! Messages from guests and to guests (docs/platform.md#guest-frames).

mod check;

use std::{collections::BTreeMap, time::Duration};

use check::{object, presence};
use guestlane_genesys::guest::{
    event::{Channel, Direction, Event, Message},
    frame::{Body, Empty, ServerFrame},
};
use guestlane_runtime::Timestamp;
use serde_json::json;
use uuid::Uuid;

use crate::{
    frame::{self, Reply, too_fast},
    organization::{Organization, guests::Guests},
    response::Refusal,
};

impl Organization {
    /// `onMessage`
    pub(super) fn on_message(
        &mut self,
        connection: u64,
        key: &str,
        mut message: Message,
        well_formed: bool,
        tracing_id: Option<String>,
        now: Timestamp,
    ) -> Reply {
        let rate = self.options.message_rate;
        let Some(session) = self.guests.sessions.get_mut(key) else {
            return frame::error(4007, "Session not found", tracing_id).into();
        };
        let (rate, room) = session.messages.take_of(rate, Duration::from_secs(1), now);
        if !room {
            return too_fast("Message rate too high for this session", rate, &tracing_id).into();
        }
        let clears = message.is_presence("Clear");
        if session.read_only && !clears {
            return frame::error(409, "Session is read-only", tracing_id).into();
        }
        if !well_formed {
            return frame::error(400, "Request failed.", tracing_id).into();
        }
        if let Err((code, text)) = self.check(key, &mut message, clears, now) {
            return frame::error(code, text, tracing_id).into();
        }
        let attributes = message.attributes().cloned().unwrap_or_default();
        let joins = message.is_presence("Join");
        let says = !message.content.is_empty()
            || message.text.as_ref().is_some_and(|text| !text.is_empty());
        let spoke = says && message.kind != "Event" && message.kind != "Receipt";
        let typing =
            message.kind == "Event" && message.events.iter().all(|event| event.kind == "Typing");
        let mut said = self.inbound(message, now);
        if self
            .guests
            .sessions
            .get(key)
            .is_some_and(|session| session.subject.is_some())
        {
            said.metadata
                .insert("authenticated".to_owned(), "true".to_owned());
        }
        let id = said.id.as_deref().unwrap_or_default().to_owned();
        let echo = ServerFrame {
            tracing_id,
            ..frame::push(Body::Structured(said.clone().into()))
        };
        let mut reply = Reply::from(echo);
        self.guests.broadcast(key, &reply.answer, Some(connection));
        let life = Duration::from_secs(self.options.deployment.session_seconds);
        if let Some(session) = self.guests.sessions.get_mut(key) {
            if !typing {
                session.expires_at = now + life;
            }
            session.joined |= joins;
        }
        if clears {
            self.clear(connection, key, &mut reply, now);
            return reply;
        }
        let opens = spoke || (joins && self.options.join_opens);
        let (conversation, new) = self.conversation_of(key, opens, attributes, now);
        let theirs = said
            .channel
            .as_ref()
            .and_then(|channel| channel.fields.get("messageId")?.as_str().map(str::to_owned));
        self.conversations
            .record(&id, conversation, true, theirs, now);
        if let Some(known) =
            conversation.and_then(|conversation| self.conversations.get_mut(conversation))
            && (spoke || joins)
        {
            known.on_guest_message(!spoke);
        }
        if spoke || joins {
            self.remember(key, &said);
        }
        if let Some(conversation) = conversation.filter(|_| new) {
            self.greet(connection, key, conversation, &mut reply, now);
        }
        reply
    }

    /// Returns the echo of the guest's message, with the platform's ID and time.
    pub(super) fn inbound(&mut self, mut message: Message, now: Timestamp) -> Message {
        let id = self.new_id().simple().to_string().parse().ok();
        let their_id = message
            .channel
            .as_ref()
            .and_then(|channel| channel.fields.get("messageId").cloned());
        let their_id = their_id.unwrap_or_else(|| json!(self.new_id()));
        message
            .metadata
            .insert("correlationId".to_owned(), self.new_id().to_string());
        let fields = json!({"time": now, "type": "Private", "messageId": their_id});
        message.channel = Some(Channel {
            metadata: None,
            fields: object(fields),
        });
        Message {
            id,
            direction: Some(Direction::Inbound),
            ..message
        }
    }

    /// Builds a message from the organization's side.
    fn outbound(&mut self, bot: bool, message: Message, now: Timestamp) -> Message {
        let from = if bot {
            json!({"nickname": "Helper Bot"})
        } else {
            json!({"firstName": "Sam", "nickname": "Sam"})
        };
        let fields = object(json!({"time": now, "type": "Private", "from": from}));
        Message {
            id: self.new_id().simple().to_string().parse().ok(),
            direction: Some(Direction::Outbound),
            originating_entity: Some(if bot { "Bot" } else { "Human" }.to_owned()),
            channel: Some(Channel {
                metadata: None,
                fields,
            }),
            ..message
        }
    }

    pub(super) fn typing(&mut self, now: Timestamp) -> Message {
        let fields = object(json!({"typing": {"type": "On", "duration": 5000}}));
        let event = Event {
            kind: "Typing".to_owned(),
            presence: None,
            fields,
        };
        self.outbound(
            true,
            Message {
                kind: "Event".to_owned(),
                events: vec![event],
                ..Message::default()
            },
            now,
        )
    }

    /// Builds the event that reports a sign-in in the middle of a session.
    pub(super) fn signed_in_event(
        &mut self,
        tracing_id: Option<String>,
        now: Timestamp,
    ) -> ServerFrame {
        let said = self.inbound(presence("SignIn"), now);
        ServerFrame {
            tracing_id,
            ..frame::push(Body::Structured(said.into()))
        }
    }

    /// Returns the conversation of a message, and whether the message started it.
    fn conversation_of(
        &mut self,
        key: &str,
        opens: bool,
        mut attributes: BTreeMap<String, String>,
        now: Timestamp,
    ) -> (Option<Uuid>, bool) {
        let Some(session) = self.guests.sessions.get_mut(key) else {
            return (None, false);
        };
        if let Some(conversation) = session.conversation {
            self.gain_attributes(conversation, attributes);
            return (Some(conversation), false);
        }
        if !opens {
            session.attributes.extend(attributes);
            return (None, false);
        }
        let mut earlier = std::mem::take(&mut session.attributes);
        earlier.append(&mut attributes);
        let guest = earlier
            .get("guestId")
            .cloned()
            .unwrap_or_else(|| key[..16].to_owned());
        let conversation =
            self.begin_conversation("webmessaging", Some(key.to_owned()), &guest, earlier, now);
        if let Some(session) = self.guests.sessions.get_mut(key) {
            session.conversation = Some(conversation);
            if let Some(known) = self.conversations.get_mut(conversation) {
                known.authenticated = session.subject.is_some();
            }
        }
        (Some(conversation), true)
    }

    fn greet(
        &mut self,
        connection: u64,
        key: &str,
        conversation: Uuid,
        reply: &mut Reply,
        now: Timestamp,
    ) {
        let overtakes = self.options.pushes_out_of_order;
        let Some(text) = self
            .options
            .greeting
            .clone()
            .or_else(|| overtakes.then(|| "Welcome!".to_owned()))
        else {
            return;
        };
        let said = self.outbound(true, Message::text(text), now);
        self.conversations.record(
            said.id.as_deref().unwrap_or_default(),
            Some(conversation),
            false,
            None,
            now,
        );
        self.remember(key, &said);
        let frame = frame::push(Body::Structured(said.into()));
        self.guests.broadcast(key, &frame, Some(connection));
        if overtakes {
            &mut reply.before
        } else {
            &mut reply.after
        }
        .push(frame);
    }

    fn clear(&mut self, connection: u64, key: &str, reply: &mut Reply, now: Timestamp) {
        let conversation = self.guests.sessions.get_mut(key).and_then(|session| {
            session.cleared = true;
            session.history.clear();
            session.conversation.take()
        });
        if let Some(known) =
            conversation.and_then(|conversation| self.conversations.get_mut(conversation))
        {
            known.end(now);
        }
        let cleared = frame::push(Body::SessionCleared(Empty {}));
        self.guests.broadcast(key, &cleared, Some(connection));
        self.guests.close_all(key, Some(connection), None);
        self.guests.detach(connection);
        reply.after = vec![
            cleared,
            frame::push(Body::ConnectionClosed(Default::default())),
        ];
        reply.close = true;
    }

    fn remember(&mut self, key: &str, said: &Message) {
        if let Some(session) = self.guests.sessions.get_mut(key) {
            session
                .history
                .push(serde_json::to_value(said).unwrap_or_default());
        }
    }

    /// Sends an agent's message: `POST /_sim/agent`.
    pub(crate) fn agent_says(
        &mut self,
        conversation: Uuid,
        text: &str,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let known = self
            .conversations
            .get(conversation)
            .filter(|known| known.ended.is_none());
        let session = known.ok_or_else(Refusal::not_found)?.session.clone();
        let life = Duration::from_secs(self.options.deployment.session_seconds);
        if let Some(key) = &session
            && let Some(known) = self.guests.sessions.get_mut(key)
        {
            if known.expires_at <= now {
                self.end_conversation_of(key, now);
                return Err(Refusal::not_found());
            }
            known.expires_at = now + life;
        }
        let agent = self.new_id();
        if let Some(known) = self.conversations.get_mut(conversation) {
            known.agent_takes(agent, now);
        }
        let said = self.outbound(false, Message::text(text), now);
        self.deliver(conversation, session.as_deref(), said, now);
        Ok(())
    }

    /// Ends a conversation as an agent: `POST /_sim/agent`.
    pub(crate) fn agent_leaves(
        &mut self,
        conversation: Uuid,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let known = self
            .conversations
            .get_mut(conversation)
            .filter(|known| known.ended.is_none());
        let known = known.ok_or_else(Refusal::not_found)?;
        known.end(now);
        let session = known.session.clone();
        let read_only = self.options.deployment.read_only_on_disconnect;
        let mut message = presence("Disconnect");
        if read_only {
            message
                .metadata
                .insert("readOnly".to_owned(), "true".to_owned());
        }
        let said = self.outbound(false, message, now);
        self.deliver(conversation, session.as_deref(), said, now);
        if let Some(session) = session.and_then(|key| self.guests.sessions.get_mut(&key)) {
            session.read_only = read_only;
            if !read_only {
                session.conversation = None;
            }
        }
        Ok(())
    }

    fn deliver(
        &mut self,
        conversation: Uuid,
        session: Option<&str>,
        said: Message,
        now: Timestamp,
    ) {
        self.conversations.record(
            said.id.as_deref().unwrap_or_default(),
            Some(conversation),
            false,
            None,
            now,
        );
        if let Some(key) = session {
            self.remember(key, &said);
            let guests: &Guests = &self.guests;
            guests.broadcast(key, &frame::push(Body::Structured(said.into())), None);
        }
    }
}
