//! Listeners of the service: sockets, TLS, timeouts for slow clients, and graceful shutdown.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use crate::{ServiceSettings, TlsFiles};
use axum_server::{
    Handle, Server as AxumServer,
    accept::DefaultAcceptor,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use guestlane_core::request::ValidationError;
use guestlane_runtime::{pem, tls_error};
use hyper_util::rt::TokioTimer;
use tracing::{info, warn};

use crate::{
    accept::LimitingAcceptor,
    connections::{Connections, Limits},
    metrics, request_log,
    router::{probes, router},
    service::Service,
};

/// Timeout for a request's headers, and for the next request on an idle connection.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum size of a request's headers, in bytes.
const MAX_HEADERS: usize = 16 * 1024;

/// Maximum number of concurrent requests on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;

/// Maximum number of connections to the metrics listener.
const METRICS_CONNECTIONS: usize = 64;

/// How long requests and sessions in flight may take at shutdown. The next process resumes sessions
/// that are not finished by then.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);

/// How long connections may take to close once no request is in flight.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Interval at which the certificate files are checked for changes.
const TLS_RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// The service with its bound listeners.
#[derive(Debug)]
pub struct Server {
    service: Arc<Service>,
    listener: TcpListener,
    metrics: Option<TcpListener>,
    tls: Option<(RustlsConfig, TlsFiles)>,
}

/// Handle to the TLS certificate in use, if there is one.
#[derive(Debug, Clone)]
pub struct Certificate(Option<(RustlsConfig, TlsFiles)>);

impl Certificate {
    /// Reads the certificate files again, without closing connections. If that fails, the old
    /// certificate stays in use.
    pub async fn reload(&self) {
        if let Some((config, files)) = &self.0 {
            reload(config, files).await;
        }
    }
}

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A setting is invalid.
    #[error(transparent)]
    Invalid(#[from] ValidationError),
    /// A socket operation failed.
    #[error("a socket of the service failed")]
    Socket(#[from] io::Error),
}

impl Server {
    /// Binds the addresses and reads the certificate.
    ///
    /// # Errors
    /// A setting is invalid, the certificate cannot be used, or an address cannot be bound. An
    /// address other than loopback also requires an active API key: without one, every request
    /// would be answered 401, and listening there is probably a mistake.
    pub async fn bind(
        service: Arc<Service>,
        settings: &ServiceSettings,
    ) -> Result<Self, BindError> {
        if !settings.listen.ip().is_loopback() && !service.has_keys() {
            let fix = "create an API key first: guestlane api-keys create --name NAME --scope \
                 sessions:write";
            return Err(ValidationError::new(
                "GUESTLANE_LISTEN",
                "is not a loopback address, and no valid API key exists",
                fix,
            )
            .into());
        }
        let tls = match &settings.tls {
            Some(files) => Some((read_certificate(files).await?, files.clone())),
            None => None,
        };
        let listener = listen("GUESTLANE_LISTEN", settings.listen)?;
        let metrics = settings
            .metrics
            .map(|address| listen("GUESTLANE_METRICS_LISTEN", address))
            .transpose()?;
        Ok(Self {
            service,
            listener,
            metrics,
            tls,
        })
    }

    /// The address of the service's listener, with the port that the system chose.
    ///
    /// # Errors
    /// The socket's address cannot be read.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The address of the metrics listener, if there is one.
    ///
    /// # Errors
    /// The socket's address cannot be read.
    pub fn metrics_address(&self) -> io::Result<Option<SocketAddr>> {
        self.metrics
            .as_ref()
            .map(TcpListener::local_addr)
            .transpose()
    }

    /// The handle that reloads the certificate.
    pub fn reload_handle(&self) -> Certificate {
        Certificate(self.tls.clone())
    }

    /// Serves until `end` completes. Then the node drains, rejects new requests, finishes those in
    /// flight within [`DRAIN_TIMEOUT`], and returns.
    ///
    /// # Errors
    /// A listener cannot be set up, or a background task ended early, which is a defect.
    pub async fn serve(self, end: impl Future<Output = ()>) -> io::Result<()> {
        let Self {
            service,
            listener,
            metrics,
            tls,
        } = self;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (address, surface) = (listener.local_addr()?, service.engine().surface().name());
        info!(
            address = format!("{scheme}://{address}"),
            surface, "service started; listening"
        );
        let handle = Handle::new();
        let app = router(&service);
        let mut serving = match &tls {
            Some((config, _)) => {
                let door = door(&service, RustlsAcceptor::new(config.clone()));
                let server = apply_limits(
                    axum_server::from_tcp(listener)?
                        .handle(handle.clone())
                        .acceptor(door),
                );
                tokio::spawn(server.serve(app.into_make_service()))
            }
            None => {
                let door = door(&service, DefaultAcceptor::new());
                let server = apply_limits(
                    axum_server::from_tcp(listener)?
                        .handle(handle.clone())
                        .acceptor(door),
                );
                tokio::spawn(server.serve(app.into_make_service()))
            }
        };
        let metrics = metrics
            .map(|listener| MetricsServer::start(&service, listener, scheme))
            .transpose()?;
        let mut work = tokio::spawn(Arc::clone(&service).work());
        let certificate = reload_tls_loop(&service, tls.as_ref());
        let failed = tokio::select! {
            () = end => None,
            () = certificate => None,
            ended = &mut work => Some(io::Error::other(format!("the background task of the \
                service ended unexpectedly ({ended:?})"))),
        };
        if failed.is_none() {
            let seconds = service.drain_period().as_secs_f64();
            info!(
                seconds,
                "draining; readiness checks fail, requests are still served"
            );
            service.drain();
            service.clock().sleep(service.drain_period()).await;
        }
        info!(
            seconds = DRAIN_TIMEOUT.as_secs(),
            "shutting down; rejecting new requests, finishing sessions in flight"
        );
        service.begin_shutdown();
        // This stops recovery: the next process resumes sessions that other processes abandoned.
        work.abort();
        handle.graceful_shutdown(Some(DRAIN_TIMEOUT));
        if service
            .clock()
            .timeout(DRAIN_TIMEOUT, service.wait_for_tasks())
            .await
            .is_err()
        {
            warn!(
                "shutdown timeout reached; unfinished sessions are recorded, and the next process \
                 completes them"
            );
        }
        // No session is in flight any more; idle connections get `CLOSE_TIMEOUT` to close.
        if service
            .clock()
            .timeout(CLOSE_TIMEOUT, &mut serving)
            .await
            .is_err()
        {
            handle.shutdown();
            let _ = serving.await;
        }
        if let Some(outbox) = service.engine().outbox() {
            outbox.wait_for_initial_deliveries().await;
        }
        if let Err(error) = service.engine().flush_counters().await {
            warn!(%error, "failed to write the last error counts; they are lost");
        }
        if let Some(metrics) = metrics {
            metrics.end().await;
        }
        info!("service stopped");
        failed.map_or(Ok(()), Err)
    }
}

/// The listener for metrics and probes, which requires no API key.
#[derive(Debug)]
pub struct MetricsServer {
    handle: Handle<SocketAddr>,
    serving: tokio::task::JoinHandle<io::Result<()>>,
    address: SocketAddr,
}

impl MetricsServer {
    /// Binds the address and serves `/metrics`, `/healthz` and `/readyz` there. A worker has only
    /// this listener.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn bind(service: &Arc<Service>, address: SocketAddr) -> Result<Self, BindError> {
        let listener = listen("GUESTLANE_METRICS_LISTEN", address)?;
        Ok(Self::start(service, listener, "http")?)
    }

    fn start(
        service: &Arc<Service>,
        listener: TcpListener,
        scheme: &'static str,
    ) -> io::Result<Self> {
        let (handle, address) = (Handle::new(), listener.local_addr()?);
        let limits = Limits {
            connections: METRICS_CONNECTIONS,
            per_address: None,
        };
        let clock = service.clock().clone();
        let connections = Connections::new(limits, clock.clone());
        let door = LimitingAcceptor {
            inner: DefaultAcceptor::new(),
            connections,
            clock,
            limit: HEADER_READ_TIMEOUT,
        };
        let server = apply_limits(
            axum_server::from_tcp(listener)?
                .handle(handle.clone())
                .acceptor(door),
        );
        let stalls =
            axum::middleware::from_fn_with_state(Arc::clone(service), request_log::limit_stalls);
        let router = metrics::router(service, scheme)
            .merge(probes(service))
            .layer(stalls);
        Ok(Self {
            handle,
            serving: tokio::spawn(server.serve(router.into_make_service())),
            address,
        })
    }

    /// The address of the listener, with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listener and its connections.
    pub async fn end(self) {
        self.handle.shutdown();
        let _ = self.serving.await;
    }
}

fn door<A>(service: &Service, inner: A) -> LimitingAcceptor<A> {
    let connections = Arc::clone(service.connections());
    LimitingAcceptor {
        inner,
        connections,
        clock: service.clock().clone(),
        limit: HEADER_READ_TIMEOUT,
    }
}

fn listen(setting: &str, address: SocketAddr) -> Result<TcpListener, BindError> {
    let cannot = |error: io::Error| {
        let flag = if setting == "GUESTLANE_LISTEN" {
            "--listen"
        } else {
            "--metrics-listen"
        };
        let fix = match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "choose another port with {setting} or {flag}, or stop the process that uses it, \
                 perhaps another `guestlane serve` or `guestlane demo --serve`"
            ),
            _ => format!("choose another address with {setting} or {flag}"),
        };
        ValidationError::new(setting, format!("cannot listen on {address}: {error}"), fix)
            .may_pass()
    };
    let listener = TcpListener::bind(address).map_err(cannot)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Sets limits on headers, streams and silence, so that a slow client cannot hold a connection
/// open.
fn apply_limits<A: axum_server::Address, Acceptor>(
    mut server: AxumServer<A, Acceptor>,
) -> AxumServer<A, Acceptor> {
    let builder = server.http_builder();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(MAX_HEADERS + 48 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS as u32)
        .keep_alive_interval(HEADER_READ_TIMEOUT)
        .keep_alive_timeout(HEADER_READ_TIMEOUT);
    server
}

/// Reads the certificate chain and its private key, in PEM.
///
/// # Errors
/// A file cannot be read or parsed. A chain with an unreadable certificate is refused as a whole:
/// without that certificate, clients could not verify the chain.
fn read_files(files: &TlsFiles) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let chain = pem::normalized(&std::fs::read(&files.cert)?);
    pem::certificates(&chain).map_err(|error| io::Error::other(format!("the chain {error}")))?;
    let key = pem::normalized(&std::fs::read(&files.key)?);
    pem::private_key(&key).map_err(|error| io::Error::other(format!("the key {error}")))?;
    Ok((chain, key))
}

async fn read_certificate(files: &TlsFiles) -> Result<RustlsConfig, ValidationError> {
    let read = async {
        let (chain, key) = read_files(files)?;
        RustlsConfig::from_pem(chain, key).await
    };
    read.await.map_err(|error| {
        let field = format!("GUESTLANE_TLS_CERT_FILE {}", files.cert.display());
        let error = tls_error::explain(&error).unwrap_or_else(|| error.to_string());
        let reason = format!(
            "and its key {} cannot be used: {error}",
            files.key.display()
        );
        // A certificate file that is being replaced may be readable a moment later.
        ValidationError::new(
            field,
            reason,
            "set it to the certificate chain and GUESTLANE_TLS_KEY_FILE to its private key, both \
             in PEM",
        )
        .may_pass()
    })
}

/// Reloads the certificate, and returns whether that succeeded.
async fn reload(config: &RustlsConfig, files: &TlsFiles) -> bool {
    let read = async {
        let (chain, key) = read_files(files)?;
        config.reload_from_pem(chain, key).await
    };
    match read.await {
        Ok(()) => {
            info!(file = %files.cert.display(), "certificate reloaded");
            true
        }
        Err(error) => {
            let error = tls_error::explain(&error).unwrap_or_else(|| error.to_string());
            warn!(error, file = %files.cert.display(), "failed to reload the certificate; the \
                previous one stays in use");
            false
        }
    }
}

/// Reloads the certificate when its files change. Never returns, with or without TLS.
async fn reload_tls_loop(service: &Service, tls: Option<&(RustlsConfig, TlsFiles)>) {
    let Some((config, files)) = tls else {
        return std::future::pending().await;
    };
    let changed = || {
        let of = |path| {
            std::fs::metadata(path)
                .and_then(|metadata| metadata.modified())
                .ok()
        };
        (of(&files.cert), of(&files.key))
    };
    let mut known = changed();
    loop {
        service.clock().sleep(TLS_RELOAD_INTERVAL).await;
        let now = changed();
        if now != known && reload(config, files).await {
            known = now;
        }
    }
}
