//! Sends one delivery of an event and classifies the response.

use std::{io, net::IpAddr, time::Duration};

use bytes::Bytes;
use guestlane_runtime::{
    Clock, Timestamp, TlsRoots,
    http_client::{
        HttpClient, HttpResponse, NoTlsRoots, NotConnected, Parsing, TransportError, retry_after,
    },
    trace_context,
};
use http::{Request, StatusCode, header};
use http_body_util::Full;
use url::{Host, Url};

use super::keys::EndpointKeys;
use guestlane_core::event::Event;
use guestlane_runtime::ssrf::{EgressPolicy, SsrfGuardResolver};
use guestlane_store::DeliveryOutcome;

/// Longest wait that an endpoint's `Retry-After` can set. The guest's later events wait behind this
/// one.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * HOUR);

/// Age of an event up to which a delivery that could not leave this host is not counted.
///
/// A host may be unable to connect for longer, for example without IPv6 when the receiver has
/// nothing else. Then events become dead letters, so that an operator sees the problem.
const LOCAL_PATIENCE: Duration = Duration::from_secs(24 * HOUR);

/// Waits between the deliveries of an event, each from the failure of the previous one.
///
/// This is the schedule of Standard Webhooks.
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

/// Result of a delivery, before it is stored.
#[derive(Debug)]
pub(super) enum DeliveryAttempt {
    /// The endpoint responded, or the delivery failed on its way; the outcome is stored.
    Settled(DeliveryOutcome),
    /// The endpoint responded 410 Gone and takes no more events. The event waits until the endpoint
    /// is enabled again.
    Gone(DeliveryOutcome),
    /// This host could not connect, for the given reason. The delivery is not counted, because the
    /// endpoint did not cause the failure.
    Local(String),
}

/// The HTTP client of one webhook endpoint.
#[derive(Debug)]
pub struct WebhookEndpoint {
    url: Url,
    networks: EgressPolicy,
    transport: HttpClient<SsrfGuardResolver>,
    clock: Clock,
}

impl WebhookEndpoint {
    /// Timeout of a delivery (requirement R10, docs/requirements.md).
    pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

    /// Error message for an address that the egress policy forbids.
    pub const NOT_PUBLIC: &str =
        "the address is in a private network, which the egress policy forbids (docs/crm.md)";

    /// Creates the client without opening a connection.
    ///
    /// # Errors
    /// Returns [`NoTlsRoots`] if no trusted root certificate is found.
    pub fn new(
        url: Url,
        networks: EgressPolicy,
        trust: &TlsRoots,
        clock: Clock,
    ) -> Result<Self, NoTlsRoots> {
        let transport = HttpClient::with_resolver(
            clock.clone(),
            Self::ATTEMPT_TIMEOUT,
            SsrfGuardResolver {
                policy: networks,
                refusal: Self::NOT_PUBLIC,
            },
            trust,
            Parsing::Lenient,
        )?;
        Ok(Self {
            url,
            networks,
            transport,
            clock,
        })
    }

    /// Sends the event once, signed with `keys`, and decides what follows.
    pub(super) async fn deliver(&self, event: &Event, keys: &EndpointKeys) -> DeliveryAttempt {
        let sent = self.send(event, keys).await;
        let now = self.clock.now();
        let sent = match sent {
            Err(TransportError::Local(reason)) if now.since(event.created_at) < LOCAL_PATIENCE => {
                return DeliveryAttempt::Local(reason);
            }
            sent => sent,
        };
        if sent
            .as_ref()
            .is_ok_and(|answer| answer.status == StatusCode::GONE)
        {
            return DeliveryAttempt::Gone(DeliveryOutcome::Retry {
                at: now,
                error: "the endpoint responded with HTTP 410 and is disabled".to_owned(),
            });
        }
        DeliveryAttempt::Settled(match classify_response(sent, now) {
            Ok(()) => DeliveryOutcome::Delivered,
            Err(failed) => after_failure(event.attempts, failed, now, fastrand::f64()),
        })
    }

    async fn send(
        &self,
        event: &Event,
        keys: &EndpointKeys,
    ) -> Result<HttpResponse, TransportError> {
        if !self.may_connect() {
            return Err(TransportError::NotSent(Self::NOT_PUBLIC.to_owned()));
        }
        let now = self.clock.now();
        let mut request = Request::post(self.url.as_str());
        if let Some(trace) = trace_context::current().or(event.trace) {
            request = request.header("traceparent", trace.to_string());
        }
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .header(
                header::USER_AGENT,
                concat!("guestlane/", env!("CARGO_PKG_VERSION")),
            )
            .header("webhook-id", &event.id)
            .header("webhook-timestamp", now.unix_seconds())
            .header(
                "webhook-signature",
                keys.sign(&event.id, now, event.body.as_bytes()),
            )
            .body(Full::new(Bytes::copy_from_slice(event.body.as_bytes())))
            .map_err(|error| TransportError::NotSent(error.to_string()))?;
        self.transport
            .send_for_head(request, now + Self::ATTEMPT_TIMEOUT)
            .await
    }

    /// Opens a connection as a delivery would, TLS handshake included, and closes it. No event is
    /// sent.
    ///
    /// # Errors
    /// Returns [`NotConnected`] if a delivery would get no response, for the same reason.
    pub async fn connect(&self) -> Result<(), NotConnected> {
        let failed = |error: io::Error| NotConnected::Failed(error.into());
        if !self.may_connect() {
            return Err(failed(io::Error::new(
                io::ErrorKind::PermissionDenied,
                Self::NOT_PUBLIC,
            )));
        }
        let uri = self
            .url
            .as_str()
            .parse()
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        self.transport.connect(uri).await
    }

    /// Checks a host that is written as an IP address, because the resolver never sees it.
    fn may_connect(&self) -> bool {
        self.literal_address()
            .is_none_or(|address| self.networks.allow(address))
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

/// Accepts any 2xx, whatever follows the status line, and nothing else.
///
/// Redirects are not followed, because they could lead anywhere.
fn classify_response(
    sent: Result<HttpResponse, TransportError>,
    now: Timestamp,
) -> Result<(), Failed> {
    match sent {
        Ok(answer) if answer.status.is_success() => Ok(()),
        Ok(answer) => {
            let redirect = if answer.status.is_redirection() {
                " (redirects are not followed)"
            } else {
                ""
            };
            let error = format!(
                "the endpoint responded with HTTP {}{redirect}",
                answer.status.as_u16()
            );
            Err(Failed {
                error,
                at_least: retry_after(&answer.headers, now, MAX_RETRY_AFTER).unwrap_or_default(),
            })
        }
        Err(no_answer) => Err(Failed {
            error: format!("the endpoint did not respond: {no_answer}"),
            at_least: Duration::ZERO,
        }),
    }
}

/// Schedules the next delivery, with 10 % jitter so that events of one outage spread.
///
/// The wait is never shorter than the endpoint's `Retry-After`.
fn after_failure(attempts: u32, failed: Failed, now: Timestamp, spread: f64) -> DeliveryOutcome {
    match RETRY_SCHEDULE.get(attempts as usize) {
        Some(wait) => {
            let wait = wait.mul_f64(0.9 + 0.2 * spread).max(failed.at_least);
            DeliveryOutcome::Retry {
                at: now + wait,
                error: failed.error,
            }
        }
        None => DeliveryOutcome::Dead {
            error: failed.error,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_micros(0);

    fn failed(at_least: u64) -> Failed {
        Failed {
            error: "HTTP 500".to_owned(),
            at_least: Duration::from_secs(at_least),
        }
    }

    #[test]
    fn tenth_failed_attempt_becomes_a_dead_letter() {
        let waits: Vec<_> = (0..9)
            .map(
                |attempts| match after_failure(attempts, failed(0), NOW, 0.5) {
                    DeliveryOutcome::Retry { at, .. } => at.since(NOW).as_secs(),
                    other => panic!("{other:?}"),
                },
            )
            .collect();
        assert_eq!(
            waits,
            [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
        );
        assert!(matches!(
            after_failure(9, failed(0), NOW, 0.5),
            DeliveryOutcome::Dead { .. }
        ));
    }

    #[test]
    fn retry_after_is_the_minimum_delay() {
        let DeliveryOutcome::Retry { at, .. } = after_failure(0, failed(60), NOW, 0.0) else {
            panic!()
        };
        assert_eq!(at.since(NOW).as_secs(), 60);
    }
}
