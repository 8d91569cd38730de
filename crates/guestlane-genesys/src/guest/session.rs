//! A guest session on the platform: begins it once and sends its first message once
//! (docs/platform.md#guest-sessions).

use std::time::Duration;

use bytes::Bytes;
use guestlane_runtime::{FailPoint, Timestamp};
use http::{HeaderValue, Request, header};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::Value;
use tracing::debug;
use uuid::Uuid;

use super::{
    connection,
    event::{Direction, Message},
    frame::{Jwt, SessionToken},
};
use crate::{
    call_context::CallContext,
    client::GenesysClient,
    error::{AttemptError, CallError, Operation},
    foreign::{PlatformId, lenient},
    response::PlatformResponse,
    retry::{Completed, RetrySafety},
};

/// Identifies a guest session and its deployment.
#[derive(Debug, Clone)]
pub struct GuestSession {
    /// The web deployment.
    pub deployment: Uuid,
    /// The `Origin` header, which the deployment must allow.
    pub origin: HeaderValue,
    /// The guest session token, stored before the first frame is sent.
    pub token: SessionToken,
    /// When an earlier attempt of unknown outcome may have begun the session.
    pub may_have_begun: Option<Timestamp>,
}

/// Acknowledgement of the first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageAccepted {
    /// The platform's message ID, with which the conversation is looked up.
    pub message_id: PlatformId,
    /// When the session expires without further messages.
    pub expires_at: Option<Timestamp>,
}

/// A page of the history.
#[derive(Deserialize)]
pub(crate) struct History {
    #[serde(default, deserialize_with = "lenient")]
    entities: Vec<Value>,
}

/// The fields that are used of a history message; all other fields may have any shape.
#[derive(Default, Deserialize)]
#[serde(default)]
struct HistoryMessage {
    #[serde(deserialize_with = "lenient")]
    id: Option<PlatformId>,
    #[serde(deserialize_with = "lenient")]
    direction: Option<Direction>,
}

/// Messages per page, as requested by the platform's own client.
const PAGE: usize = 25;

/// Maximum number of pages to read. Only this process knows the token, so the session holds one
/// message of the guest and perhaps some of a bot.
const PAGES: usize = 4;

/// Wait before the history is read a second time. It may not show the newest message immediately,
/// and the message must not be sent twice.
const HISTORY_POLL_INTERVAL: Duration = Duration::from_secs(1);

impl GenesysClient {
    /// Sends the first message of a session once. If the session existed before, its history is
    /// checked first. A repeated call opens no second session, because the same token identifies
    /// the same session. If the history lags, the message may be repeated within the session.
    ///
    /// # Errors
    ///
    /// Fails if the message is not acknowledged before `deadline`, or if the session has expired.
    pub async fn send_first_message(
        &self,
        guest: &GuestSession,
        message: &Message,
        context: &CallContext,
    ) -> Result<Completed<MessageAccepted>, CallError> {
        self.repeat(
            Operation::FirstMessage,
            RetrySafety::Idempotent,
            context,
            || self.first_message(guest, message, context),
        )
        .await
    }

    async fn first_message(
        &self,
        guest: &GuestSession,
        message: &Message,
        context: &CallContext,
    ) -> Result<MessageAccepted, AttemptError> {
        let mut connection = self
            .connect_guest(guest.deployment, &guest.origin, &guest.token, context)
            .await?;
        self.fail_points().hit(FailPoint::GuestConnected).await;
        let session = connection.configure(guest.deployment, context).await?;
        self.fail_points().hit(FailPoint::GuestConfigured).await;
        let expires_at = session
            .expiration_date
            .and_then(|seconds| seconds.checked_mul(1_000_000))
            .map(Timestamp::from_unix_micros);
        // If the response does not say whether the session is new, it may have existed before.
        let message_id = if session.new_session == Some(true) {
            let life = session.duration_seconds.map(Duration::from_secs);
            let gone = |since| life.is_some_and(|life| self.clock().now().since(since) >= life);
            if guest.may_have_begun.is_some_and(gone) {
                // The earlier session, in which the guest may have sent a message, would have
                // expired by now.
                return Err(connection::session_is_over());
            }
            None
        } else {
            let jwt = connection.jwt(context).await?;
            match self.first_in_history(&jwt, &guest.origin, context).await? {
                None => {
                    self.clock().sleep(HISTORY_POLL_INTERVAL).await;
                    self.first_in_history(&jwt, &guest.origin, context).await?
                }
                found => found,
            }
        };
        let message_id = match message_id {
            Some(id) => {
                debug!("the history already has the first message; not sending it again");
                id
            }
            None => connection.send_message(message.clone(), context).await?,
        };
        connection.close().await;
        Ok(MessageAccepted {
            message_id,
            expires_at,
        })
    }

    /// Returns the ID of the guest's first message, if the history has one. Pages are newest first.
    async fn first_in_history(
        &self,
        jwt: &Jwt,
        origin: &HeaderValue,
        context: &CallContext,
    ) -> Result<Option<PlatformId>, AttemptError> {
        let mut bearer = HeaderValue::try_from(format!("bearer {}", jwt.jwt)).map_err(|_| {
            AttemptError::NotSent("the JWT for the history cannot be sent in a header".to_owned())
        })?;
        bearer.set_sensitive(true);
        for page in 1..=PAGES {
            let messages = self.page_of_history(page, &bearer, origin, context).await?;
            let whole = messages.len() == PAGE;
            let said = messages
                .into_iter()
                .rev()
                .filter_map(|message| serde_json::from_value::<HistoryMessage>(message).ok());
            let ours = { said }.find(|message| message.direction == Some(Direction::Inbound));
            match ours {
                // The message exists, so it must not be sent again, even if its ID cannot be used.
                Some(message) => return message.id.map(Some).ok_or_else(unusable_id),
                None if whole => {}
                None => break,
            }
        }
        Ok(None)
    }

    async fn page_of_history(
        &self,
        page: usize,
        bearer: &HeaderValue,
        origin: &HeaderValue,
        context: &CallContext,
    ) -> Result<Vec<Value>, AttemptError> {
        let path = format!("/api/v2/webmessaging/messages?pageNumber={page}&pageSize={PAGE}");
        let request = Request::get(self.hosts().api.route(&path))
            .header(header::AUTHORIZATION, bearer)
            .header(header::ORIGIN, origin)
            .header(header::ACCEPT, "application/json")
            .body(Full::<Bytes>::default())
            .map_err(|error| AttemptError::NotSent(error.to_string()))?;
        self.stats().sent();
        let _in_flight = self.pulse().call(context.priority);
        let answer = self.transport().send(request, context.deadline).await?;
        let history: History = answer
            .error_for_status(self.clock().now(), false)
            .map_err(with_jwt_context)?
            .json()?;
        Ok(history.entities)
    }
}

fn unusable_id() -> AttemptError {
    let reason = "the first message in the history has no usable ID".to_owned();
    AttemptError::OutcomeUnknown {
        reason,
        retry_after: None,
        correlation_id: None,
    }
}

/// Converts a 401 of the history. The JWT lives for one minute, and the next attempt requests a new
/// one. The error says nothing about the OAuth client.
fn with_jwt_context(error: AttemptError) -> AttemptError {
    match error {
        AttemptError::Unauthorized(refusal) => AttemptError::OutcomeUnknown {
            reason: format!(
                "the history endpoint rejected the session's JWT: {}",
                refusal
            ),
            retry_after: None,
            correlation_id: refusal.correlation_id,
        },
        other => other,
    }
}
