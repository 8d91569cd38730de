//! A connection to the guest socket: sends requests and matches their responses, between which the
//! platform pushes other frames (docs/platform.md#guest-socket).

mod handshake;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use guestlane_runtime::{
    Clock,
    http_client::{MAX_RESPONSE_BYTES, Upgrade},
};
use handshake::{Address, accepted, broken, lost, not_sent, refused, unexpected};
use http::{HeaderValue, Request, header};
use http_body_util::Full;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message as WsMessage,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tracing::{debug, trace};
use uuid::Uuid;

use super::{
    event::{Direction, Message},
    frame::{
        Action, Body, ClientFrame, Configure, Jwt, ServerFrame, SessionResponse, SessionToken,
    },
};
use crate::{
    call_context::CallContext,
    client::GenesysClient,
    client_metrics::ClientMetrics,
    error::AttemptError,
    foreign::{CorrelationId, PlatformId},
    health::PlatformHealth,
    response::PlatformResponse,
};

/// Interval of WebSocket pings while waiting (docs/platform.md#guest-limits).
const PING_EVERY: Duration = Duration::from_secs(15);

/// Maximum length of a frame class in messages, in characters.
const MAX_CLASS: usize = 64;

/// A guest socket connection of one guest session.
pub(crate) struct GuestSocket {
    socket: WebSocketStream<TokioIo<Upgraded>>,
    token: SessionToken,
    clock: Clock,
    limit: Duration,
    stats: Arc<ClientMetrics>,
    pulse: Arc<PlatformHealth>,
}

impl GenesysClient {
    /// Connects to the guest socket of a deployment. There is no bearer token: each frame carries
    /// the guest session token.
    pub(crate) async fn connect_guest(
        &self,
        deployment: Uuid,
        origin: &HeaderValue,
        token: &SessionToken,
        context: &CallContext,
    ) -> Result<GuestSocket, AttemptError> {
        let key = generate_key();
        let request = Request::get(
            self.hosts()
                .webmessaging
                .route(&format!("/v1?deploymentId={deployment}")),
        )
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, &key)
        .header(header::ORIGIN, origin)
        .body(Full::<Bytes>::default())
        .map_err(|error| AttemptError::NotSent(error.to_string()))?;
        context.attempts.sent(self.clock().now());
        self.stats().sent();
        let _in_flight = self.pulse().call(context.priority);
        let upgraded = match self
            .transport()
            .upgrade(request, context.deadline)
            .await
            .map_err(|error| not_sent(error.into()))?
        {
            Upgrade::Accepted(head, upgraded) => {
                let accept = head
                    .get(header::SEC_WEBSOCKET_ACCEPT)
                    .map(HeaderValue::as_bytes);
                if accept != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
                    return Err(AttemptError::NotSent(
                        "the WebSocket handshake failed: Sec-WebSocket-Accept does not match"
                            .to_owned(),
                    ));
                }
                upgraded
            }
            Upgrade::Rejected(answer) => {
                // No frame was sent without a socket, so a retry is safe whatever the status.
                return Err(match answer.error_for_status(self.clock().now(), false) {
                    Ok(_) => AttemptError::NotSent(
                        "the server did not upgrade the connection to WebSocket".to_owned(),
                    ),
                    // The request carried no access token, so a 401 says nothing about it.
                    Err(AttemptError::Unauthorized(refusal)) => AttemptError::Rejected(refusal),
                    Err(error) => not_sent(error),
                });
            }
        };
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_RESPONSE_BYTES))
            .max_frame_size(Some(MAX_RESPONSE_BYTES));
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, Some(config))
                .await;
        let (clock, limit, stats) = (
            self.clock().clone(),
            self.transport().limit(),
            Arc::clone(self.stats()),
        );
        Ok(GuestSocket {
            socket,
            token: token.clone(),
            clock,
            limit,
            stats,
            pulse: Arc::clone(self.pulse()),
        })
    }
}

impl GuestSocket {
    /// Begins or resumes the session: the same token identifies the same session.
    pub(crate) async fn configure(
        &mut self,
        deployment: Uuid,
        context: &CallContext,
    ) -> Result<SessionResponse, AttemptError> {
        let configure = Configure {
            deployment_id: deployment.to_string(),
            ..Configure::default()
        };
        let answer = self
            .request(Action::ConfigureSession(configure), context)
            .await?;
        match answer.body {
            Body::Session(session) if session.connected => Ok(session),
            other => Err(unexpected(other.class())),
        }
    }

    /// Requests the JWT that grants access to the history.
    pub(crate) async fn jwt(&mut self, context: &CallContext) -> Result<Jwt, AttemptError> {
        match self.request(Action::GetJwt {}, context).await?.body {
            Body::Jwt(jwt) => Ok(jwt),
            other => Err(unexpected(other.class())),
        }
    }

    /// Sends a message as the guest and returns the platform's message ID. The platform echoes the
    /// message as the acknowledgement.
    pub(crate) async fn send_message(
        &mut self,
        message: Message,
        context: &CallContext,
    ) -> Result<PlatformId, AttemptError> {
        let action = Action::OnMessage {
            message: Box::new(message),
            time: None,
            channel: None,
        };
        match self.request(action, context).await?.body {
            Body::Structured(echo) if echo.direction == Some(Direction::Inbound) => echo
                .id
                .ok_or_else(|| lost("the acknowledgement has no usable message ID")),
            other => Err(unexpected(other.class())),
        }
    }

    /// Closes the connection; the session continues to exist.
    pub(crate) async fn close(mut self) {
        let goodbye = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        // Do not wait for the peer's close frame longer than the timeout.
        let _ = self
            .clock
            .timeout(Duration::from_secs(1), self.socket.close(Some(goodbye)))
            .await;
    }

    /// Sends one frame and waits for the frame with its tracing ID. Frames in between are ignored;
    /// frames of unknown classes are counted.
    async fn request(
        &mut self,
        action: Action,
        context: &CallContext,
    ) -> Result<ServerFrame, AttemptError> {
        let limit = self.limit.min(context.deadline.since(self.clock.now()));
        if limit.is_zero() {
            return Err(AttemptError::NotSent("the deadline has passed".to_owned()));
        }
        let (clock, name) = (self.clock.clone(), action.name());
        let tracing_id = Uuid::new_v4().to_string();
        let _busy = clock.pause_auto_advance();
        self.stats.sent();
        let pulse = Arc::clone(&self.pulse);
        let _in_flight = pulse.call(context.priority);
        let answer = clock
            .timeout(limit, self.exchange(action, &tracing_id))
            .await;
        let answer = answer.unwrap_or_else(|timed_out| Err(lost(timed_out.to_string())));
        let class = answer
            .as_ref()
            .ok()
            .map(|frame| frame.body.class().to_owned());
        trace!(
            action = name,
            tracing_id,
            class,
            error = answer.as_ref().err().map(AttemptError::redacted),
            "frame"
        );
        answer.map_err(|error| match CorrelationId::new(&tracing_id) {
            Some(id) => error.with_correlation_id(id),
            None => error,
        })
    }

    async fn exchange(
        &mut self,
        action: Action,
        tracing_id: &str,
    ) -> Result<ServerFrame, AttemptError> {
        let frame = ClientFrame {
            token: self.token.clone(),
            tracing_id: Some(tracing_id.to_owned()),
            action,
        };
        self.socket
            .send(WsMessage::text(frame.to_text()))
            .await
            .map_err(|error| broken(&error))?;
        loop {
            let next = match self.clock.timeout(PING_EVERY, self.socket.next()).await {
                Ok(next) => next,
                Err(_) => {
                    self.socket
                        .send(WsMessage::Ping(Bytes::new()))
                        .await
                        .map_err(|error| broken(&error))?;
                    continue;
                }
            };
            let text = match next {
                Some(Ok(WsMessage::Text(text))) => text,
                Some(Ok(WsMessage::Ping(_) | WsMessage::Pong(_) | WsMessage::Frame(_))) => continue,
                Some(Ok(WsMessage::Binary(_))) => return Err(lost("received a binary frame")),
                Some(Ok(WsMessage::Close(_))) | None => {
                    return Err(lost(
                        "the platform closed the connection before it responded",
                    ));
                }
                Some(Err(error)) => return Err(broken(&error)),
            };
            let address = Address::parse(text.as_str())
                .ok_or_else(|| lost("received a text that is not a frame of the guest API"))?;
            if !Body::is_known(&address.class) {
                debug!(
                    class = address.class,
                    "received a frame of an unknown class"
                );
                self.stats.unknown_frame();
            }
            if address.is_for(tracing_id) {
                let frame = ServerFrame::parse(text.as_str());
                return accepted(frame.map_err(|_| {
                    lost(format!(
                        "received a frame of class {} with an unexpected structure",
                        address.class
                    ))
                })?);
            }
            // Other frames need not be valid, because they belong to no request here. Only frames
            // that end the session or the connection matter.
            match address.class.as_str() {
                "ConnectionClosedEvent" | "LogoutEvent" => {
                    return Err(lost("the platform ended the connection"));
                }
                "SessionExpiredEvent" => return Err(session_is_over()),
                _ => {}
            }
        }
    }
}

/// Returns the error of an expired guest session.
pub(super) fn session_is_over() -> AttemptError {
    refused(4006, "Session has expired")
}

#[cfg(test)]
mod tests;
