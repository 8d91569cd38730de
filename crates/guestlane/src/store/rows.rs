//! A session as a row, and back.

use std::{collections::BTreeMap, time::Duration};

use guestlane_genesys::{Attempt, Timestamp};
use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use super::{StoreError, calls};
use crate::{
    ledger::{Failure, Session, SessionId, State, Way},
    request::{Attributes, Person, QueueId, SessionRequest},
    surface::Surface,
    token::TokenIdentity,
};

/// All columns but the fingerprint, in the order of [`read`].
pub(super) const COLUMNS: &str = "id, idempotency_key, guest_id, queue_id, attributes, state, token_kid, token_jti, token_iat, \
     contact_id, conversation_id, attempts, epoch, admitted_at, step_since, due_at, opened_at, latency_us, failure_code, failure_message, uncertain, \
     surface, door, guest_session, guest_session_ends, message_id, contact_unknown, person, plain_contact, traceparent";

pub(super) fn read(row: &Row<'_>) -> Result<Session, StoreError> {
    let time = |index| row.get(index).map(Timestamp::from_unix_micros);
    let attributes: BTreeMap<String, String> = serde_json::from_str(row.get_ref(4)?.as_str().map_err(rusqlite::Error::from)?)
        .map_err(|_| StoreError::Row("attributes"))?;
    let bad = |column| move |_| StoreError::Row(column);
    let failure_code: Option<String> = row.get(18)?;
    let failure_message: Option<String> = row.get(19)?;
    Ok(Session {
        id: SessionId(Uuid::from_bytes(row.get(0)?)),
        request: SessionRequest {
            key: row.get::<_, String>(1)?.parse().map_err(bad("idempotency_key"))?,
            guest: row.get::<_, String>(2)?.parse().map_err(bad("guest_id"))?,
            person: person(row)?,
            queue: QueueId(Uuid::from_bytes(row.get(3)?)),
            attributes: Attributes::from_pairs(attributes).map_err(bad("attributes"))?,
        },
        state: State::from_name(row.get_ref(5)?.as_str().map_err(rusqlite::Error::from)?).ok_or(StoreError::Row("state"))?,
        token: TokenIdentity { kid: row.get(6)?, jti: Uuid::from_bytes(row.get(7)?), issued_at: row.get(8)? },
        way: way(row)?,
        contact_id: row.get(9)?,
        plain_contact: row.get(28)?,
        contact_unknown: row.get(26)?,
        message_id: row.get(25)?,
        conversation_id: row.get(10)?,
        guest_session_ends: row.get::<_, Option<i64>>(24)?.map(Timestamp::from_unix_micros),
        attempts: row.get(11)?,
        epoch: row.get(12)?,
        admitted_at: time(13)?,
        step_since: time(14)?,
        uncertain: row.get(20)?,
        owed: false,
        due_at: time(15)?,
        opened_at: row.get::<_, Option<i64>>(16)?.map(Timestamp::from_unix_micros),
        latency: row.get::<_, Option<u64>>(17)?.map(Duration::from_micros),
        trace: row.get_ref(29)?.as_str_or_null().map_err(rusqlite::Error::from)?.and_then(|text| text.parse().ok()),
        failure: failure_code.map(|code| Failure { code, message: failure_message.unwrap_or_default() }),
    })
}

fn person(row: &Row<'_>) -> Result<Person, StoreError> {
    match row.get_ref(27)?.as_str_or_null().map_err(rusqlite::Error::from)? {
        None => Ok(Person::default()),
        Some(text) => serde_json::from_str(text).map_err(|_| StoreError::Row("person")),
    }
}

fn way(row: &Row<'_>) -> Result<Way, StoreError> {
    let door = || Ok::<_, StoreError>(Uuid::from_bytes(row.get::<_, Option<[u8; 16]>>(22)?.ok_or(StoreError::Row("door"))?));
    let surface = row.get_ref(21)?.as_str().map_err(rusqlite::Error::from)?;
    let [rest, web_messaging, open_messaging] = Surface::NAMES;
    Ok(match surface {
        _ if surface == rest => Way::Rest,
        _ if surface == web_messaging => {
            Way::WebMessaging { deployment: door()?, token: row.get::<_, Option<_>>(23)?.unwrap_or_default() }
        }
        _ if surface == open_messaging => Way::OpenMessaging { integration: door()? },
        _ => return Err(StoreError::Row("surface")),
    })
}

type Door = Option<[u8; 16]>;

fn columns_of(way: &Way) -> (Door, Option<&Vec<u8>>) {
    match way {
        Way::Rest => (None, None),
        Way::WebMessaging { deployment, token } => (Some(deployment.into_bytes()), Some(token)),
        Way::OpenMessaging { integration } => (Some(integration.into_bytes()), None),
    }
}

/// Lets a session begin anew, in another way.
pub(super) fn set_way(connection: &Connection, session: &Session) -> Result<(), StoreError> {
    let (door, guest_session) = columns_of(&session.way);
    let sql = "UPDATE session SET surface = ?2, door = ?3, guest_session = ?4, plain_contact = ?5 WHERE id = ?1";
    let way = params![session.id.0.into_bytes(), session.way.surface().name(), door, guest_session, session.plain_contact];
    connection.prepare_cached(sql)?.execute(way)?;
    Ok(())
}

/// False when the key is taken.
pub(super) fn insert(connection: &Connection, session: &Session) -> Result<bool, StoreError> {
    let request = &session.request;
    let attributes = serde_json::to_string(request.attributes.as_map()).map_err(|_| StoreError::Row("attributes"))?;
    let mut statement = connection.prepare_cached(
        "INSERT INTO session (id, idempotency_key, fingerprint, guest_id, queue_id, attributes, state, token_kid, token_jti, token_iat, \
         attempts, epoch, admitted_at, step_since, due_at, uncertain, surface, door, guest_session, person, plain_contact, traceparent) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22) ON CONFLICT (idempotency_key) DO NOTHING",
    )?;
    let (door, guest_session) = columns_of(&session.way);
    let person = match &request.person {
        nobody if nobody.is_empty() => None,
        person => Some(serde_json::to_string(person).map_err(|_| StoreError::Row("person"))?),
    };
    let inserted = statement.execute(params![
        session.id.0.into_bytes(),
        request.key.as_str(),
        request.fingerprint(),
        request.guest.as_str(),
        request.queue.0.into_bytes(),
        attributes,
        session.state.name(),
        session.token.kid,
        session.token.jti.into_bytes(),
        session.token.issued_at,
        session.attempts,
        session.epoch,
        session.admitted_at.unix_micros(),
        session.step_since.unix_micros(),
        session.due_at.unix_micros(),
        session.uncertain,
        session.way.surface().name(),
        door,
        guest_session,
        person,
        session.plain_contact,
        session.trace.map(|trace| trace.to_string()),
    ])?;
    Ok(inserted == 1)
}

/// Writes all that can change, if nobody has taken the session over since `epoch`.
pub(super) fn update(connection: &Connection, session: &Session, epoch: u32, attempts: &[Attempt]) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "UPDATE session SET state = ?3, token_kid = ?4, token_jti = ?5, token_iat = ?6, contact_id = ?7, conversation_id = ?8, \
         attempts = ?9, epoch = ?10, step_since = ?11, due_at = ?12, opened_at = ?13, latency_us = ?14, failure_code = ?15, \
         failure_message = ?16, uncertain = ?17, message_id = ?18, contact_unknown = ?19, guest_session_ends = ?20, \
         calls = iif(length(calls) < ?22, calls || ?21, calls) WHERE id = ?1 AND epoch = ?2",
    )?;
    let latency = session.latency.map(|latency| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    let failure = session.failure.as_ref();
    let updated = statement.execute(params![
        session.id.0.into_bytes(),
        epoch,
        session.state.name(),
        session.token.kid,
        session.token.jti.into_bytes(),
        session.token.issued_at,
        session.contact_id,
        session.conversation_id,
        session.attempts,
        session.epoch,
        session.step_since.unix_micros(),
        session.due_at.unix_micros(),
        session.opened_at.map(Timestamp::unix_micros),
        latency,
        failure.map(|failure| &failure.code),
        failure.map(|failure| &failure.message),
        session.uncertain,
        session.message_id,
        session.contact_unknown,
        session.guest_session_ends.map(Timestamp::unix_micros),
        calls::lines(attempts),
        calls::MOST,
    ])?;
    if updated == 1 { Ok(()) } else { Err(StoreError::LeaseLost) }
}
