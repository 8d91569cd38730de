//! The lifecycle of guest sessions: start, resume, restart, end (docs/platform.md#guest-sessions).

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use guestlane_genesys::guest::frame::{Body, Configure, Empty, ServerFrame, SessionResponse};
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

/// What `configureSession` makes of the session of its key.
#[derive(Debug, Clone, Copy)]
struct Resumed {
    /// Whether a new session begins.
    new: bool,
    /// Whether the guest of the session signed in by this frame.
    signed_in_now: bool,
}

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
        let life = Duration::from_secs(self.options.deployment.session_seconds);
        let resumed = self.resume(key, configure, &subject, &tracing_id, now);
        let Resumed { new, signed_in_now } = match resumed {
            Ok(resumed) => resumed,
            Err(refusal) => return refusal.into(),
        };
        if new {
            self.begin_session(key, subject.clone(), now + life, now);
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

    /// Checks whether the session of this key goes on, and signs its guest in.
    ///
    /// # Errors
    ///
    /// Fails with the error frame if the session cannot be configured.
    fn resume(
        &mut self,
        key: &str,
        configure: &Configure,
        subject: &Option<String>,
        tracing_id: &Option<String>,
        now: Timestamp,
    ) -> Result<Resumed, ServerFrame> {
        let refusal = |code: u16, text: &str| Err(frame::error(code, text, tracing_id.clone()));
        let Some(session) = self.guests.sessions.get_mut(key) else {
            return Ok(Resumed {
                new: true,
                signed_in_now: false,
            });
        };
        let (rate, room) = session
            .configures
            .take_of_minute(CONFIGURES_PER_MINUTE, now);
        if !room {
            let text = "Too many configure requests for this session";
            return Err(too_fast(text, rate, tracing_id));
        }
        match (&session.subject, subject) {
            (Some(known), Some(subject)) if known != subject => {
                return refusal(403, "Session authentication failed");
            }
            (Some(_), None) => {
                return refusal(4017, "Cannot downgrade to an unauthenticated session");
            }
            _ => {}
        }
        if session.expires_at <= now && !session.cleared {
            self.end_conversation_of(key, now);
            return refusal(4006, "Session has expired");
        }
        let steps_up = session.subject.is_none() && subject.is_some() && !session.cleared;
        if steps_up && !self.options.deployment.session_upgrade {
            return refusal(403, "Session authentication failed");
        }
        // A new conversation in an old session: only after it ended, and was closed.
        let start_new = configure.start_new == Some(true);
        let new = session.cleared || (start_new && session.read_only && session.closed);
        if steps_up {
            session.subject.clone_from(subject);
            let conversation = session
                .conversation
                .and_then(|id| self.conversations.get_mut(id));
            if let Some(known) = conversation {
                known.authenticated = true;
            }
        }
        Ok(Resumed {
            new,
            signed_in_now: steps_up,
        })
    }

    /// Begins a session. The connections of an ended session with the same key stay.
    fn begin_session(
        &mut self,
        key: &str,
        subject: Option<String>,
        expires_at: Timestamp,
        now: Timestamp,
    ) {
        self.guests.began += 1;
        let session = Session {
            expires_at,
            conversation: None,
            joined: false,
            read_only: false,
            closed: false,
            cleared: false,
            subject,
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
