//! Guest sessions by token, and their connections (docs/platform.md#guest-sessions).

use std::collections::{BTreeMap, HashMap, VecDeque};

use guestlane_genesys::guest::frame::{Body, ConnectionClosed, ServerFrame};
use guestlane_runtime::Timestamp;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

use super::{attachments::Attachments, authenticated_guests::AuthenticatedGuests};
use crate::{frame, rate_window::Window};

pub(crate) const REQUESTS_PER_MINUTE: u32 = 60;
pub(crate) const CONNECTIONS_PER_MINUTE: u32 = 1000;
pub(crate) const CONFIGURES_PER_MINUTE: u32 = 60;
pub(crate) const ECHOES_PER_MINUTE: u32 = 2;
pub(crate) const HISTORY_READS_PER_MINUTE: u32 = 10;
pub(crate) const CONNECTIONS_PER_SESSION: usize = 3;

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
    pub(crate) sessions: HashMap<String, Session>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) attachments: Attachments,
    pub(crate) history_jwts: HashMap<String, (String, Timestamp)>,
    pub(crate) authenticated: AuthenticatedGuests,
    pub(crate) upgrades: Option<Window>,
    /// The number of sessions that were started.
    pub(crate) began: u64,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) expires_at: Timestamp,
    pub(crate) conversation: Option<Uuid>,
    /// Whether a presence `Join` was sent.
    pub(crate) joined: bool,
    pub(crate) read_only: bool,
    /// Whether the session was closed after it became read-only. `startNew` requires this.
    pub(crate) closed: bool,
    pub(crate) cleared: bool,
    /// The authenticated guest.
    pub(crate) subject: Option<String>,
    /// The attributes of a presence that started no conversation.
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) history: Vec<Value>,
    pub(crate) connections: VecDeque<u64>,
    pub(crate) messages: Window,
    pub(crate) configures: Window,
    pub(crate) history_reads: Window,
}

#[derive(Debug)]
pub(crate) struct Connection {
    sender: UnboundedSender<Push>,
    pub(crate) session: Option<String>,
    pub(crate) requests: Window,
    pub(crate) echoes: Window,
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
    pub(crate) fn detach(&mut self, number: u64) {
        let session = self
            .connections
            .get_mut(&number)
            .and_then(|connection| connection.session.take());
        if let Some(session) = session.and_then(|session| self.sessions.get_mut(&session)) {
            session.connections.retain(|known| *known != number);
        }
    }

    /// Detaches all connections from the session. The connections stay open.
    pub(crate) fn detach_all(&mut self, session: &str) {
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
    pub(crate) fn broadcast(&self, session: &str, frame: &ServerFrame, but: Option<u64>) {
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
    pub(crate) fn close(&mut self, number: u64, reason: Option<&str>) {
        let reason = reason.map(str::to_owned);
        let closed = ConnectionClosed {
            reason: reason.clone(),
            reason_code: reason,
        };
        self.push(number, &frame::push(Body::ConnectionClosed(closed)));
        self.detach(number);
        if let Some(connection) = self.connections.get(&number) {
            let _ = connection.sender.send(Push::Close);
        }
    }

    pub(crate) fn close_all(&mut self, session: &str, but: Option<u64>, reason: Option<&str>) {
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
