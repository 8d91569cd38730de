//! JSON model of a session: in responses of the service, in the output of `create --json`, and in
//! the result lines of a batch.

use guestlane::{
    CreatedSession, SessionToken, Timestamp,
    session::{self, SurfaceBinding},
};
use serde::Serialize;
use utoipa::ToSchema;

/// How far a session got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// It is recorded; the contact is next.
    Admitted,
    /// The contact is there; the conversation is next.
    ContactCreated,
    /// The conversation is in its queue.
    Open,
    /// The platform refused for good; the same key may try again once the cause is mended.
    Failed,
    /// The platform asked for more patience than the caller had; it goes on by itself.
    Parked,
    /// A person must look.
    NeedsAttention,
}

impl From<session::SessionState> for SessionState {
    fn from(state: session::SessionState) -> Self {
        match state {
            session::SessionState::Admitted => Self::Admitted,
            session::SessionState::ContactCreated => Self::ContactCreated,
            session::SessionState::Open => Self::Open,
            session::SessionState::Failed => Self::Failed,
            session::SessionState::Parked => Self::Parked,
            session::SessionState::NeedsAttention => Self::NeedsAttention,
        }
    }
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Its place in a batch, from 1. Of batches.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, example = 1)]
    row: Option<u64>,
    /// Its id, ordered by time (UUID version 7).
    #[schema(format = Uuid, min_length = 36, max_length = 36, example = "019ab123-4567-7000-8000-0123456789ab")]
    session_id: String,
    /// The id under which the CRM knows the guest.
    #[schema(min_length = 1, max_length = 128, example = "user-8842-xyz")]
    guest_id: String,
    /// The queue.
    #[schema(format = Uuid, min_length = 36, max_length = 36, example = "5e0c0000-0000-4000-8000-000000000001")]
    queue_id: String,
    state: SessionState,
    /// The external contact, once it exists.
    #[schema(
        required,
        max_length = 1024,
        example = "7a0c0000-0000-4000-8000-000000000002"
    )]
    contact_id: Option<String>,
    /// A contact may exist whose id nobody knows; absent where that is not so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(example = false)]
    contact_unknown: bool,
    /// The conversation, once it is known to exist.
    #[schema(
        required,
        max_length = 1024,
        example = "c0c00000-0000-4000-8000-000000000003"
    )]
    conversation_id: Option<String>,
    /// Absent on `rest`, which has nothing to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 32, example = "web-messaging")]
    surface: Option<&'static str>,
    /// Of the surface `web-messaging`.
    #[serde(skip_serializing_if = "Option::is_none")]
    guest_session: Option<GuestSession>,
    /// The token that vouches for the guest: only in the answer to whoever creates the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(
        max_length = 16384,
        example = "eyJhbGciOiJSUzI1NiIsImtpZCI6IndlYmNoYXQtZ3Vlc3Qta2V5LXYxIn0.e30.c2ln"
    )]
    guest_token: Option<String>,
    /// The name of this wish: the same key is the same session.
    #[schema(min_length = 1, max_length = 255, example = "order-2231-chat")]
    idempotency_key: String,
    /// Whether it was open already when it was asked for: only in the answer to whoever creates the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = false)]
    replayed: Option<bool>,
    /// Calls sent for the contact and the conversation: 2 when nothing had to be repeated.
    #[schema(minimum = 0, example = 2)]
    attempts: u32,
    /// From the request to the conversation.
    #[schema(required, minimum = 0, example = 41.2)]
    latency_ms: Option<f64>,
    /// When it was recorded.
    #[schema(value_type = String, format = DateTime, max_length = 40, example = "2026-11-23T04:00:00.000000Z")]
    admitted_at: Timestamp,
    /// When the conversation was there.
    #[schema(required, value_type = Option<String>, format = DateTime, max_length = 40, example = "2026-11-23T04:00:00.041200Z")]
    opened_at: Option<Timestamp>,
    /// Why the last attempt did not end well; absent where it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<SessionFailure>,
}

/// Why the last attempt did not end well.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionFailure {
    /// Which kind of failure: `/problems/CODE` says what to do.
    #[schema(max_length = 64, example = "platform_failing")]
    code: String,
    /// One sentence.
    #[schema(
        max_length = 8192,
        example = "could not open the conversation (4 attempts in 7.2 s): HTTP 503"
    )]
    message: String,
}

/// What a browser or an app takes a web messaging session over with.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GuestSession {
    /// The web deployment.
    #[schema(format = Uuid, min_length = 36, max_length = 36, example = "d0d00000-0000-4000-8000-000000000004")]
    deployment_id: String,
    /// The token of the guest's session on the guest API: only in the answer to whoever creates the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256, example = "0f0e0d0c-0b0a-4908-8706-050403020100")]
    token: Option<String>,
    /// When the session ends if nothing is said.
    #[schema(format = DateTime, max_length = 40, example = "2026-11-24T04:00:00.000000Z")]
    expires_at: Option<String>,
}

impl GuestSession {
    fn of(session: &session::SessionRecord, token: Option<&SessionToken>) -> Option<Self> {
        let SurfaceBinding::WebMessaging { deployment, .. } = &session.surface_binding else {
            return None;
        };
        Some(Self {
            deployment_id: deployment.to_string(),
            token: token.map(|token| token.expose().to_owned()),
            expires_at: session.guest_session_expires_at.map(|end| end.to_string()),
        })
    }
}

impl Session {
    /// With its tokens: only for those who asked for the session.
    pub fn opened(opened: &CreatedSession) -> Self {
        Self {
            guest_token: Some(opened.guest_token.expose().to_owned()),
            guest_session: GuestSession::of(&opened.session, opened.guest_session.as_ref()),
            replayed: Some(opened.replayed),
            ..Self::stored(&opened.session)
        }
    }

    /// As the ledger has it, without a token.
    pub fn stored(session: &session::SessionRecord) -> Self {
        Self {
            row: None,
            session_id: session.id.to_string(),
            guest_id: session.request.guest.to_string(),
            queue_id: session.request.queue.to_string(),
            state: session.state.into(),
            contact_id: session.contact_id.as_deref().map(str::to_owned),
            contact_unknown: session.contact_id_lost,
            conversation_id: session.conversation_id.as_deref().map(str::to_owned),
            surface: (session.surface_binding != SurfaceBinding::Rest)
                .then(|| session.surface_binding.surface().name()),
            guest_session: GuestSession::of(session, None),
            guest_token: None,
            idempotency_key: session.request.key.to_string(),
            replayed: None,
            attempts: session.attempts,
            latency_ms: session
                .latency
                .map(|latency| latency.as_micros() as f64 / 1000.0),
            admitted_at: session.admitted_at,
            opened_at: session.opened_at,
            error: session.failure.as_ref().map(|failure| SessionFailure {
                code: failure.code.clone(),
                message: failure.message.clone(),
            }),
        }
    }

    /// As a line of a batch's results.
    pub fn of_row(self, row: u64) -> Self {
        Self {
            row: Some(row),
            ..self
        }
    }

    /// With its tokens, for a person who asked to see them.
    pub fn with_tokens(
        self,
        session: &session::SessionRecord,
        token: String,
        guest: Option<&SessionToken>,
    ) -> Self {
        Self {
            guest_token: Some(token),
            guest_session: GuestSession::of(session, guest),
            ..self
        }
    }
}

/// Sessions, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sessions {
    /// At most as many as were asked for. There may be fewer, or none, and more of them older ones: see `nextCursor`.
    #[schema(max_items = 500)]
    pub sessions: Vec<Session>,
    /// To be sent as `cursor` for what is older; null where that is nothing.
    #[schema(
        required,
        max_length = 64,
        example = "019ab123-4567-7000-8000-0123456789ab"
    )]
    pub next_cursor: Option<String>,
}
