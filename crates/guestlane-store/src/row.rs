//! A session as a row, with the same columns in both databases.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

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

/// When a column of the table `session` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// At admission only.
    Insert,
    /// By transitions only.
    Update,
    /// At admission and by transitions.
    Both,
}

impl Written {
    /// Whether a statement of the kind `statement` writes the column.
    pub(super) fn in_statement(self, statement: Self) -> bool {
        self == Self::Both || self == statement
    }
}

/// A column of the table `session`.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    /// The type in PostgreSQL.
    #[cfg_attr(
        not(feature = "postgres"),
        expect(dead_code, reason = "for PostgreSQL")
    )]
    pub(super) pg_type: &'static str,
    pub(super) written: Written,
}

/// Calls the macro `$with` with all columns that are read, in their order. Every statement and
/// every parameter list is generated from this table.
macro_rules! session_columns {
    ($with:ident) => {
        $with! {
            id: Uuid, "uuid", Insert;
            idempotency_key: String, "text", Insert;
            owner: String, "text", Insert;
            guest_id: String, "text", Insert;
            queue_id: Uuid, "uuid", Insert;
            attributes: String, "text", Insert;
            contact_details: Option<String>, "text", Insert;
            state: String, "text", Both;
            token_kid: String, "text", Both;
            token_jti: Uuid, "uuid", Both;
            token_iat: i64, "bigint", Both;
            contact_id: Option<String>, "text", Update;
            contact_without_identifier: bool, "boolean", Insert;
            contact_id_lost: bool, "boolean", Update;
            message_id: Option<String>, "text", Update;
            conversation_id: Option<String>, "text", Update;
            guest_session_expires_at: Option<i64>, "bigint", Update;
            attempts: i64, "bigint", Both;
            epoch: i64, "bigint", Both;
            admitted_at: i64, "bigint", Insert;
            step_started_at: i64, "bigint", Both;
            outcome_unknown: bool, "boolean", Both;
            lease_expires_at: Option<i64>, "bigint", Both;
            next_attempt_at: Option<i64>, "bigint", Both;
            ended_at: Option<i64>, "bigint", Update;
            latency_us: Option<i64>, "bigint", Update;
            failure_code: Option<String>, "text", Update;
            failure_message: Option<String>, "text", Update;
            surface: String, "text", Insert;
            surface_target_id: Option<Uuid>, "uuid", Insert;
            guest_session: Option<Vec<u8>>, "bytea", Insert;
            traceparent: Option<String>, "text", Insert;
        }
    };
}
pub(super) use session_columns;

macro_rules! define_row {
    ($($name:ident: $type:ty, $pg_type:literal, $written:ident;)*) => {
        /// A session as it is stored. Times are microseconds since the Unix epoch.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(super) struct SessionRow {
            $(pub(super) $name: $type,)*
        }

        /// All columns that are read: not the fingerprint, the calls, and the time of the last
        /// transition.
        const COLUMNS: &[Column] = &[$(Column {
            name: stringify!($name),
            pg_type: $pg_type,
            written: Written::$written,
        }),*];
    };
}
session_columns!(define_row);

/// Returns the columns that a statement of this kind writes.
pub(super) fn written_columns(statement: Written) -> impl Iterator<Item = &'static Column> {
    COLUMNS
        .iter()
        .filter(move |column| column.written.in_statement(statement))
}

/// The list of the columns of [`SessionRow`], for `SELECT`.
pub(super) static SELECTED: LazyLock<String> = LazyLock::new(|| {
    let names: Vec<_> = COLUMNS.iter().map(|column| column.name).collect();
    names.join(", ")
});

/// When an unfinished session is due. It must equal the expression of the partial index word by
/// word.
pub(super) const DUE_AT: &str = "coalesce(next_attempt_at, lease_expires_at)";

/// Condition for unfinished sessions
/// ([`SessionState::is_unfinished`](guestlane_core::session::SessionState::is_unfinished)). It must
/// equal the condition of the partial index word by word.
pub(super) const UNFINISHED: &str =
    "state != 'open' AND state != 'failed' AND state != 'needs_attention'";

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
            details if details.is_empty() => None,
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
            attempts: session.attempts.into(),
            epoch: session.epoch.into(),
            admitted_at: session.admitted_at.unix_micros(),
            step_started_at: session.step_started_at.unix_micros(),
            lease_expires_at: session.lease_expires_at.map(Timestamp::unix_micros),
            next_attempt_at: session.next_attempt_at.map(Timestamp::unix_micros),
            ended_at: session.ended_at.map(Timestamp::unix_micros),
            latency_us: session
                .latency
                .map(|latency| i64::try_from(latency.as_micros()).unwrap_or(i64::MAX)),
            failure_code: failure.as_ref().map(|failure| without_nul(&failure.code)),
            failure_message: failure.map(|failure| without_nul(&failure.message)),
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
            attempts: u32::try_from(self.attempts).map_err(|_| StoreError::Row("attempts"))?,
            epoch: u32::try_from(self.epoch).map_err(|_| StoreError::Row("epoch"))?,
            admitted_at: time(self.admitted_at),
            step_started_at: time(self.step_started_at),
            outcome_unknown: self.outcome_unknown,
            recovered: false,
            lease_expires_at: self.lease_expires_at.map(time),
            next_attempt_at: self.next_attempt_at.map(time),
            ended_at: self.ended_at.map(time),
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

/// Replaces NUL characters, which PostgreSQL cannot store in a text. Only text from the platform can
/// contain them.
pub(super) fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
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
