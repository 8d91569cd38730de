//! A session as a row, and back: the same columns in both databases.

use std::{collections::BTreeMap, time::Duration};

use guestlane_genesys::{PlatformId, Timestamp};
use uuid::Uuid;

use super::StoreError;
use crate::{
    ledger::{Failure, Session, SessionId, State, Way},
    request::{Attributes, GuestId, IdempotencyKey, Owner, Person, QueueId, SessionRequest},
    surface::Surface,
    token::TokenIdentity,
};

/// All columns but the fingerprint and the calls, in the order of the fields of [`SessionRow`].
pub(super) const COLUMNS: &str = "id, idempotency_key, guest_id, queue_id, attributes, state, token_kid, token_jti, token_iat, \
     contact_id, conversation_id, attempts, epoch, admitted_at, step_since, due_at, opened_at, latency_us, failure_code, failure_message, uncertain, \
     surface, door, guest_session, guest_session_ends, message_id, contact_unknown, person, plain_contact, traceparent, owner";

/// The sessions that somebody must still drive: [`State::is_unfinished`] in SQL, word by word the condition of the index over them.
pub(super) const UNFINISHED: &str = "state != 'open' AND state != 'failed' AND state != 'needs_attention'";

/// A session as it is stored. Times are microseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SessionRow {
    pub(super) id: Uuid,
    pub(super) idempotency_key: String,
    pub(super) guest_id: String,
    pub(super) queue_id: Uuid,
    pub(super) attributes: String,
    pub(super) state: String,
    pub(super) token_kid: String,
    pub(super) token_jti: Uuid,
    pub(super) token_iat: i64,
    pub(super) contact_id: Option<String>,
    pub(super) conversation_id: Option<String>,
    pub(super) attempts: u32,
    pub(super) epoch: u32,
    pub(super) admitted_at: i64,
    pub(super) step_since: i64,
    pub(super) due_at: i64,
    pub(super) opened_at: Option<i64>,
    pub(super) latency_us: Option<i64>,
    pub(super) failure_code: Option<String>,
    pub(super) failure_message: Option<String>,
    pub(super) uncertain: bool,
    pub(super) surface: String,
    pub(super) door: Option<Uuid>,
    pub(super) guest_session: Option<Vec<u8>>,
    pub(super) guest_session_ends: Option<i64>,
    pub(super) message_id: Option<String>,
    pub(super) contact_unknown: bool,
    pub(super) person: Option<String>,
    pub(super) plain_contact: bool,
    pub(super) traceparent: Option<String>,
    pub(super) owner: String,
}

impl SessionRow {
    pub(super) fn of(session: &Session) -> Result<Self, StoreError> {
        let request = &session.request;
        let (door, guest_session) = match &session.way {
            Way::Rest => (None, None),
            Way::WebMessaging { deployment, token } => (Some(*deployment), Some(token.clone())),
            Way::OpenMessaging { integration } => (Some(*integration), None),
        };
        let person = match &request.person {
            nobody if nobody.is_empty() => None,
            person => Some(serde_json::to_string(person).map_err(|_| StoreError::Row("person"))?),
        };
        let failure = session.failure.clone();
        Ok(Self {
            id: session.id.0,
            idempotency_key: request.key.as_str().to_owned(),
            guest_id: request.guest.as_str().to_owned(),
            queue_id: request.queue.0,
            attributes: serde_json::to_string(request.attributes.as_map()).map_err(|_| StoreError::Row("attributes"))?,
            state: session.state.name().to_owned(),
            token_kid: session.token.kid.clone(),
            token_jti: session.token.jti,
            token_iat: session.token.issued_at,
            contact_id: session.contact_id.as_deref().map(str::to_owned),
            conversation_id: session.conversation_id.as_deref().map(str::to_owned),
            attempts: session.attempts,
            epoch: session.epoch,
            admitted_at: session.admitted_at.unix_micros(),
            step_since: session.step_since.unix_micros(),
            due_at: session.due_at.unix_micros(),
            opened_at: session.opened_at.map(Timestamp::unix_micros),
            latency_us: session.latency.map(|latency| i64::try_from(latency.as_micros()).unwrap_or(i64::MAX)),
            failure_code: failure.as_ref().map(|failure| failure.code.clone()),
            failure_message: failure.map(|failure| failure.message),
            uncertain: session.uncertain,
            surface: session.way.surface().name().to_owned(),
            door,
            guest_session,
            guest_session_ends: session.guest_session_ends.map(Timestamp::unix_micros),
            message_id: session.message_id.as_deref().map(str::to_owned),
            contact_unknown: session.contact_unknown,
            person,
            plain_contact: session.plain_contact,
            traceparent: session.trace.map(|trace| trace.to_string()),
            owner: request.key.owner().as_str().to_owned(),
        })
    }

    pub(super) fn into_session(self) -> Result<Session, StoreError> {
        let bad = |column| move |_| StoreError::Row(column);
        let time = Timestamp::from_unix_micros;
        let attributes: BTreeMap<String, String> =
            serde_json::from_str(&self.attributes).map_err(|_| StoreError::Row("attributes"))?;
        let person = match &self.person {
            None => Person::default(),
            Some(text) => serde_json::from_str(text).map_err(|_| StoreError::Row("person"))?,
        };
        Ok(Session {
            id: SessionId(self.id),
            way: way(&self.surface, self.door, self.guest_session)?,
            request: SessionRequest {
                key: self
                    .idempotency_key
                    .parse::<IdempotencyKey>()
                    .map_err(bad("idempotency_key"))?
                    .owned_by(Owner::stored(&self.owner)),
                guest: GuestId::recorded(&self.guest_id).map_err(bad("guest_id"))?,
                person,
                queue: QueueId(self.queue_id),
                attributes: Attributes::recorded(attributes).map_err(bad("attributes"))?,
            },
            state: State::from_name(&self.state).ok_or(StoreError::Row("state"))?,
            token: TokenIdentity { kid: self.token_kid, jti: self.token_jti, issued_at: self.token_iat },
            contact_id: self.contact_id.map(PlatformId::from_store),
            plain_contact: self.plain_contact,
            contact_unknown: self.contact_unknown,
            message_id: self.message_id.map(PlatformId::from_store),
            conversation_id: self.conversation_id.map(PlatformId::from_store),
            guest_session_ends: self.guest_session_ends.map(time),
            attempts: self.attempts,
            epoch: self.epoch,
            admitted_at: time(self.admitted_at),
            step_since: time(self.step_since),
            uncertain: self.uncertain,
            owed: false,
            due_at: time(self.due_at),
            opened_at: self.opened_at.map(time),
            latency: self.latency_us.map(|micros| Duration::from_micros(micros.unsigned_abs())),
            trace: self.traceparent.and_then(|text| text.parse().ok()),
            failure: self.failure_code.map(|code| Failure { code, message: self.failure_message.unwrap_or_default() }),
        })
    }
}

fn way(surface: &str, door: Option<Uuid>, guest_session: Option<Vec<u8>>) -> Result<Way, StoreError> {
    let door = || door.ok_or(StoreError::Row("door"));
    let [rest, web_messaging, open_messaging] = Surface::NAMES;
    Ok(match surface {
        _ if surface == rest => Way::Rest,
        _ if surface == web_messaging => Way::WebMessaging { deployment: door()?, token: guest_session.unwrap_or_default() },
        _ if surface == open_messaging => Way::OpenMessaging { integration: door()? },
        _ => return Err(StoreError::Row("surface")),
    })
}
