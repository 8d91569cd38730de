//! Guest sessions by token, and their connections (docs/platform.md#guest-sessions).

pub(super) mod attachments;
mod authenticated;
pub(crate) mod fault;
pub(crate) mod frames;
mod history;
mod message;
mod session;
pub(crate) mod socket;
pub(crate) mod upgrade;

use std::collections::{BTreeMap, HashMap, VecDeque};

use aws_lc_rs::digest;
use guestlane_genesys::guest::frame::{Body, ConnectionClosed, Empty, ServerFrame};
use guestlane_runtime::Timestamp;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

use crate::{organization::Organization, rate_window::Window};

pub(super) const REQUESTS_PER_MINUTE: u32 = 60;
pub(super) const CONNECTIONS_PER_MINUTE: u32 = 1000;
const CONFIGURES_PER_MINUTE: u32 = 60;
const ECHOES_PER_MINUTE: u32 = 2;
const HISTORY_READS_PER_MINUTE: u32 = 10;
const CONNECTIONS_PER_SESSION: usize = 3;

/// What is pushed to a connection besides responses.
#[derive(Debug)]
pub(crate) enum Push {
    /// A frame.
    Frame(Box<ServerFrame>),
    /// Closes the connection.
    Close,
}

/// The state of all guests. A session is stored by the hash of its token, because the token itself
/// is a secret.
#[derive(Debug, Default)]
pub(crate) struct Guests {
    sessions: HashMap<String, Session>,
    connections: BTreeMap<u64, Connection>,
    files: attachments::Files,
    history_jwts: HashMap<String, (String, Timestamp)>,
    signed_in: authenticated::SignedIn,
    upgrades: Option<Window>,
    /// The number of sessions that were started.
    pub(crate) began: u64,
}

#[derive(Debug)]
struct Session {
    expires_at: Timestamp,
    conversation: Option<Uuid>,
    /// Whether a presence `Join` was sent.
    joined: bool,
    read_only: bool,
    /// Whether the session was closed after it became read-only. `startNew` requires this.
    closed: bool,
    cleared: bool,
    /// The authenticated guest.
    subject: Option<String>,
    /// The attributes of a presence that started no conversation.
    attributes: BTreeMap<String, String>,
    history: Vec<Value>,
    connections: VecDeque<u64>,
    messages: Window,
    configures: Window,
    history_reads: Window,
}

#[derive(Debug)]
struct Connection {
    sender: UnboundedSender<Push>,
    session: Option<String>,
    requests: Window,
    echoes: Window,
}

impl Guests {
    /// Registers an open socket, and returns its number.
    pub(crate) fn connect(&mut self, sender: UnboundedSender<Push>, now: Timestamp) -> u64 {
        let number = self
            .connections
            .last_key_value()
            .map_or(1, |(last, _)| last + 1);
        let connection = Connection {
            sender,
            session: None,
            requests: Window::new(now),
            echoes: Window::new(now),
        };
        self.connections.insert(number, connection);
        number
    }

    /// Removes a closed socket.
    pub(crate) fn disconnect(&mut self, number: u64) {
        self.detach(number);
        self.connections.remove(&number);
    }

    pub(crate) fn sockets(&self) -> u64 {
        self.connections.len() as u64
    }

    /// Detaches the connection from its session.
    fn detach(&mut self, number: u64) {
        let session = self
            .connections
            .get_mut(&number)
            .and_then(|connection| connection.session.take());
        if let Some(session) = session.and_then(|session| self.sessions.get_mut(&session)) {
            session.connections.retain(|known| *known != number);
        }
    }

    /// Detaches all connections from the session. The connections stay open.
    fn detach_all(&mut self, session: &str) {
        let numbers = self
            .sessions
            .get(session)
            .map(|session| session.connections.clone())
            .unwrap_or_default();
        for number in numbers {
            self.detach(number);
        }
    }

    fn push(&self, number: u64, frame: &ServerFrame) {
        if let Some(connection) = self.connections.get(&number) {
            let _ = connection.sender.send(Push::Frame(frame.clone().into()));
        }
    }

    /// Sends a frame to all connections of a session, except at most one.
    fn broadcast(&self, session: &str, frame: &ServerFrame, but: Option<u64>) {
        for number in self
            .sessions
            .get(session)
            .into_iter()
            .flat_map(|session| &session.connections)
        {
            if Some(*number) != but {
                self.push(*number, frame);
            }
        }
    }

    /// Notifies the connection that it ends, and closes it.
    fn close(&mut self, number: u64, reason: Option<&str>) {
        let reason = reason.map(str::to_owned);
        let closed = ConnectionClosed {
            reason: reason.clone(),
            reason_code: reason,
        };
        self.push(number, &frames::push(Body::ConnectionClosed(closed)));
        self.detach(number);
        if let Some(connection) = self.connections.get(&number) {
            let _ = connection.sender.send(Push::Close);
        }
    }

    fn close_all(&mut self, session: &str, but: Option<u64>, reason: Option<&str>) {
        let numbers: Vec<u64> = self
            .sessions
            .get(session)
            .into_iter()
            .flat_map(|session| session.connections.iter().copied())
            .collect();
        for number in numbers.into_iter().filter(|number| Some(*number) != but) {
            self.close(number, reason);
        }
    }
}

impl Organization {
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
                .broadcast(&key, &frames::push(Body::SessionExpired(Empty {})), None);
            self.guests.detach_all(&key);
        }
    }

    /// Returns the hash under which a token is stored.
    pub(crate) fn token_key(token: &str) -> String {
        let hash = digest::digest(&digest::SHA256, token.as_bytes());
        hash.as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}
