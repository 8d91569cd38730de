//! Listeners of the service: sockets, TLS, timeouts for slow clients, and graceful shutdown.

mod certificate;
mod metrics_server;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use axum_server::{
    Handle, Server as AxumServer,
    accept::DefaultAcceptor,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use guestlane_core::request::ValidationError;
use hyper_util::rt::TokioTimer;
use tracing::{info, warn};

use crate::{
    ServiceSettings, TlsFiles, accept::LimitingAcceptor, router::router, service::Service,
};
pub use certificate::Certificate;
use certificate::{read_certificate, reload_tls_loop};
pub use metrics_server::MetricsServer;

/// Timeout for a request's headers, and for the next request on an idle connection.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum size of a request's headers, in bytes.
const MAX_HEADERS: usize = 16 * 1024;

/// Maximum number of concurrent requests on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;

/// How long requests and sessions in flight may take at shutdown. The next process resumes sessions
/// that are not finished by then.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);

/// How long connections may take to close once no request is in flight.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The service with its bound listeners.
#[derive(Debug)]
pub struct Server {
    service: Arc<Service>,
    listener: TcpListener,
    metrics: Option<TcpListener>,
    tls: Option<(RustlsConfig, TlsFiles)>,
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
                let door = limiting_acceptor(&service, RustlsAcceptor::new(config.clone()));
                let server = apply_limits(
                    axum_server::from_tcp(listener)?
                        .handle(handle.clone())
                        .acceptor(door),
                );
                tokio::spawn(server.serve(app.into_make_service()))
            }
            None => {
                let door = limiting_acceptor(&service, DefaultAcceptor::new());
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

fn limiting_acceptor<A>(service: &Service, inner: A) -> LimitingAcceptor<A> {
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
