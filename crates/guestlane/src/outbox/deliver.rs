//! One event, one try, one verdict.

use std::{io, net::IpAddr, time::Duration};

use bytes::Bytes;
use guestlane_genesys::{
    Clock, Timestamp, TlsRoots,
    foreign::one_line,
    http_client::{HttpClient, HttpResponse, NoTlsRoots, NotConnected, Parsing, TransportError, retry_after},
    tls_error, trace_context,
};
use http::{Request, StatusCode, header};
use http_body_util::Full;
use url::{Host, Url};

use super::{
    event::Event,
    keys::EndpointKeys,
    ssrf::{EgressPolicy, NOT_PUBLIC, SsrfGuardResolver},
};
use crate::store::DeliveryState;

/// The longest a try may take (requirement R10, docs/requirements.md).
pub(crate) const TRY_LIMIT: Duration = Duration::from_secs(3);

/// The longest wait that a receiver's `Retry-After` can ask for. The guest's later events wait
/// behind this one.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * HOUR);

/// How long an event may be old for a try that could not leave this machine not to count. A machine
/// that is unable for longer (it has no IPv6, for example, and the receiver has nothing else) gets
/// its dead letters, for a person to see.
const LOCAL_PATIENCE: Duration = Duration::from_secs(24 * HOUR);

/// When the tries come after the event, each counted from the failure of the one before: the schedule of Standard Webhooks.
const RETRY_SCHEDULE: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * MINUTE),
    Duration::from_secs(30 * MINUTE),
    Duration::from_secs(2 * HOUR),
    Duration::from_secs(5 * HOUR),
    Duration::from_secs(10 * HOUR),
    Duration::from_secs(14 * HOUR),
    Duration::from_secs(20 * HOUR),
    Duration::from_secs(24 * HOUR),
];
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// What came of a try.
#[derive(Debug)]
pub(super) enum Tried {
    /// The receiver answered or did not: this is written down.
    Settled(DeliveryOutcome),
    /// The receiver answered 410 Gone: it wants no more events. The event waits until the endpoint is enabled again.
    Gone(DeliveryOutcome),
    /// This machine could not connect, for the reason that is said. The receiver has no part in it,
    /// so it is none of its tries.
    Local(String),
}

/// What a try came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The CRM has it.
    Delivered,
    /// It is tried again.
    Retry {
        /// When.
        at: Timestamp,
        /// Why it failed.
        error: String,
    },
    /// That was the last try.
    Dead {
        /// Why it failed.
        error: String,
    },
}

impl DeliveryOutcome {
    /// How the event stands from now on, when it is due again, and why the try failed.
    pub(crate) fn into_parts(self) -> (DeliveryState, Option<Timestamp>, Option<String>) {
        match self {
            Self::Delivered => (DeliveryState::Delivered, None, None),
            Self::Retry { at, error } => (DeliveryState::Pending, Some(at), Some(one_line(&error))),
            Self::Dead { error } => (DeliveryState::Dead, None, Some(one_line(&error))),
        }
    }
}

/// The CRM, as far as we know it.
#[derive(Debug)]
pub struct WebhookEndpoint {
    url: Url,
    networks: EgressPolicy,
    transport: HttpClient<SsrfGuardResolver>,
    clock: Clock,
}

impl WebhookEndpoint {
    /// Nothing is sent yet.
    pub fn new(url: Url, networks: EgressPolicy, trust: &TlsRoots, clock: Clock) -> Result<Self, NoTlsRoots> {
        let transport =
            HttpClient::with_resolver(clock.clone(), TRY_LIMIT, SsrfGuardResolver(networks), trust, Parsing::Lenient)?;
        Ok(Self { url, networks, transport, clock })
    }

    /// Sends the event once, signed with `keys`, and decides what follows.
    pub(super) async fn deliver(&self, event: &Event, keys: &EndpointKeys) -> Tried {
        let sent = self.send(event, keys).await;
        let now = self.clock.now();
        let sent = match sent {
            Err(TransportError::Local(reason)) if now.since(event.created_at) < LOCAL_PATIENCE => return Tried::Local(reason),
            sent => sent,
        };
        if sent.as_ref().is_ok_and(|answer| answer.status == StatusCode::GONE) {
            return Tried::Gone(DeliveryOutcome::Retry {
                at: now,
                error: "the CRM answered HTTP 410: the endpoint is disabled".to_owned(),
            });
        }
        Tried::Settled(match classify_response(sent, now) {
            Ok(()) => DeliveryOutcome::Delivered,
            Err(failed) => after_failure(event.tries, failed, now, fastrand::f64()),
        })
    }

    async fn send(&self, event: &Event, keys: &EndpointKeys) -> Result<HttpResponse, TransportError> {
        if !self.may_connect() {
            return Err(TransportError::NotSent(NOT_PUBLIC.to_owned()));
        }
        let now = self.clock.now();
        let mut request = Request::post(self.url.as_str());
        if let Some(trace) = trace_context::current().or(event.trace) {
            request = request.header("traceparent", trace.to_string());
        }
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("guestlane/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &event.id)
            .header("webhook-timestamp", now.unix_seconds())
            .header("webhook-signature", keys.sign(&event.id, now, event.body.as_bytes()))
            .body(Full::new(Bytes::copy_from_slice(event.body.as_bytes())))
            .map_err(|error| TransportError::NotSent(error.to_string()))?;
        self.transport.send_for_head(request, now + TRY_LIMIT).await
    }

    /// Opens a connection as a delivery would, TLS handshake included, and closes it. No event is sent.
    ///
    /// # Errors
    /// A delivery would get no answer, for the same reason.
    pub(crate) async fn connect(&self) -> Result<(), NotConnected> {
        let failed = |error: io::Error| NotConnected::Failed(error.into());
        if !self.may_connect() {
            return Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, NOT_PUBLIC)));
        }
        let uri = self.url.as_str().parse().map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        self.transport.connect(uri).await
    }

    /// A host that is written as an address is never resolved, so it is vetted here.
    fn may_connect(&self) -> bool {
        self.literal_address().is_none_or(|address| self.networks.allow(address))
    }

    fn literal_address(&self) -> Option<IpAddr> {
        match self.url.host()? {
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
            Host::Domain(_) => None,
        }
    }
}

#[derive(Debug)]
struct Failed {
    error: String,
    at_least: Duration,
}

/// 2xx is delivered, whatever follows the status line; all else is not: a redirect is not followed,
/// it could lead anywhere.
fn classify_response(sent: Result<HttpResponse, TransportError>, now: Timestamp) -> Result<(), Failed> {
    match sent {
        Ok(answer) if answer.status.is_success() => Ok(()),
        Ok(answer) => {
            let redirect = if answer.status.is_redirection() { " (redirects are not followed)" } else { "" };
            let error = format!("the CRM answered HTTP {}{redirect}", answer.status.as_u16());
            Err(Failed { error, at_least: retry_after(&answer.headers, now, MAX_RETRY_AFTER).unwrap_or_default() })
        }
        Err(no_answer) => {
            let untrusted = no_answer.to_string().contains(tls_error::UNTRUSTED);
            let setting = if untrusted { " (CRM_CA_FILE)" } else { "" };
            Err(Failed { error: format!("the CRM did not answer: {no_answer}{setting}"), at_least: Duration::ZERO })
        }
    }
}

/// The next try, a tenth earlier or later so that a crowd spreads; never before the receiver's `Retry-After`.
fn after_failure(tries: u32, failed: Failed, now: Timestamp, spread: f64) -> DeliveryOutcome {
    match RETRY_SCHEDULE.get(tries as usize) {
        Some(wait) => {
            let wait = wait.mul_f64(0.9 + 0.2 * spread).max(failed.at_least);
            DeliveryOutcome::Retry { at: now + wait, error: failed.error }
        }
        None => DeliveryOutcome::Dead { error: failed.error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_micros(0);

    fn failed(at_least: u64) -> Failed {
        Failed { error: "HTTP 500".to_owned(), at_least: Duration::from_secs(at_least) }
    }

    #[test]
    fn there_are_ten_tries_and_then_a_dead_letter() {
        let waits: Vec<_> = (0..9)
            .map(|tries| match after_failure(tries, failed(0), NOW, 0.5) {
                DeliveryOutcome::Retry { at, .. } => at.since(NOW).as_secs(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(waits, [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]);
        assert!(matches!(after_failure(9, failed(0), NOW, 0.5), DeliveryOutcome::Dead { .. }));
    }

    #[test]
    fn the_receivers_retry_after_is_a_floor() {
        let DeliveryOutcome::Retry { at, .. } = after_failure(0, failed(60), NOW, 0.0) else { panic!() };
        assert_eq!(at.since(NOW).as_secs(), 60);
    }
}
