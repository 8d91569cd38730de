//! A session as data: what `create --json` prints, and each line of `batch --out`.

use guestlane::{
    Opened, SessionToken,
    ledger::{Session, Way},
};
use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionJson {
    /// Of a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    row: Option<u64>,
    session_id: String,
    guest_id: String,
    queue_id: String,
    state: &'static str,
    contact_id: Option<String>,
    /// A contact may exist whose id nobody knows; absent where that is not so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    contact_unknown: bool,
    conversation_id: Option<String>,
    /// Absent on `rest`, which has nothing to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    surface: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guest_session: Option<GuestSession>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guest_token: Option<String>,
    idempotency_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed: Option<bool>,
    attempts: u32,
    latency_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What a browser or an app takes a web messaging session over with.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GuestSession {
    deployment_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    expires_at: Option<String>,
}

impl GuestSession {
    fn of(session: &Session, token: Option<&SessionToken>) -> Option<Self> {
        let Way::WebMessaging { deployment, .. } = &session.way else { return None };
        Some(Self {
            deployment_id: deployment.to_string(),
            token: token.map(|token| token.expose().to_owned()),
            expires_at: session.guest_session_ends.map(|end| end.to_string()),
        })
    }
}

impl SessionJson {
    /// With its token: only for those who asked for data.
    pub(crate) fn opened(opened: &Opened) -> Self {
        Self {
            guest_token: Some(opened.guest_token.expose().to_owned()),
            guest_session: GuestSession::of(&opened.session, opened.guest_session.as_ref()),
            replayed: Some(opened.replayed),
            ..Self::stored(&opened.session)
        }
    }

    /// As the ledger has it, without a token.
    pub(crate) fn stored(session: &Session) -> Self {
        Self {
            row: None,
            session_id: session.id.to_string(),
            guest_id: session.request.guest.to_string(),
            queue_id: session.request.queue.to_string(),
            state: session.state.name(),
            contact_id: session.contact_id.clone(),
            contact_unknown: session.contact_unknown,
            conversation_id: session.conversation_id.clone(),
            surface: (session.way != Way::Rest).then(|| session.way.surface().name()),
            guest_session: GuestSession::of(session, None),
            guest_token: None,
            idempotency_key: session.request.key.to_string(),
            replayed: None,
            attempts: session.attempts,
            latency_ms: session.latency.map(|latency| latency.as_micros() as f64 / 1000.0),
            error: session.failure.as_ref().map(|failure| format!("{}: {}", failure.code, failure.message)),
        }
    }

    pub(crate) fn of_row(self, row: u64) -> Self {
        Self { row: Some(row), ..self }
    }

    pub(crate) fn with_tokens(self, session: &Session, token: String, guest: Option<&SessionToken>) -> Self {
        Self { guest_token: Some(token), guest_session: GuestSession::of(session, guest), ..self }
    }
}
