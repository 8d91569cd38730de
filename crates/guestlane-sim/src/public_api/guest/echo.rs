//! The frame `echo`: a message that only keeps the connection open (docs/platform.md#guest-frames).

use guestlane_genesys::guest::{event::Message, frame::Body};
use guestlane_runtime::Timestamp;

use crate::{
    frame::{Reply, response, too_fast},
    organization::{Organization, guests::ECHOES_PER_MINUTE},
};

impl Organization {
    /// `echo`: returns the message with the time until which the session lasts.
    pub(super) fn echo(
        &mut self,
        connection: u64,
        key: &str,
        message: Message,
        tracing_id: Option<String>,
        now: Timestamp,
    ) -> Reply {
        if let Some(known) = self.guests.connections.get_mut(&connection) {
            let (rate, room) = known.echoes.take_of_minute(ECHOES_PER_MINUTE, now);
            if !room {
                return too_fast("Too many echoes on this connection", rate, &tracing_id).into();
            }
        }
        let mut said = self.inbound(message, now);
        if let Some(session) = self.guests.sessions.get(key) {
            let seconds = self.options.deployment.session_seconds.to_string();
            said.metadata.insert("durationSeconds".to_owned(), seconds);
            said.metadata.insert(
                "expirationDate".to_owned(),
                session.expires_at.unix_seconds().to_string(),
            );
            if session.subject.is_some() {
                said.metadata
                    .insert("authenticated".to_owned(), "true".to_owned());
            }
        }
        response(Body::Structured(said.into()), tracing_id).into()
    }
}
