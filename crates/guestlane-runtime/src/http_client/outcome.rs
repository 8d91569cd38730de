//! Results of a request: a response, a transport error, or no connection.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::{exchange::chain, rustls_error};
use crate::TimedOut;

/// A response with any status.
#[derive(Debug)]
pub struct HttpResponse {
    /// HTTP status.
    pub status: StatusCode,
    /// HTTP headers.
    pub headers: HeaderMap,
    /// The complete body.
    pub body: Bytes,
}

/// How strictly the head of an HTTP/1.1 response is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsing {
    /// Parse according to RFC 9112: for a server whose response bodies are used.
    Strict,
    /// Skip malformed header lines and accept many headers: for a server of which only the status
    /// line counts.
    Lenient,
}

/// Why a request got no response.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// The local machine has no file descriptor, port or memory left for a connection. The request
    /// was not sent, and the failure says nothing about the peer.
    #[error("{0}")]
    Local(String),
    /// The request was not sent.
    #[error("{0}")]
    NotSent(String),
    /// The request was sent, at least in part.
    #[error("{0}")]
    Lost(String),
}

/// Why no connection was opened.
#[derive(Debug, thiserror::Error)]
pub enum NotConnected {
    /// The connection took longer than the client's request timeout.
    #[error("{0}")]
    TimedOut(TimedOut),
    /// Connecting failed. The source chain has the cause: an I/O error or a TLS failure
    /// ([`tls_error::find`](crate::tls_error::find)).
    #[error("{}", chain(&**.0))]
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

/// The operating system's certificates could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("no trusted root certificates found (install the package `ca-certificates`): {0}")]
pub struct NoTlsRoots(#[source] pub(super) rustls_error::Error);

/// Result of a protocol upgrade request.
#[derive(Debug)]
pub enum Upgrade {
    /// The server switched protocols; the caller owns the connection.
    Accepted(HeaderMap, hyper::upgrade::Upgraded),
    /// The server answered with another status than 101.
    Rejected(HttpResponse),
}
