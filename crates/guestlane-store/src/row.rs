//! A session as a row, with the same columns in both databases.

use std::{collections::BTreeMap, time::Duration};

use guestlane_genesys::PlatformId;
use guestlane_runtime::Timestamp;
use uuid::Uuid;

use super::StoreError;
use guestlane_core::{
    request::{
        Attributes, ContactDetails, GuestId, IdempotencyKey, Owner, QueueId, SessionRequest,
    },
    session::{Failure, SessionId, SessionRecord, SessionState, SurfaceBinding},
    surface::Surface,
    token::TokenIdentity,
};

/// All columns except the fingerprint and the calls, in the order of the fields of [`SessionRow`].
pub(super) const COLUMNS: &str = "id, idempotency_key, guest_id, queue_id, attributes, state, token_kid, token_jti, token_iat, \
     contact_id, conversation_id, attempts, epoch, admitted_at, step_started_at, due_at, opened_at, latency_us, failure_code, failure_message, outcome_unknown, \
     surface, surface_target_id, guest_session, guest_session_expires_at, message_id, contact_id_lost, contact_details, contact_without_identifier, traceparent, owner";

/// Condition for unfinished sessions
/// ([`SessionState::is_unfinished`](crate::session::SessionState::is_unfinished)). It must equal
/// the condition of the partial index word by word.
pub(super) const UNFINISHED: &str =
    "state != 'open' AND state != 'failed' AND state != 'needs_attention'";

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
    pub(super) step_started_at: i64,
    pub(super) due_at: i64,
    pub(super) opened_at: Option<i64>,
    pub(super) latency_us: Option<i64>,
    pub(super) failure_code: Option<String>,
    pub(super) failure_message: Option<String>,
    pub(super) outcome_unknown: bool,
    pub(super) surface: String,
    pub(super) surface_target_id: Option<Uuid>,
    pub(super) guest_session: Option<Vec<u8>>,
    pub(super) guest_session_expires_at: Option<i64>,
    pub(super) message_id: Option<String>,
    pub(super) contact_id_lost: bool,
    pub(super) contact_details: Option<String>,
    pub(super) contact_without_identifier: bool,
    pub(super) traceparent: Option<String>,
    pub(super) owner: String,
}

impl SessionRow {
    pub(super) fn of(session: &SessionRecord) -> Result<Self, StoreError> {
        let request = &session.request;
        let (surface_target_id, guest_session) = match &session.surface_binding {
            SurfaceBinding::Rest => (None, None),
            SurfaceBinding::WebMessaging { deployment, token } => {
                (Some(*deployment), Some(token.clone()))
            }
            SurfaceBinding::OpenMessaging { integration } => (Some(*integration), None),
        };
        let contact_details = match &request.contact_details {
            nobody if nobody.is_empty() => None,
            contact_details => Some(
                serde_json::to_string(contact_details)
                    .map_err(|_| StoreError::Row("contact_details"))?,
            ),
        };
        let failure = session.failure.clone();
        Ok(Self {
            id: session.id.0,
            idempotency_key: request.key.as_str().to_owned(),
            guest_id: request.guest.as_str().to_owned(),
            queue_id: request.queue.0,
            attributes: serde_json::to_string(request.attributes.as_map())
                .map_err(|_| StoreError::Row("attributes"))?,
            state: session.state.name().to_owned(),
            token_kid: session.token.kid.clone(),
            token_jti: session.token.jti,
            token_iat: session.token.issued_at,
            contact_id: session.contact_id.as_deref().map(str::to_owned),
            conversation_id: session.conversation_id.as_deref().map(str::to_owned),
            attempts: session.attempts,
            epoch: session.epoch,
            admitted_at: session.admitted_at.unix_micros(),
            step_started_at: session.step_started_at.unix_micros(),
            due_at: session.due_at.unix_micros(),
            opened_at: session.opened_at.map(Timestamp::unix_micros),
            latency_us: session
                .latency
                .map(|latency| i64::try_from(latency.as_micros()).unwrap_or(i64::MAX)),
            failure_code: failure.as_ref().map(|failure| failure.code.clone()),
            failure_message: failure.map(|failure| failure.message),
            outcome_unknown: session.outcome_unknown,
            surface: session.surface_binding.surface().name().to_owned(),
            surface_target_id,
            guest_session,
            guest_session_expires_at: session.guest_session_expires_at.map(Timestamp::unix_micros),
            message_id: session.message_id.as_deref().map(str::to_owned),
            contact_id_lost: session.contact_id_lost,
            contact_details,
            contact_without_identifier: session.contact_without_identifier,
            traceparent: session.trace.map(|trace| trace.to_string()),
            owner: request.key.owner().as_str().to_owned(),
        })
    }

    pub(super) fn into_session(self) -> Result<SessionRecord, StoreError> {
        let bad = |column| move |_| StoreError::Row(column);
        let time = Timestamp::from_unix_micros;
        let attributes: BTreeMap<String, String> =
            serde_json::from_str(&self.attributes).map_err(|_| StoreError::Row("attributes"))?;
        let contact_details = match &self.contact_details {
            None => ContactDetails::default(),
            Some(text) => {
                serde_json::from_str(text).map_err(|_| StoreError::Row("contact_details"))?
            }
        };
        Ok(SessionRecord {
            id: SessionId(self.id),
            surface_binding: surface_binding(
                &self.surface,
                self.surface_target_id,
                self.guest_session,
            )?,
            request: SessionRequest {
                key: self
                    .idempotency_key
                    .parse::<IdempotencyKey>()
                    .map_err(bad("idempotency_key"))?
                    .owned_by(Owner::stored(&self.owner)),
                guest: GuestId::recorded(&self.guest_id).map_err(bad("guest_id"))?,
                contact_details,
                queue: QueueId(self.queue_id),
                attributes: Attributes::recorded(attributes).map_err(bad("attributes"))?,
            },
            state: SessionState::from_name(&self.state).ok_or(StoreError::Row("state"))?,
            token: TokenIdentity {
                kid: self.token_kid,
                jti: self.token_jti,
                issued_at: self.token_iat,
            },
            contact_id: self.contact_id.map(PlatformId::from_store),
            contact_without_identifier: self.contact_without_identifier,
            contact_id_lost: self.contact_id_lost,
            message_id: self.message_id.map(PlatformId::from_store),
            conversation_id: self.conversation_id.map(PlatformId::from_store),
            guest_session_expires_at: self.guest_session_expires_at.map(time),
            attempts: self.attempts,
            epoch: self.epoch,
            admitted_at: time(self.admitted_at),
            step_started_at: time(self.step_started_at),
            outcome_unknown: self.outcome_unknown,
            recovered: false,
            due_at: time(self.due_at),
            opened_at: self.opened_at.map(time),
            latency: self
                .latency_us
                .map(|micros| Duration::from_micros(micros.unsigned_abs())),
            trace: self.traceparent.and_then(|text| text.parse().ok()),
            failure: self.failure_code.map(|code| Failure {
                code,
                message: self.failure_message.unwrap_or_default(),
            }),
        })
    }
}

fn surface_binding(
    surface: &str,
    surface_target_id: Option<Uuid>,
    guest_session: Option<Vec<u8>>,
) -> Result<SurfaceBinding, StoreError> {
    let surface_target_id = || surface_target_id.ok_or(StoreError::Row("surface_target_id"));
    let [rest, web_messaging, open_messaging] = Surface::NAMES;
    Ok(match surface {
        _ if surface == rest => SurfaceBinding::Rest,
        _ if surface == web_messaging => SurfaceBinding::WebMessaging {
            deployment: surface_target_id()?,
            token: guest_session.unwrap_or_default(),
        },
        _ if surface == open_messaging => SurfaceBinding::OpenMessaging {
            integration: surface_target_id()?,
        },
        _ => return Err(StoreError::Row("surface")),
    })
}
