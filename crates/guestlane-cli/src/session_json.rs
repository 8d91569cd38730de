//! A session as data: what `create --json` prints, and each line of `batch --out`.

use guestlane::{Opened, ledger::Session};
use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionJson {
    session_id: String,
    guest_id: String,
    queue_id: String,
    state: &'static str,
    contact_id: Option<String>,
    conversation_id: Option<String>,
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

impl SessionJson {
    /// With its token: only for those who asked for data.
    pub(crate) fn opened(opened: &Opened) -> Self {
        Self {
            guest_token: Some(opened.guest_token.expose().to_owned()),
            replayed: Some(opened.replayed),
            ..Self::stored(&opened.session)
        }
    }

    /// As the ledger has it, without a token.
    pub(crate) fn stored(session: &Session) -> Self {
        Self {
            session_id: session.id.to_string(),
            guest_id: session.request.guest.to_string(),
            queue_id: session.request.queue.to_string(),
            state: session.state.name(),
            contact_id: session.contact_id.clone(),
            conversation_id: session.conversation_id.clone(),
            guest_token: None,
            idempotency_key: session.request.key.to_string(),
            replayed: None,
            attempts: session.attempts,
            latency_ms: session.latency.map(|latency| latency.as_secs_f64() * 1000.0),
            error: session.failure.as_ref().map(|failure| format!("{}: {}", failure.code, failure.message)),
        }
    }

    pub(crate) fn with_token(self, token: String) -> Self {
        Self { guest_token: Some(token), ..self }
    }
}
