//! HTTP client: sends one request and returns one response, or the reason why there is none.
//!
//! Requests have a timeout, bodies are read up to a limit, and redirects are not followed.

mod exchange;
mod outcome;

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use exchange::{RedactedExchange, chain, is_local, read};
use http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::rt::Write;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioTimer},
};
use tower_service::Service;
use tracing::{Level, enabled};

use crate::{Clock, Timestamp, TlsRoots, resolver::SystemResolver};
pub use outcome::{HttpResponse, NoTlsRoots, NotConnected, Parsing, TransportError, Upgrade};

/// Maximum size of a response body in bytes.
pub const MAX_RESPONSE_BYTES: usize = 1024 * 1024;

/// Maximum number of body bytes to drain when only the status counts. Draining lets the connection
/// be reused.
const MAX_DRAINED: usize = 64 * 1024;

/// Timeout of draining a body.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);

/// Maximum number of headers of a leniently parsed response; hyper's default is 100.
const MAX_HEADERS: usize = 1000;

/// Maximum size of all headers of a leniently parsed response over HTTP/2, in bytes; hyper's
/// default is 16 KiB.
const MAX_HEADER_LIST: u32 = 256 * 1024;

/// Timeout of opening a TCP connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Idle timeout of pooled connections. It is shorter than the 60 to 75 s after which load balancers
/// close idle connections: a POST on a connection that is being closed would have an unknown
/// outcome.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// Maximum number of idle HTTP/1.1 connections per host. Over HTTP/2 there is one connection. Calls
/// that start while there is none open one each, because only the handshake shows which protocol
/// the host speaks; all but the first are then closed.
const MAX_IDLE: usize = 256;

/// Response header that identifies the exchange at the peer; it is logged.
const CORRELATION_HEADER: &str = "inin-correlation-id";

/// Interval of HTTP/2 keep-alive pings. All calls share one connection: without pings, every call
/// on a dead connection would time out until the pool drops it.
const PING_EVERY: Duration = Duration::from_secs(5);

/// How long the peer may take to answer an HTTP/2 ping.
const PING_LIMIT: Duration = Duration::from_secs(5);

/// The protocols offered by ALPN, in order of preference.
const HTTP_2_OR_1: &[&[u8]] = &[b"h2", b"http/1.1"];

/// The protocol offered for a WebSocket connection: the WebSocket upgrade is part of HTTP/1.1 (RFC
/// 6455).
const HTTP_1: &[&[u8]] = &[b"http/1.1"];

/// An HTTP client with connection pools. `R` resolves host names.
#[derive(Debug, Clone)]
pub struct HttpClient<R = SystemResolver> {
    client: HyperClient<R>,
    /// Pool for protocol upgrades; HTTP/1.1 only.
    upgrades: HyperClient<R>,
    connector: HttpsConnector<HttpConnector<R>>,
    clock: Clock,
    limit: Duration,
}

type HyperClient<R> = Client<HttpsConnector<HttpConnector<R>>, Full<Bytes>>;

mod rustls_error {
    /// The error that `hyper-rustls` returns when there are no root certificates.
    pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;
}

impl HttpClient<SystemResolver> {
    /// Creates a client that connects to the addresses of the system's resolver. `limit` is the
    /// timeout of each request, including reading the response.
    ///
    /// # Errors
    ///
    /// Fails if the system's root certificates cannot be loaded.
    pub fn new(clock: Clock, limit: Duration, trust: &TlsRoots) -> Result<Self, NoTlsRoots> {
        Self::with_resolver(clock, limit, SystemResolver, trust, Parsing::Strict)
    }
}

impl<R> HttpClient<R>
where
    R: tower_service::Service<Name> + Clone + Send + Sync + 'static,
    R::Response: Iterator<Item = std::net::SocketAddr>,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    R::Future: Send,
    HttpConnector<R>: tower_service::Service<
            http::Uri,
            Response = hyper_util::rt::TokioIo<tokio::net::TcpStream>,
            Error: Into<Box<dyn std::error::Error + Send + Sync>>,
            Future: Send,
        > + Clone
        + Send
        + Sync
        + 'static,
{
    /// Like [`HttpClient::new`], with a resolver that may refuse addresses.
    ///
    /// # Errors
    ///
    /// Fails if the system's root certificates cannot be loaded.
    pub fn with_resolver(
        clock: Clock,
        limit: Duration,
        resolver: R,
        trust: &TlsRoots,
        parsing: Parsing,
    ) -> Result<Self, NoTlsRoots> {
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_LIMIT));
        let tls = trust
            .client_config(None)
            .map_err(|error| NoTlsRoots(Box::new(error)))?;
        let client = |protocols: &[&[u8]]| {
            let mut tls = tls.clone();
            tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            let mut builder = Client::builder(TokioExecutor::new());
            if parsing == Parsing::Lenient {
                builder
                    .http1_allow_spaces_after_header_name_in_responses(true)
                    .http1_allow_obsolete_multiline_headers_in_responses(true)
                    .http1_ignore_invalid_headers_in_responses(true)
                    .http1_max_headers(MAX_HEADERS)
                    .http2_max_header_list_size(MAX_HEADER_LIST);
            }
            builder
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_LIMIT)
                .pool_max_idle_per_host(MAX_IDLE)
                .http2_keep_alive_interval(PING_EVERY)
                .http2_keep_alive_timeout(PING_LIMIT)
                .build(HttpsConnector::from((tcp.clone(), tls)))
        };
        let connector = HttpsConnector::from((tcp.clone(), tls.clone()));
        Ok(Self {
            client: client(HTTP_2_OR_1),
            upgrades: client(HTTP_1),
            connector,
            clock,
            limit,
        })
    }

    /// Sends one request and reads the whole response, within the client's timeout or until
    /// `deadline`, whichever is first.
    ///
    /// # Errors
    ///
    /// Fails if the request is not sent, if no complete response arrives in time, or if the body
    /// exceeds [`MAX_RESPONSE_BYTES`].
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Timestamp,
    ) -> Result<HttpResponse, TransportError> {
        let limit = self.time_left(deadline)?;
        let shape = enabled!(Level::TRACE).then(|| RedactedExchange::of(&request));
        let answer = self.with_timeout(limit, self.exchange(request)).await;
        if let Some(shape) = shape {
            shape.log(&answer);
        }
        answer
    }

    /// Sends one request and returns the status and headers of the response, within the client's
    /// timeout or until `deadline`, whichever is first.
    ///
    /// The body is drained only up to a short time and size limit, so that the connection can be
    /// reused. A failure to drain it does not change the result.
    ///
    /// # Errors
    ///
    /// Fails if the request is not sent, or if no response head arrives in time.
    pub async fn send_for_head(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Timestamp,
    ) -> Result<HttpResponse, TransportError> {
        let limit = self.time_left(deadline)?;
        let shape = enabled!(Level::TRACE).then(|| RedactedExchange::of(&request));
        let response = self
            .with_timeout(limit, Self::request(&self.client, request))
            .await;
        let answer = match response {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let _ = self
                    .clock
                    .timeout(DRAIN_LIMIT, Limited::new(body, MAX_DRAINED).collect())
                    .await;
                Ok(HttpResponse {
                    status: head.status,
                    headers: head.headers,
                    body: Bytes::new(),
                })
            }
            Err(no_answer) => Err(no_answer),
        };
        if let Some(shape) = shape {
            shape.log(&answer);
        }
        answer
    }

    /// Opens a connection as a request would, including the TLS handshake, and closes it within the
    /// time limit. No request is sent.
    ///
    /// # Errors
    ///
    /// Fails if the name, the address, the port or the certificate cannot be used. The error has
    /// the cause.
    pub async fn connect(&self, to: Uri) -> Result<(), NotConnected> {
        let mut connector = self.connector.clone();
        let opening = async {
            std::future::poll_fn(|context| connector.poll_ready(context)).await?;
            let mut connection = connector.call(to).await?;
            // The handshake is complete; whether the close succeeds does not matter.
            let _ =
                std::future::poll_fn(|context| Pin::new(&mut connection).poll_shutdown(context))
                    .await;
            Ok(())
        };
        let _busy = self.clock.pause_auto_advance();
        match self.clock.timeout(self.limit, opening).await {
            Ok(opened) => opened.map_err(NotConnected::Failed),
            Err(late) => Err(NotConnected::TimedOut(late)),
        }
    }

    /// Returns the timeout of a request, including reading the response.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Requests a protocol upgrade of the connection, within the client's timeout or until
    /// `deadline`.
    ///
    /// # Errors
    /// Fails like [`send`](Self::send).
    pub async fn upgrade(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Timestamp,
    ) -> Result<Upgrade, TransportError> {
        let limit = self.time_left(deadline)?;
        let ask = async {
            let mut response = Self::request(&self.upgrades, request).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return read(response).await.map(Upgrade::Rejected);
            }
            let upgraded = hyper::upgrade::on(&mut response)
                .await
                .map_err(|error| TransportError::Lost(chain(&error)))?;
            Ok(Upgrade::Accepted(response.into_parts().0.headers, upgraded))
        };
        self.with_timeout(limit, ask).await
    }

    /// Returns the time that a request may take. Fails without sending it when no time is left.
    fn time_left(&self, deadline: Timestamp) -> Result<Duration, TransportError> {
        let limit = self.limit.min(deadline.since(self.clock.now()));
        if limit.is_zero() {
            Err(TransportError::NotSent(
                "the deadline has passed".to_owned(),
            ))
        } else {
            Ok(limit)
        }
    }

    /// Runs `work` with a timeout of `limit`. The manual clock does not advance meanwhile.
    async fn with_timeout<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, TransportError>>,
    ) -> Result<T, TransportError> {
        let _busy = self.clock.pause_auto_advance();
        let ended = self.clock.timeout(limit, work).await;
        ended.unwrap_or_else(|timed_out| Err(TransportError::Lost(timed_out.to_string())))
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<HttpResponse, TransportError> {
        read(Self::request(&self.client, request).await?).await
    }

    /// Sends a request over `client`.
    ///
    /// A request counts as lost once some bytes may have been sent. That includes requests which an
    /// HTTP/2 peer reports as not processed (REFUSED_STREAM, GOAWAY). The HTTP library does not
    /// distinguish these cases.
    async fn request(
        client: &HyperClient<R>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<hyper::body::Incoming>, TransportError> {
        client.request(request).await.map_err(|error| {
            let reason = chain(&error);
            match error.is_connect() {
                true if is_local(&error) => TransportError::Local(reason),
                true => TransportError::NotSent(reason),
                false => TransportError::Lost(reason),
            }
        })
    }
}

/// Parses `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3). A wait longer than
/// `most` counts as an error of the server and is reduced to `most`.
pub fn retry_after(headers: &HeaderMap, now: Timestamp, most: Duration) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number with more digits than `u64` holds is also a long wait.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)).min(most));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let since_epoch = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    let moment = Timestamp::from_unix_micros(i64::try_from(since_epoch.as_micros()).ok()?);
    Some(moment.since(now).min(most))
}

#[cfg(test)]
mod tests;
