//! The upgrade to the guest WebSocket: checks of origin, deployment and connection limits
//! (docs/platform.md#guest-socket).

use guestlane_runtime::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use uuid::Uuid;

use crate::{
    options::UnknownDeployment,
    organization::{Organization, guests::CONNECTIONS_PER_MINUTE},
    rate_window::Window,
    request::parameter,
    response::{self, Body, Refusal},
};

/// Marks a response that accepts the upgrade. The connection is a WebSocket afterwards.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Agreed;

impl Organization {
    /// `GET /v1?deploymentId=…`
    pub(crate) fn upgrade(
        &mut self,
        headers: &HeaderMap,
        query: Option<&str>,
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        let key = handshake(headers)?;
        let deployment = parameter(query, "deploymentId").unwrap_or_default();
        if deployment.is_empty() {
            return Err(Refusal::bad_request("deploymentId is missing."));
        }
        let known = Uuid::try_parse(&deployment).is_ok_and(|id| id == self.options.deployment.id);
        if let UnknownDeployment::Upgrade(status) = self.options.unknown_deployment
            && !known
        {
            return Err(Refusal::new(
                status,
                "bad.request",
                "The deployment is unknown.",
            ));
        }
        if !self.allows(headers) {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "not.authorized",
                "The origin is not allowed by the deployment.",
            ));
        }
        let window = self.guests.upgrades.get_or_insert_with(|| Window::new(now));
        let (rate, room) = window.take_of_minute(CONNECTIONS_PER_MINUTE, now);
        if !room {
            return Err(Refusal::too_many_requests(rate.reset));
        }
        let mut response = response::empty(StatusCode::SWITCHING_PROTOCOLS);
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()));
        let accept = accept.map_err(|_| Refusal::bad_request("Sec-WebSocket-Key is not valid."))?;
        let set = response.headers_mut();
        set.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        set.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        set.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        response.extensions_mut().insert(Agreed);
        Ok(response)
    }

    /// Returns whether the host name of the origin is an allowed domain or a subdomain of one.
    /// Scheme and port are ignored.
    fn allows(&self, headers: &HeaderMap) -> bool {
        let deployment = &self.options.deployment;
        if deployment.allow_all_domains {
            return true;
        }
        let origin = headers
            .get(header::ORIGIN)
            .and_then(|value| url::Url::parse(value.to_str().ok()?).ok());
        let host = origin
            .as_ref()
            .and_then(url::Url::host_str)
            .unwrap_or_default();
        let within = |domain: &String| {
            host.strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        !host.is_empty() && deployment.allowed_domains.iter().any(within)
    }
}

/// Returns the client's key if the request is for a WebSocket (RFC 6455, section 4.2.1).
fn handshake(headers: &HeaderMap) -> Result<&str, Refusal> {
    let has = |name: HeaderName, wanted: &str| {
        let values = headers.get_all(name);
        values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| {
                value
                    .split(',')
                    .any(|part| part.trim().eq_ignore_ascii_case(wanted))
            })
    };
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return Err(Refusal::new(
            StatusCode::UPGRADE_REQUIRED,
            "bad.request",
            "This path accepts WebSocket connections only.",
        ));
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(Refusal::new(
            StatusCode::UPGRADE_REQUIRED,
            "bad.request",
            "Sec-WebSocket-Version is not 13.",
        ));
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .and_then(|key| key.to_str().ok());
    key.ok_or_else(|| Refusal::bad_request("Sec-WebSocket-Key is missing."))
}
