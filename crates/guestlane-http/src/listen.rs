//! How the service is reached: sockets, TLS, bounds for whoever is slow, and how it ends.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum_server::{
    Handle, Server,
    accept::Accept,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use guestlane::{
    config::{ServiceSettings, TlsFiles},
    request::Invalid,
};
use hyper_util::rt::TokioTimer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tracing::{info, warn};

use crate::{
    metrics,
    prompt::Promptly,
    router::router,
    service::{Service, tell_start},
};

/// How long a request's headers may take, and a connection that waits for its next request.
const HEADERS: Duration = Duration::from_secs(30);

/// The longest headers.
const MAX_HEADERS: usize = 16 * 1024;

/// Requests under way on one connection of HTTP/2.
const MAX_STREAMS: u32 = 128;

/// Connections at once; more are closed at once. Each costs memory and a file.
const MAX_CONNECTIONS: i64 = 20_000;

/// Connections of those who scrape.
const METRICS_CONNECTIONS: i64 = 64;

/// How long what has begun may take when the service ends. What is not done by then is taken up by the next process.
pub const GRACE: Duration = Duration::from_secs(25);

/// How long connections may take to close once nothing is under way.
const GOOD_BYE: Duration = Duration::from_secs(1);

/// How often it is looked whether the certificate's files have changed.
const LOOK_AT_FILES: Duration = Duration::from_secs(10);

/// The service, listening.
#[derive(Debug)]
pub struct Listening {
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
pub enum CannotListen {
    /// A setting cannot be used.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A socket failed.
    #[error("the service's socket failed")]
    Socket(#[from] io::Error),
}

impl Listening {
    /// Takes the addresses, and reads the certificate. Beyond this machine only with a key: without one it would be there for nobody, or by mistake.
    pub async fn bind(service: Arc<Service>, settings: &ServiceSettings) -> Result<Self, CannotListen> {
        if !settings.listen.ip().is_loopback() && !service.has_keys() {
            let fix = "make one first: guestlane api-keys create --name NAME --scope sessions:write";
            return Err(
                Invalid::new("GUESTLANE_LISTEN", "is beyond this machine, and there is no API key that is good", fix).into()
            );
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

    /// Serves until `end`; then takes nothing new, finishes what was begun within [`GRACE`], and returns.
    pub async fn serve(self, end: impl Future<Output = ()>) -> io::Result<()> {
        let Self { service, listener, metrics, tls } = self;
        tell_start(&service, listener.local_addr()?, tls.is_some());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let handle = Handle::new();
        let (app, _) = router(&service);
        let gate = Gate { open: Arc::clone(service.figures().connections()), most: most_connections() };
        let promptly = |inner| Promptly { inner, clock: service.clock().clone(), limit: HEADERS };
        let mut serving = match &tls {
            Some((config, _)) => {
                let acceptor = RustlsAcceptor::new(config.clone()).acceptor(gate);
                let server = bounded(axum_server::from_tcp(listener)?.handle(handle.clone()).acceptor(Promptly {
                    inner: acceptor,
                    clock: service.clock().clone(),
                    limit: HEADERS,
                }));
                tokio::spawn(server.serve(app.into_make_service()))
            }
            None => {
                let server = bounded(axum_server::from_tcp(listener)?.handle(handle.clone()).acceptor(promptly(gate)));
                tokio::spawn(server.serve(app.into_make_service()))
            }
        };
        let metrics_handle = Handle::new();
        let metrics = match metrics {
            Some(listener) => {
                let gate = Gate { open: Arc::default(), most: METRICS_CONNECTIONS };
                let gate = Promptly { inner: gate, clock: service.clock().clone(), limit: HEADERS };
                let server = bounded(axum_server::from_tcp(listener)?.handle(metrics_handle.clone()).acceptor(gate));
                Some(tokio::spawn(server.serve(metrics::router(&service, scheme).into_make_service())))
            }
            None => None,
        };
        let mut work = tokio::spawn(Arc::clone(&service).work());
        let certificate = keep_certificate(&service, tls.as_ref());
        let failed = tokio::select! {
            () = end => None,
            () = certificate => None,
            ended = &mut work => Some(io::Error::other(format!("the service's background work ended ({ended:?}): this is a defect"))),
        };
        info!(seconds = GRACE.as_secs(), "the service takes nothing new, and finishes what was begun");
        service.end();
        work.abort(); // what was left behind by others is the next process's
        handle.graceful_shutdown(Some(GRACE));
        if service.clock().timeout(GRACE, service.ended()).await.is_err() {
            warn!("not all sessions could be finished in time: they are recorded, and the next process completes them");
        }
        // Nothing is under way any more: a connection that only is there is given a moment to say good-bye.
        if service.clock().timeout(GOOD_BYE, &mut serving).await.is_err() {
            handle.shutdown();
            let _ = serving.await;
        }
        if let Some(outbox) = service.lane().outbox() {
            outbox.first_tries_done().await;
        }
        if let Err(error) = service.lane().finish().await {
            warn!(%error, "the last error counts could not be written");
        }
        metrics_handle.shutdown();
        if let Some(metrics) = metrics {
            let _ = metrics.await;
        }
        info!("the service has ended");
        failed.map_or(Ok(()), Err)
    }
}

fn listen(setting: &str, address: SocketAddr) -> Result<TcpListener, CannotListen> {
    let cannot = |error: io::Error| {
        Invalid::new(setting, format!("{address} cannot be listened on: {error}"), "choose another port, or end what has it")
    };
    let listener = TcpListener::bind(address).map_err(cannot)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Nobody holds a connection by sending slowly.
fn bounded<A: axum_server::Address, Acceptor>(mut server: Server<A, Acceptor>) -> Server<A, Acceptor> {
    let builder = server.http_builder();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(MAX_HEADERS + 48 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS as u32)
        .keep_alive_interval(HEADERS)
        .keep_alive_timeout(HEADERS);
    server
}

async fn read_certificate(files: &TlsFiles) -> Result<RustlsConfig, Invalid> {
    RustlsConfig::from_pem_file(&files.cert, &files.key).await.map_err(|error| {
        let field = format!("GUESTLANE_TLS_CERT_FILE {}", files.cert.display());
        let reason = format!("and its key {} cannot be used: {error}", files.key.display());
        Invalid::new(field, reason, "name the chain and its private key, both in PEM")
    })
}

/// Whether it could be read.
async fn reload(config: &RustlsConfig, files: &TlsFiles) -> bool {
    match config.reload_from_pem_file(&files.cert, &files.key).await {
        Ok(()) => {
            info!(file = %files.cert.display(), "the certificate was read again");
            true
        }
        Err(error) => {
            warn!(%error, file = %files.cert.display(), "the certificate cannot be read; the old one is kept");
            false
        }
    }
}

/// Reads the certificate again when its files change. Without one, never ends either.
async fn keep_certificate(service: &Service, tls: Option<&(RustlsConfig, TlsFiles)>) {
    let Some((config, files)) = tls else { return std::future::pending().await };
    let changed = || {
        let of = |path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        (of(&files.cert), of(&files.key))
    };
    let mut known = changed();
    loop {
        service.clock().sleep(LOOK_AT_FILES).await;
        let now = changed();
        if now != known && reload(config, files).await {
            known = now;
        }
    }
}

/// Counts connections, and closes those that are too many.
#[derive(Debug, Clone)]
struct Gate {
    open: Arc<AtomicI64>,
    most: i64,
}

impl<S: Send + 'static> Accept<TcpStream, S> for Gate {
    type Stream = Counted;
    type Service = S;
    type Future = std::future::Ready<io::Result<(Counted, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let most = self.most;
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        let counted = Counted { stream, open: Arc::clone(&self.open) };
        let _ = counted.stream.set_nodelay(true);
        if open == most + 1 {
            warn!(most, "there are as many connections as can be: further ones are closed at once");
        }
        std::future::ready(if open <= most { Ok((counted, service)) } else { Err(io::Error::other("too many connections")) })
    }
}

/// As many connections as there may be files, less those that the rest needs: the store, the platform, the CRM.
fn most_connections() -> i64 {
    const RESERVED: u64 = 400;
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    i64::try_from(files.saturating_sub(RESERVED).max(files / 2)).unwrap_or(i64::MAX).min(MAX_CONNECTIONS)
}

/// A connection, counted for as long as it is there.
#[derive(Debug)]
struct Counted {
    stream: TcpStream,
    open: Arc<AtomicI64>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn connection() -> (TcpStream, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (caller, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn more_connections_than_there_may_be_are_closed_at_once() {
        let gate = Gate { open: Arc::default(), most: 2 };
        let mut open = Vec::new();
        for _ in 0..2 {
            let (caller, stream) = connection().await;
            open.push((caller, gate.accept(stream, ()).await.unwrap()));
        }
        let (_caller, stream) = connection().await;
        assert!(gate.accept(stream, ()).await.is_err());
        open.pop();
        let (_caller, stream) = connection().await;
        assert!(gate.accept(stream, ()).await.is_ok(), "one went, another one may come");
    }
}
