//! The lifecycle of guest sessions: start, resume, restart, end (docs/platform.md#guest-sessions).

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use guestlane_genesys::guest::frame::{Body, Configure, Empty, SessionResponse};
use guestlane_runtime::Timestamp;

use crate::{
    frame::{self, Reply, too_fast},
    options::MAX_ATTRIBUTES,
    organization::{
        Organization,
        guests::{CONFIGURES_PER_MINUTE, CONNECTIONS_PER_SESSION, Session},
    },
    rate_window::Window,
};

impl Organization {
    /// `configureSession`, and `configureAuthenticatedSession` for an authenticated guest.
    pub(super) fn configure(
        &mut self,
        connection: u64,
        key: &str,
        configure: &Configure,
        subject: Option<String>,
        tracing_id: Option<String>,
        now: Timestamp,
    ) -> Reply {
        if configure.deployment_id != self.options.deployment.id.to_string() {
            return frame::error(400, "Request failed.", tracing_id).into();
        }
        let upgrade = self.options.deployment.session_upgrade;
        let life = Duration::from_secs(self.options.deployment.session_seconds);
        let start_new = configure.start_new == Some(true);
        let mut signed_in_now = false;
        let new = match self.guests.sessions.get_mut(key) {
            None => true,
            Some(session) => {
                let (rate, room) = session
                    .configures
                    .take_of_minute(CONFIGURES_PER_MINUTE, now);
                if !room {
                    return too_fast(
                        "Too many configure requests for this session",
                        rate,
                        &tracing_id,
                    )
                    .into();
                }
                if session.subject.is_some() && subject.is_some() && session.subject != subject {
                    return frame::error(403, "Session authentication failed", tracing_id).into();
                }
                if session.subject.is_some() && subject.is_none() {
                    return frame::error(
                        4017,
                        "Cannot downgrade to an unauthenticated session",
                        tracing_id,
                    )
                    .into();
                }
                if session.expires_at <= now && !session.cleared {
                    self.end_conversation_of(key, now);
                    return frame::error(4006, "Session has expired", tracing_id).into();
                }
                let steps_up = session.subject.is_none() && subject.is_some() && !session.cleared;
                if steps_up && !upgrade {
                    return frame::error(403, "Session authentication failed", tracing_id).into();
                }
                if steps_up {
                    session.subject.clone_from(&subject);
                    signed_in_now = true;
                    let conversation = session
                        .conversation
                        .and_then(|id| self.conversations.get_mut(id));
                    if let Some(known) = conversation {
                        known.authenticated = true;
                    }
                }
                // A new conversation in an old session: only after it ended, and was closed.
                session.cleared || (start_new && session.read_only && session.closed)
            }
        };
        if new {
            self.guests.began += 1;
            let session = Session {
                expires_at: now + life,
                conversation: None,
                joined: false,
                read_only: false,
                closed: false,
                cleared: false,
                subject: subject.clone(),
                attributes: BTreeMap::new(),
                history: Vec::new(),
                connections: VecDeque::new(),
                messages: Window::new(now),
                configures: Window::new(now),
                history_reads: Window::new(now),
            };
            if let Some(old) = self.guests.sessions.insert(key.to_owned(), session)
                && let Some(session) = self.guests.sessions.get_mut(key)
            {
                (session.connections, session.configures) = (old.connections, old.configures);
            }
        }
        let cleared_existing =
            subject.is_some_and(|subject| self.end_other_sessions_of(&subject, key, now));
        if signed_in_now {
            self.guests
                .close_all(key, Some(connection), Some("signedIn"));
        }
        self.attach(connection, key);
        let Some(session) = self.guests.sessions.get(key) else {
            return frame::error(4007, "Session not found", tracing_id).into();
        };
        let body = SessionResponse {
            connected: true,
            new_session: Some(new),
            read_only: Some(session.read_only),
            cleared_existing_session: Some(cleared_existing),
            allowed_media: Some(self.allowed_media()),
            blocked_extensions: Some(self.blocked_extensions()),
            max_custom_data_bytes: Some(MAX_ATTRIBUTES),
            duration_seconds: Some(life.as_secs()),
            expiration_date: Some(session.expires_at.unix_seconds()),
            auto_started: Some(session.joined),
        };
        let mut reply = Reply::from(frame::response(Body::Session(body), tracing_id.clone()));
        if signed_in_now {
            reply.before.push(self.signed_in_event(tracing_id, now));
        }
        if self.options.pushes_out_of_order {
            reply
                .before
                .push(frame::push(Body::Structured(self.typing(now).into())));
        }
        reply
    }

    /// Ends expired sessions, and notifies their connections.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        let over = self
            .guests
            .sessions
            .iter()
            .filter(|(_, session)| session.expires_at <= now);
        let over: Vec<String> = over.map(|(key, _)| key.clone()).collect();
        for key in over {
            self.end_conversation_of(&key, now);
            self.guests
                .broadcast(&key, &frame::push(Body::SessionExpired(Empty {})), None);
            self.guests.detach_all(&key);
        }
    }

    /// Ends the conversation of a session that expired or was replaced. It no longer waits for an
    /// agent.
    pub(super) fn end_conversation_of(&mut self, key: &str, now: Timestamp) {
        let Some(session) = self.guests.sessions.get_mut(key) else {
            return;
        };
        let ended = now.min(session.expires_at);
        if let Some(known) = session
            .conversation
            .take()
            .and_then(|id| self.conversations.get_mut(id))
        {
            known.end(ended);
        }
    }

    /// Attaches the connection to this session. With more than three, the oldest is closed.
    fn attach(&mut self, connection: u64, key: &str) {
        self.guests.detach(connection);
        if let Some(known) = self.guests.connections.get_mut(&connection) {
            known.session = Some(key.to_owned());
        }
        let oldest = self.guests.sessions.get_mut(key).and_then(|session| {
            session.connections.push_back(connection);
            (session.connections.len() > CONNECTIONS_PER_SESSION)
                .then(|| session.connections.front().copied())
                .flatten()
        });
        if let Some(oldest) = oldest {
            self.guests.close(oldest, None);
        }
    }

    /// `closeSession`: this connection stays open, and is detached from its session.
    pub(super) fn close_session(
        &mut self,
        connection: u64,
        key: &str,
        all: bool,
        tracing_id: Option<String>,
    ) -> Reply {
        if all {
            self.guests.close_all(key, Some(connection), None);
        }
        self.guests.detach(connection);
        let read_only = self.guests.sessions.get_mut(key).is_some_and(|session| {
            session.closed = session.read_only;
            session.read_only
        });
        let body = SessionResponse {
            connected: false,
            new_session: Some(false),
            read_only: Some(read_only),
            ..SessionResponse::default()
        };
        frame::response(Body::Session(body), tracing_id).into()
    }
}
