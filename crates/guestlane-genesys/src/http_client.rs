//! One request, one answer or one reason why not. Time-limited; answers are read up to a bound; redirects are not followed.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
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
use rustix::io::Errno;
use tower_service::Service;
use tracing::{Level, enabled, trace};

use crate::{
    clock::{Clock, TimedOut, Timestamp},
    error::{AttemptError, ErrorResponse},
    foreign::{CorrelationId, ErrorCode, Sentence, lenient, one_line},
    redaction,
    resolver::SystemResolver,
    tls_error,
    tls_roots::TlsRoots,
};

/// 4xx that say nothing of what an earlier attempt did: the request was too slow, or was sent too early.
const AMBIGUOUS_STATUSES: [StatusCode; 3] = [StatusCode::REQUEST_TIMEOUT, StatusCode::LOCKED, StatusCode::TOO_EARLY];

/// The longest answer that is read.
pub const MAX_RESPONSE_BYTES: usize = 1024 * 1024;

/// The longest wait that the platform may ask for. Its windows last a minute; a longer wait is
/// taken for an outage, whose end is found by a call.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Of an answer whose status says all, the most of the body that is read so that the connection can
/// be used again.
const MAX_DRAINED: usize = 64 * 1024;

/// How long reading that may take.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);

/// The most headers of a lenient answer; hyper's default is 100.
const MAX_HEADERS: usize = 1000;

/// Bytes of all headers of a lenient answer over HTTP/2; hyper's default is 16 KiB.
const MAX_HEADER_LIST: u32 = 256 * 1024;

/// How long a TCP connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Shorter than the 60 to 75 s after which load balancers close idle connections: a POST on a connection that is being closed
/// would be one of unknown outcome.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// The most connections of HTTP/1.1 to a host that are kept while they do nothing. Of HTTP/2 there is one: calls that come when there is none
/// open one each, as it shows only then what the host speaks, and all but the first are closed again.
const MAX_IDLE: usize = 256;

/// After so long without a sign of life the other side of an HTTP/2 connection is asked for one. All calls share the connection: were it dead,
/// they would all time out on it, as long as it is believed in.
const PING_EVERY: Duration = Duration::from_secs(5);

/// How long it may take to give that sign of life.
const PING_LIMIT: Duration = Duration::from_secs(5);

/// What is offered by ALPN, the most wanted first.
const HTTP_2_OR_1: &[&[u8]] = &[b"h2", b"http/1.1"];

/// What a connection that is to become a WebSocket is offered: its upgrade is one of HTTP/1.1 (RFC 6455).
const HTTP_1: &[&[u8]] = &[b"http/1.1"];

/// Pools of connections and the way to use one. `R` resolves host names.
#[derive(Debug, Clone)]
pub struct HttpClient<R = SystemResolver> {
    client: HyperClient<R>,
    /// For upgrades: HTTP/1.1 only.
    upgrades: HyperClient<R>,
    connector: HttpsConnector<HttpConnector<R>>,
    clock: Clock,
    limit: Duration,
}

type HyperClient<R> = Client<HttpsConnector<HttpConnector<R>>, Full<Bytes>>;

/// An answer, whatever its status.
#[derive(Debug)]
pub struct HttpResponse {
    /// HTTP status.
    pub status: StatusCode,
    /// HTTP headers.
    pub headers: HeaderMap,
    /// The body, whole.
    pub body: Bytes,
}

/// How strictly the head of an answer over HTTP/1.1 is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsing {
    /// As RFC 9112 has it: for a server whose answers are used.
    Strict,
    /// Header lines that are no header are passed over, and many are taken: for a server of which
    /// only the status line counts.
    Lenient,
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// This machine has no file descriptor, port or memory left for a connection: the request was
    /// not sent, and the other side has no part in it.
    #[error("{0}")]
    Local(String),
    /// The request was not sent.
    #[error("{0}")]
    NotSent(String),
    /// It was sent, at least in part.
    #[error("{0}")]
    Lost(String),
}

/// Why no connection was opened.
#[derive(Debug, thiserror::Error)]
pub enum NotConnected {
    /// It took longer than a request may take.
    #[error("{0}")]
    TimedOut(TimedOut),
    /// The cause is in the sources: an I/O error, or a failure of TLS ([`tls_error::find`]).
    #[error("{}", chain(&**.0))]
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

/// The operating system's certificates could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("no trusted certificates on this machine (install the package `ca-certificates`): {0}")]
pub struct NoTlsRoots(#[source] rustls_error::Error);

mod rustls_error {
    /// What `hyper-rustls` answers when there are no roots.
    pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;
}

/// What asking for another protocol came to.
#[derive(Debug)]
pub(crate) enum Upgrade {
    /// The connection is ours.
    Accepted(HeaderMap, hyper::upgrade::Upgraded),
    /// It is not.
    Rejected(HttpResponse),
}

impl HttpClient<SystemResolver> {
    /// Connects to whatever the system's resolver says. `limit` bounds each request with its answer.
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
    /// As [`HttpClient::new`], with a resolver that may refuse addresses.
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
        let tls = trust.client_config(None).map_err(|error| NoTlsRoots(Box::new(error)))?;
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
        Ok(Self { client: client(HTTP_2_OR_1), upgrades: client(HTTP_1), connector, clock, limit })
    }

    /// Sends one request and reads the whole answer, within the time limit or until `deadline`, whichever is first.
    pub async fn send(&self, request: Request<Full<Bytes>>, deadline: Timestamp) -> Result<HttpResponse, TransportError> {
        let limit = self.time_left(deadline)?;
        let shape = enabled!(Level::TRACE).then(|| RedactedExchange::of(&request));
        let answer = self.with_timeout(limit, self.exchange(request)).await;
        if let Some(shape) = shape {
            shape.log(&answer);
        }
        answer
    }

    /// Sends one request of whose answer only status line and headers count, within the time limit
    /// or until `deadline`, whichever is first. The body is read only as far as that is quick, so
    /// that the connection can be used again; whatever becomes of it, the answer stands.
    pub async fn send_for_head(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Timestamp,
    ) -> Result<HttpResponse, TransportError> {
        let limit = self.time_left(deadline)?;
        let shape = enabled!(Level::TRACE).then(|| RedactedExchange::of(&request));
        let response = self.with_timeout(limit, Self::request(&self.client, request)).await;
        let answer = match response {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let _ = self.clock.timeout(DRAIN_LIMIT, Limited::new(body, MAX_DRAINED).collect()).await;
                Ok(HttpResponse { status: head.status, headers: head.headers, body: Bytes::new() })
            }
            Err(no_answer) => Err(no_answer),
        };
        if let Some(shape) = shape {
            shape.log(&answer);
        }
        answer
    }

    /// Opens a connection as a request would, TLS handshake included, and closes it within the time limit. No request is
    /// sent.
    ///
    /// # Errors
    ///
    /// The name, the address, the port or the certificate cannot be used: the cause is in the error.
    pub async fn connect(&self, to: Uri) -> Result<(), NotConnected> {
        let mut connector = self.connector.clone();
        let opening = async {
            std::future::poll_fn(|context| connector.poll_ready(context)).await?;
            let mut connection = connector.call(to).await?;
            // The handshake is done; whether the peer waits for the end does not matter.
            let _ = std::future::poll_fn(|context| Pin::new(&mut connection).poll_shutdown(context)).await;
            Ok(())
        };
        let _busy = self.clock.pause_auto_advance();
        match self.clock.timeout(self.limit, opening).await {
            Ok(opened) => opened.map_err(NotConnected::Failed),
            Err(late) => Err(NotConnected::TimedOut(late)),
        }
    }

    /// The bound of a request with its answer.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Asks for another protocol on the connection, within the time limit or until `deadline`.
    pub(crate) async fn upgrade(&self, request: Request<Full<Bytes>>, deadline: Timestamp) -> Result<Upgrade, TransportError> {
        let limit = self.time_left(deadline)?;
        let ask = async {
            let mut response = Self::request(&self.upgrades, request).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return read(response).await.map(Upgrade::Rejected);
            }
            let upgraded = hyper::upgrade::on(&mut response).await.map_err(|error| TransportError::Lost(chain(&error)))?;
            Ok(Upgrade::Accepted(response.into_parts().0.headers, upgraded))
        };
        self.with_timeout(limit, ask).await
    }

    /// How long a request may take; when that is no time, it is not sent.
    fn time_left(&self, deadline: Timestamp) -> Result<Duration, TransportError> {
        let limit = self.limit.min(deadline.since(self.clock.now()));
        if limit.is_zero() { Err(TransportError::NotSent("no time left".to_owned())) } else { Ok(limit) }
    }

    /// Waits for what is under way, and no longer than that.
    async fn with_timeout<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, TransportError>>,
    ) -> Result<T, TransportError> {
        let _busy = self.clock.pause_auto_advance();
        let ended = self.clock.timeout(limit, work).await;
        ended.unwrap_or_else(|timed_out| Err(TransportError::Lost(timed_out.to_string())))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<HttpResponse, TransportError> {
        read(Self::request(&self.client, request).await?).await
    }

    /// Whatever becomes of a stream or a connection of HTTP/2, a request of which something may have been sent is lost, be it that the platform
    /// says that it did nothing for it (REFUSED_STREAM, GOAWAY): the client does not tell that apart.
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

/// The answer, whole.
async fn read(response: Response<hyper::body::Incoming>) -> Result<HttpResponse, TransportError> {
    let (head, body) = Response::into_parts(response);
    let body = Limited::new(body, MAX_RESPONSE_BYTES)
        .collect()
        .await
        .map_err(|error| TransportError::Lost(one_line(&format!("the answer broke off: {error}"))))?;
    Ok(HttpResponse { status: head.status, headers: head.headers, body: body.to_bytes() })
}

/// What of an exchange may stand in a log (requirement R18, docs/requirements.md).
struct RedactedExchange {
    method: Method,
    path: String,
    body: String,
}

impl RedactedExchange {
    fn of(request: &Request<Full<Bytes>>) -> Self {
        // `Full` gives its one piece without waiting.
        let body = request.body().clone().collect().now_or_never().and_then(Result::ok).map(|body| body.to_bytes());
        let body = redaction::redacted(&body.unwrap_or_default());
        Self { method: request.method().clone(), path: request.uri().path().to_owned(), body }
    }

    fn log(self, answer: &Result<HttpResponse, TransportError>) {
        let Self { method, path, body } = self;
        match answer {
            Ok(answer) => {
                let (status, correlation_id) = (answer.status.as_u16(), answer.correlation_id());
                let correlation_id = correlation_id.as_deref();
                let answer = redaction::redacted(&answer.body);
                trace!(%method, path, request = body, status, answer, correlation_id, "exchange");
            }
            Err(no_answer) => trace!(%method, path, request = body, %no_answer, "exchange"),
        }
    }
}

/// Whether this machine could not even begin to connect, for want of a file descriptor, a port or
/// memory.
fn is_local(error: &(dyn std::error::Error + 'static)) -> bool {
    const WANTING: [Errno; 5] = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOMEM, Errno::NOBUFS];
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.and_then(Errno::from_io_error).is_some_and(|errno| WANTING.contains(&errno)) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// An error and its causes on one line; hyper's own message says only «client error». It may name
/// what the other side sent: a certificate's names, for example. A failure of TLS is a sentence.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(sentence) = tls_error::explain(error) {
        return sentence;
    }
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    one_line(&line)
}

impl From<TransportError> for AttemptError {
    fn from(no_answer: TransportError) -> Self {
        match no_answer {
            TransportError::Local(reason) => Self::Local(reason),
            TransportError::NotSent(reason) => Self::NotSent(reason),
            TransportError::Lost(reason) => Self::OutcomeUnknown { reason, retry_after: None, correlation_id: None },
        }
    }
}

impl HttpResponse {
    /// Sorts a platform answer by its status: 2xx is `Ok`. A 409 of a call that carried a key says that one under the same key is being worked on;
    /// any other 409 says that something is taken.
    pub fn error_for_status(self, now: Timestamp, carried_key: bool) -> Result<Self, AttemptError> {
        let status = self.status;
        if status.is_success() {
            return Ok(self);
        }
        let retry_after = retry_after(&self.headers, now, MAX_RETRY_AFTER);
        let refusal = self.refusal();
        if status == StatusCode::TOO_MANY_REQUESTS {
            // Some layers of the platform name the wait in their sentence only.
            let retry_after = retry_after.or_else(|| Some(bounded(refusal.message.seconds()?)));
            return Err(AttemptError::Throttled { retry_after, correlation_id: refusal.correlation_id });
        }
        let under_way = AMBIGUOUS_STATUSES.contains(&status) || (carried_key && status == StatusCode::CONFLICT);
        Err(if status.is_server_error() || under_way {
            let correlation_id = refusal.correlation_id.clone();
            AttemptError::OutcomeUnknown { reason: refusal.to_string(), retry_after, correlation_id }
        } else if status == StatusCode::UNAUTHORIZED {
            AttemptError::Unauthorized(refusal)
        } else {
            AttemptError::Rejected(refusal)
        })
    }

    /// Reads the JSON body of a 2xx. One that cannot be read leaves open what was done.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, AttemptError> {
        serde_json::from_slice(&self.body).map_err(|error| AttemptError::OutcomeUnknown {
            // Without serde's own words, which may quote the body: this goes on record.
            reason: format!(
                "HTTP {} with a body that is not what was expected (line {}, column {})",
                self.status.as_u16(),
                error.line(),
                error.column()
            ),
            retry_after: None,
            correlation_id: self.correlation_id(),
        })
    }

    /// `ININ-Correlation-Id`, else the body's `contextId` (docs/platform.md#errors).
    pub(crate) fn correlation_id(&self) -> Option<CorrelationId> {
        let header = self.headers.get("inin-correlation-id").and_then(|value| CorrelationId::new(value.to_str().ok()?));
        header.or_else(|| CorrelationId::new(&self.error_body().context_id?))
    }

    /// How many calls were made in this window, how many may be, and how long it lasts yet
    /// (`inin-ratelimit-…`, docs/platform.md#rate-limits).
    pub(crate) fn rate_limit_headers(&self) -> Option<(u32, u32, Duration)> {
        let number = |name| self.headers.get(name)?.to_str().ok()?.trim().parse::<u32>().ok();
        let (count, allowed) = (number("inin-ratelimit-count")?, number("inin-ratelimit-allowed")?);
        Some((count, allowed, Duration::from_secs(number("inin-ratelimit-reset").unwrap_or(1).into())))
    }

    fn error_body(&self) -> ErrorBody {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(crate) fn refusal(&self) -> ErrorResponse {
        let body = self.error_body();
        let said_as_code = body.code.or(body.error).unwrap_or_default();
        let code = ErrorCode::new(&said_as_code);
        // A gateway's sentence in the place of the code is a sentence.
        let spare = Some(said_as_code).filter(|_| code.is_empty());
        let message = body.message.or(body.error_description).or(body.description).or(spare).unwrap_or_default();
        ErrorResponse { status: self.status, code, message: Sentence::new(&message), correlation_id: self.correlation_id() }
    }
}

/// The platform's `ErrorBody` and OAuth's error in one: no field of either is promised
/// (docs/platform.md#errors).
#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ErrorBody {
    #[serde(deserialize_with = "lenient")]
    code: Option<String>,
    #[serde(deserialize_with = "lenient")]
    message: Option<String>,
    #[serde(deserialize_with = "lenient")]
    context_id: Option<String>,
    #[serde(deserialize_with = "lenient")]
    error: Option<String>,
    #[serde(rename = "error_description", deserialize_with = "lenient")]
    error_description: Option<String>,
    #[serde(deserialize_with = "lenient")]
    description: Option<String>,
}

/// The platform's wish in seconds, up to the longest wait that is granted.
pub(crate) fn bounded(seconds: u64) -> Duration {
    Duration::from_secs(seconds).min(MAX_RETRY_AFTER)
}

/// `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3), `most` at the most: a longer
/// value is taken for an error of the other side.
pub fn retry_after(headers: &HeaderMap, now: Timestamp, most: Duration) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a long wait, too.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)).min(most));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let since_epoch = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    let moment = Timestamp::from_unix_micros(i64::try_from(since_epoch.as_micros()).ok()?);
    Some(moment.since(now).min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &'static str) -> HttpResponse {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        HttpResponse { status: StatusCode::from_u16(status).unwrap(), headers: map, body: Bytes::from_static(body.as_bytes()) }
    }

    const NOW: Timestamp = Timestamp::from_unix_micros(1_795_361_029_000_000);

    #[test]
    fn a_status_is_sorted_by_what_the_platform_may_have_done() {
        let sort = |status| answer(status, &[], "").error_for_status(NOW, true);
        assert!(sort(200).is_ok() && sort(201).is_ok() && sort(202).is_ok());
        assert!(matches!(sort(429), Err(AttemptError::Throttled { .. })));
        for status in [408, 409, 423, 425, 500, 502, 503, 504] {
            assert!(matches!(sort(status), Err(AttemptError::OutcomeUnknown { .. })), "{status}");
        }
        assert!(matches!(sort(401), Err(AttemptError::Unauthorized(_))));
        for status in [301, 302, 307, 400, 403, 404, 413, 415, 422] {
            assert!(matches!(sort(status), Err(AttemptError::Rejected(_))), "{status}");
        }
        assert!(
            matches!(answer(409, &[], "").error_for_status(NOW, false), Err(AttemptError::Rejected(_))),
            "something is taken"
        );
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let day = Duration::from_secs(86_400);
        let wait = |value: &str| retry_after(&answer(429, &[("retry-after", value)], "").headers, NOW, day);
        assert_eq!(wait("42"), Some(Duration::from_secs(42)));
        for beyond in ["86401", "4294967295", "99999999999999999999999999", "Fri, 22 Nov 2126 15:24:49 GMT"] {
            assert_eq!(wait(beyond), Some(day), "{beyond}");
        }
        assert_eq!(wait("Sun, 22 Nov 2026 15:24:49 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(wait("Sun, 22 Nov 2020 15:24:49 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("-1"), None);
    }

    #[test]
    fn a_429_without_the_header_waits_as_long_as_its_sentence_says() {
        let wait = |headers: &[(&'static str, &str)], body: &'static str| match answer(429, headers, body)
            .error_for_status(NOW, false)
        {
            Err(AttemptError::Throttled { retry_after, .. }) => retry_after.map(|wait| wait.as_secs()),
            other => panic!("{other:?}"),
        };
        let sentence = r#"{"message":"Rate limit exceeded the maximum. Retry the request in [42] seconds","code":"too.many"}"#;
        assert_eq!(wait(&[], sentence), Some(42));
        assert_eq!(wait(&[("retry-after", "7")], sentence), Some(7), "the header is first");
        assert_eq!(wait(&[], r#"{"message":"in [99999999] seconds"}"#), Some(3600), "bounded");
        assert_eq!(wait(&[], r#"{"message":"later"}"#), None);
        assert_eq!(wait(&[("retry-after", "4294967295")], ""), Some(3600));
    }

    #[test]
    fn what_is_foreign_in_a_refusal_is_bounded_wherever_it_stands() {
        let long: &'static str = "x".repeat(900_000).leak();
        let body: &'static str = serde_json::json!({"contextId": long, "code": long, "message": long}).to_string().leak();
        let Err(error) = answer(500, &[], body).error_for_status(NOW, false) else { panic!() };
        assert!(error.record().len() < 1000 && error.correlation_id().unwrap().len() <= 2 * 256, "{}", error.record().len());

        let forged = r#"{"contextId":"c\u001b[2K\r\nThe session of ann is open.","code":"The value gold is bad","status":[]}"#;
        let Err(error) = answer(400, &[], forged).error_for_status(NOW, false) else { panic!() };
        assert_eq!(error.record(), "HTTP 400 (correlation id c [2K  The session of ann is open.)");
        assert_eq!(error.for_caller().rsplit(": ").next(), Some("The value gold is bad"));
        assert!(!format!("{error} {error:?}").contains("gold"), "only its caller gets the sentence");
    }

    #[test]
    fn both_error_shapes_are_understood() {
        let platform = r#"{"message":"The requested resource was not found.","code":"not.found","status":404,"contextId":"c-1"}"#;
        let Err(AttemptError::Rejected(refusal)) = answer(404, &[], platform).error_for_status(NOW, false) else {
            unreachable!()
        };
        assert_eq!(refusal.code, "not.found");
        assert_eq!(refusal.correlation_id.as_deref(), Some("c-1"));

        let oauth = r#"{"error":"invalid_client","description":"d","error_description":"authentication failed"}"#;
        let Err(AttemptError::Rejected(refusal)) =
            answer(400, &[("inin-correlation-id", "c-2")], oauth).error_for_status(NOW, false)
        else {
            unreachable!()
        };
        assert_eq!((refusal.code.as_str(), refusal.message.for_caller()), ("invalid_client", "authentication failed"));
        assert_eq!(refusal.correlation_id.as_deref(), Some("c-2"));
    }

    #[test]
    fn a_success_that_cannot_be_read_leaves_the_outcome_open() {
        for body in ["", "<html>", "{", "[]", r#"{"id":5}"#] {
            #[derive(Debug, serde::Deserialize)]
            struct Created {
                #[expect(dead_code)]
                id: String,
            }
            let read = answer(200, &[], body).json::<Created>();
            assert!(matches!(read, Err(AttemptError::OutcomeUnknown { .. })), "{body}");
        }
    }
}
