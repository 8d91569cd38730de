//! How the service is reached: sockets, TLS, bounds for whoever is slow, and how it ends.

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
use guestlane::{
    config::{ServiceSettings, TlsFiles},
    request::ValidationError,
};
use guestlane_genesys::{pem, tls_error};
use hyper_util::rt::TokioTimer;
use tracing::{info, warn};

use crate::{
    accept::LimitingAcceptor,
    connections::{Connections, Limits},
    metrics, request_log,
    router::{probes, router},
    service::Service,
};

/// How long a request's headers may take, and a connection that waits for its next request.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest headers.
const MAX_HEADERS: usize = 16 * 1024;

/// Requests under way on one connection of HTTP/2.
const MAX_STREAMS: u32 = 128;

/// Connections to the listener of metrics.
const METRICS_CONNECTIONS: usize = 64;

/// How long what has begun may take when the service ends. What is not done by then is taken up by the next process.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);

/// How long connections may take to close once nothing is under way.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often it is looked whether the certificate's files have changed.
const TLS_RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// The service, listening.
#[derive(Debug)]
pub struct Server {
    service: Arc<Service>,
    listener: TcpListener,
    metrics: Option<TcpListener>,
    tls: Option<(RustlsConfig, TlsFiles)>,
}

/// The certificate in use, if there is one.
#[derive(Debug, Clone)]
pub struct Certificate(Option<(RustlsConfig, TlsFiles)>);

impl Certificate {
    /// Reads it again, while connections go on.
    pub async fn reload(&self) {
        if let Some((config, files)) = &self.0 {
            reload(config, files).await;
        }
    }
}

/// Why the service cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A setting cannot be used.
    #[error(transparent)]
    Invalid(#[from] ValidationError),
    /// A socket failed.
    #[error("the service's socket failed")]
    Socket(#[from] io::Error),
}

impl Server {
    /// Takes the addresses, and reads the certificate. Beyond this machine only with a key: without one it would be there for nobody, or by mistake.
    pub async fn bind(service: Arc<Service>, settings: &ServiceSettings) -> Result<Self, BindError> {
        if !settings.listen.ip().is_loopback() && !service.has_keys() {
            let fix = "make one first: guestlane api-keys create --name NAME --scope sessions:write";
            return Err(ValidationError::new(
                "GUESTLANE_LISTEN",
                "is beyond this machine, and there is no API key that is good",
                fix,
            )
            .into());
        }
        let tls = match &settings.tls {
            Some(files) => Some((read_certificate(files).await?, files.clone())),
            None => None,
        };
        let listener = listen("GUESTLANE_LISTEN", settings.listen)?;
        let metrics = settings.metrics.map(|address| listen("GUESTLANE_METRICS_LISTEN", address)).transpose()?;
        Ok(Self { service, listener, metrics, tls })
    }

    /// Where it listens: with the port that was taken.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where the metrics are.
    pub fn metrics_address(&self) -> io::Result<Option<SocketAddr>> {
        self.metrics.as_ref().map(TcpListener::local_addr).transpose()
    }

    /// With what the certificate can be read again.
    pub fn reload_handle(&self) -> Certificate {
        Certificate(self.tls.clone())
    }

    /// Serves until `end`; then takes nothing new, finishes what was begun within [`DRAIN_TIMEOUT`], and returns.
    pub async fn serve(self, end: impl Future<Output = ()>) -> io::Result<()> {
        let Self { service, listener, metrics, tls } = self;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (address, surface) = (listener.local_addr()?, service.engine().surface().name());
        info!(address = format!("{scheme}://{address}"), surface, "the service listens");
        let handle = Handle::new();
        let app = router(&service);
        let mut serving = match &tls {
            Some((config, _)) => {
                let door = door(&service, RustlsAcceptor::new(config.clone()));
                let server = apply_limits(axum_server::from_tcp(listener)?.handle(handle.clone()).acceptor(door));
                tokio::spawn(server.serve(app.into_make_service()))
            }
            None => {
                let door = door(&service, DefaultAcceptor::new());
                let server = apply_limits(axum_server::from_tcp(listener)?.handle(handle.clone()).acceptor(door));
                tokio::spawn(server.serve(app.into_make_service()))
            }
        };
        let metrics = metrics.map(|listener| MetricsServer::start(&service, listener, scheme)).transpose()?;
        let mut work = tokio::spawn(Arc::clone(&service).work());
        let certificate = reload_tls_loop(&service, tls.as_ref());
        let failed = tokio::select! {
            () = end => None,
            () = certificate => None,
            ended = &mut work => Some(io::Error::other(format!("the service's background work ended ({ended:?}): this is a defect"))),
        };
        if failed.is_none() {
            let seconds = service.drain_period().as_secs_f64();
            info!(seconds, "draining: the node is not ready any more, and goes on serving");
            service.drain();
            service.clock().sleep(service.drain_period()).await;
        }
        info!(seconds = DRAIN_TIMEOUT.as_secs(), "the service takes nothing new, and finishes what was begun");
        service.begin_shutdown();
        work.abort(); // what was left behind by others is the next process's
        handle.graceful_shutdown(Some(DRAIN_TIMEOUT));
        if service.clock().timeout(DRAIN_TIMEOUT, service.wait_for_tasks()).await.is_err() {
            warn!("not all sessions could be finished in time: they are recorded, and the next process completes them");
        }
        // Nothing is under way any more: a connection that only is there is given a moment to say good-bye.
        if service.clock().timeout(CLOSE_TIMEOUT, &mut serving).await.is_err() {
            handle.shutdown();
            let _ = serving.await;
        }
        if let Some(outbox) = service.engine().outbox() {
            outbox.wait_for_initial_deliveries().await;
        }
        if let Err(error) = service.engine().flush_outbox().await {
            warn!(%error, "the last error counts could not be written");
        }
        if let Some(metrics) = metrics {
            metrics.end().await;
        }
        info!("the service has ended");
        failed.map_or(Ok(()), Err)
    }
}

/// Metrics and probes on a listener of their own, without a key.
#[derive(Debug)]
pub struct MetricsServer {
    handle: Handle<SocketAddr>,
    serving: tokio::task::JoinHandle<io::Result<()>>,
    address: SocketAddr,
}

impl MetricsServer {
    /// Takes the address and serves `/metrics`, `/healthz` and `/readyz` there: for a worker, which answers nothing else.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn bind(service: &Arc<Service>, address: SocketAddr) -> Result<Self, BindError> {
        let listener = listen("GUESTLANE_METRICS_LISTEN", address)?;
        Ok(Self::start(service, listener, "http")?)
    }

    fn start(service: &Arc<Service>, listener: TcpListener, scheme: &'static str) -> io::Result<Self> {
        let (handle, address) = (Handle::new(), listener.local_addr()?);
        let limits = Limits { connections: METRICS_CONNECTIONS, per_address: None };
        let clock = service.clock().clone();
        let connections = Connections::new(limits, clock.clone());
        let door = LimitingAcceptor { inner: DefaultAcceptor::new(), connections, clock, limit: HEADER_READ_TIMEOUT };
        let server = apply_limits(axum_server::from_tcp(listener)?.handle(handle.clone()).acceptor(door));
        let stalls = axum::middleware::from_fn_with_state(Arc::clone(service), request_log::limit_stalls);
        let router = metrics::router(service, scheme).merge(probes(service)).layer(stalls);
        Ok(Self { handle, serving: tokio::spawn(server.serve(router.into_make_service())), address })
    }

    /// Where it listens: with the port that was taken.
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
    LimitingAcceptor { inner, connections, clock: service.clock().clone(), limit: HEADER_READ_TIMEOUT }
}

fn listen(setting: &str, address: SocketAddr) -> Result<TcpListener, BindError> {
    let cannot = |error: io::Error| {
        let flag = if setting == "GUESTLANE_LISTEN" { "--listen" } else { "--metrics-listen" };
        let fix = match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "choose another port by {setting} or {flag}, or end the process that has it: perhaps another `guestlane serve` or `guestlane demo --serve`"
            ),
            _ => format!("choose another address by {setting} or {flag}"),
        };
        ValidationError::new(setting, format!("{address} cannot be listened on: {error}"), fix).may_pass()
    };
    let listener = TcpListener::bind(address).map_err(cannot)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Nobody holds a connection by sending slowly.
fn apply_limits<A: axum_server::Address, Acceptor>(mut server: AxumServer<A, Acceptor>) -> AxumServer<A, Acceptor> {
    let builder = server.http_builder();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT).max_buf_size(MAX_HEADERS + 48 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS as u32)
        .keep_alive_interval(HEADER_READ_TIMEOUT)
        .keep_alive_timeout(HEADER_READ_TIMEOUT);
    server
}

/// The chain and its private key, in PEM. A chain of which a certificate would be left out is
/// refused: clients would not find its authority.
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
        let reason = format!("and its key {} cannot be used: {error}", files.key.display());
        // A certificate that is being renewed is there in a moment.
        ValidationError::new(field, reason, "name the chain and its private key, both in PEM").may_pass()
    })
}

/// Whether it could be read.
async fn reload(config: &RustlsConfig, files: &TlsFiles) -> bool {
    let read = async {
        let (chain, key) = read_files(files)?;
        config.reload_from_pem(chain, key).await
    };
    match read.await {
        Ok(()) => {
            info!(file = %files.cert.display(), "the certificate was read again");
            true
        }
        Err(error) => {
            let error = tls_error::explain(&error).unwrap_or_else(|| error.to_string());
            warn!(error, file = %files.cert.display(), "the certificate cannot be read; the old one is kept");
            false
        }
    }
}

/// Reads the certificate again when its files change. Without one, never ends either.
async fn reload_tls_loop(service: &Service, tls: Option<&(RustlsConfig, TlsFiles)>) {
    let Some((config, files)) = tls else { return std::future::pending().await };
    let changed = || {
        let of = |path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
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
