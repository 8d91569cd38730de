//! Settings of the HTTP service.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use guestlane::Rate;

/// Paths of a certificate and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain in PEM.
    pub cert: PathBuf,
    /// Private key in PEM.
    pub key: PathBuf,
}

/// Addresses, TLS and limits of the service.
#[derive(Debug, Clone)]
pub struct ServiceSettings {
    /// Address on which the service listens.
    pub listen: SocketAddr,
    /// Address on which metrics are served. `None` disables them.
    pub metrics: Option<SocketAddr>,
    /// Certificate and key. `None` disables TLS.
    pub tls: Option<TlsFiles>,
    /// Rate limit of requests for each API key. `None` means no limit.
    pub key_rate: Option<Rate>,
    /// Largest number of sessions in flight.
    pub max_sessions: usize,
    /// Whether a proxy in front of the service terminates TLS, and names callers in
    /// `X-Forwarded-For`.
    pub behind_proxy: bool,
    /// How long the service continues to serve after its readiness check has begun to fail.
    pub drain: Duration,
}
