//! JSON model of a session: in responses of the service, in the output of `create --json`, and in
//! the result lines of a batch.

use guestlane::{CreatedSession, SessionToken};
use guestlane_core::session::{self, SurfaceBinding};
use guestlane_runtime::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// The state of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// The session is stored; the next step creates the contact.
    Admitted,
    /// The contact exists; the next step opens the conversation, or sends the first message.
    ContactReady,
    /// The platform accepted the first message; its conversation is not known yet. Only on
    /// `web-messaging` and `open-messaging`.
    MessageSent,
    /// The conversation is known; its contact and queue are not set yet. Only on `web-messaging` and
    /// `open-messaging`.
    ConversationFound,
    /// The conversation is in its queue.
    Open,
    /// The platform refused the session. The same idempotency key can be used again once the cause
    /// is fixed.
    Failed,
    /// The platform's `Retry-After` exceeds the caller's deadline. The service continues the
    /// session after that time.
    Parked,
    /// The service cannot continue safely; an operator must examine the session.
    NeedsAttention,
}

impl From<session::SessionState> for SessionState {
    fn from(state: session::SessionState) -> Self {
        match state {
            session::SessionState::Admitted => Self::Admitted,
            session::SessionState::ContactReady => Self::ContactReady,
            session::SessionState::MessageSent => Self::MessageSent,
            session::SessionState::ConversationFound => Self::ConversationFound,
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
    /// The number of the row in its batch, from 1; only in the results of a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, example = 1)]
    row: Option<u64>,
    /// The ID of the session, ordered by time (UUID version 7).
    #[schema(format = Uuid, min_length = 36, max_length = 36, example = "019ab123-4567-7000-8000-0123456789ab")]
    session_id: String,
    /// The ID under which the CRM knows the guest.
    #[schema(min_length = 1, max_length = 128, example = "user-8842-xyz")]
    guest_id: String,
    /// The ID of the queue.
    #[schema(format = Uuid, min_length = 36, max_length = 36, example = "5e0c0000-0000-4000-8000-000000000001")]
    queue_id: String,
    state: SessionState,
    /// The ID of the external contact; null until it exists.
    #[schema(
        required,
        max_length = 1024,
        example = "7a0c0000-0000-4000-8000-000000000002"
    )]
    contact_id: Option<String>,
    /// True if a contact may exist whose ID is unknown; absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(example = false)]
    contact_unknown: bool,
    /// The ID of the conversation; null until it is known to exist.
    #[schema(
        required,
        max_length = 1024,
        example = "c0c00000-0000-4000-8000-000000000003"
    )]
    conversation_id: Option<String>,
    /// The surface that opens the conversation; absent if it is `rest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 32, example = "web-messaging")]
    surface: Option<&'static str>,
    /// The guest session; only on the surface `web-messaging`.
    #[serde(skip_serializing_if = "Option::is_none")]
    guest_session: Option<GuestSession>,
    /// The guest token, which vouches for the guest; only in the response to the caller that
    /// creates the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(
        max_length = 16384,
        example = "eyJhbGciOiJSUzI1NiIsImtpZCI6IndlYmNoYXQtZ3Vlc3Qta2V5LXYxIn0.e30.c2ln"
    )]
    guest_token: Option<String>,
    /// The idempotency key. A repeated request with the same key returns the same session.
    #[schema(min_length = 1, max_length = 255, example = "order-2231-chat")]
    idempotency_key: String,
    /// Whether the session was already open before the request; only in the response to the caller
    /// that creates the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = false)]
    replayed: Option<bool>,
    /// The number of calls sent for the contact and the conversation: 2 without retries.
    #[schema(minimum = 0, example = 2)]
    attempts: u32,
    /// The time from the request to the open conversation, in milliseconds; null until the session
    /// is open.
    #[schema(required, minimum = 0, example = 41.2)]
    latency_ms: Option<f64>,
    /// The time at which the session was stored.
    #[schema(value_type = String, format = DateTime, max_length = 40, example = "2026-11-23T04:00:00.000000Z")]
    admitted_at: Timestamp,
    /// The time at which the conversation was opened; null until then.
    #[schema(required, value_type = Option<String>, format = DateTime, max_length = 40, example = "2026-11-23T04:00:00.041200Z")]
    opened_at: Option<Timestamp>,
    /// The failure of the last attempt; absent if it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<SessionFailure>,
}

/// The failure of the last attempt.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionFailure {
    /// The error code. `/problems/CODE` documents its cause and fix.
    #[schema(max_length = 64, example = "platform_failing")]
    code: String,
    /// The description of the failure, in one sentence.
    #[schema(
        max_length = 8192,
        example = "could not open the conversation (4 attempts in 7.2 s): HTTP 503"
    )]
    message: String,
}

/// The data with which a browser or an app continues a web messaging session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GuestSession {
    /// The ID of the web deployment.
    #[schema(format = Uuid, min_length = 36, max_length = 36, example = "d0d00000-0000-4000-8000-000000000004")]
    deployment_id: String,
    /// The guest session token of the guest API; only in the response to the caller that creates
    /// the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256, example = "0f0e0d0c-0b0a-4908-8706-050403020100")]
    token: Option<String>,
    /// The time at which the guest session ends unless a message is sent; null if it is unknown.
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
    /// Returns the session with its tokens, for the caller that created it.
    pub fn opened(opened: &CreatedSession) -> Self {
        Self {
            guest_token: Some(opened.guest_token.expose().to_owned()),
            guest_session: GuestSession::of(&opened.session, opened.guest_session.as_ref()),
            replayed: Some(opened.replayed),
            ..Self::stored(&opened.session)
        }
    }

    /// Returns the stored session without tokens.
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
            opened_at: session.opened_at(),
            error: session.failure.as_ref().map(|failure| SessionFailure {
                code: failure.code.clone(),
                message: failure.message.clone(),
            }),
        }
    }

    /// Returns the session as a result line of a batch.
    pub fn of_row(self, row: u64) -> Self {
        Self {
            row: Some(row),
            ..self
        }
    }

    /// Returns the session with its tokens, for an operator's explicit request.
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

/// A page of sessions, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sessions {
    /// The sessions, at most as many as `limit`. A page can be shorter, or even empty, although
    /// older sessions exist: follow `nextCursor`.
    #[schema(max_items = 500)]
    pub sessions: Vec<Session>,
    /// The value of `cursor` for the next, older page; null on the last page.
    #[schema(
        required,
        max_length = 64,
        example = "019ab123-4567-7000-8000-0123456789ab"
    )]
    pub next_cursor: Option<String>,
}
