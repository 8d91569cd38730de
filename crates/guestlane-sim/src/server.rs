//! The HTTP server: accepts connections, serves HTTP/1.1 or HTTP/2, and reads requests completely.
//! A fault may close a connection without a response.

mod socket;

use std::{
    future::poll_fn,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::{
    body,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use crate::{
    admin,
    fault_injection::{Disconnect, GARBAGE},
    public_api::guest::upgrade::Agreed,
    request,
    response::Body,
    simulation::{Simulation, lock},
    tls::HTTP_2,
};
use socket::Wire;

/// The maximum size of a request body, in bytes. A larger one gets a 413 (docs/platform.md#errors).
const MAX_REQUEST: usize = 1024 * 1024;

/// The maximum size of an uploaded file, in bytes.
const MAX_FILE: usize = 16 * 1024 * 1024;

/// The maximum of concurrent HTTP/2 streams on a connection, as on AWS load balancers. The platform
/// is behind such load balancers.
const MAX_STREAMS: u32 = 128;

/// Accepts and serves connections until the future is dropped.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    simulation: Arc<Simulation>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    simulation.connected();
                    connections.spawn(begin(stream, tls.clone(), Arc::clone(&simulation)));
                }
                // Out of file descriptors, or the peer is gone already: let the others get on.
                Err(error) => {
                    debug!(%error, "failed to accept a connection");
                    tokio::task::yield_now().await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn begin(stream: TcpStream, tls: Option<TlsAcceptor>, simulation: Arc<Simulation>) {
    let Some(tls) = tls else {
        return serve_connection(stream, simulation).await;
    };
    match tls.accept(stream).await {
        Ok(stream) if stream.get_ref().1.alpn_protocol() == Some(HTTP_2) => {
            serve_http2(stream, simulation).await
        }
        Ok(stream) => serve_connection(stream, simulation).await,
        Err(error) => debug!(%error, "TLS handshake failed"),
    }
}

async fn serve_connection<S: Wire>(stream: S, simulation: Arc<Simulation>) {
    let (ending, agreed) = (Mutex::new(None), AtomicBool::new(false));
    let service = service_fn(|request| {
        Box::pin(async {
            let answer = answer(&simulation, request).await;
            match &answer {
                Ok(response) => agreed.store(
                    response.extensions().get::<Agreed>().is_some(),
                    Ordering::Relaxed,
                ),
                Err(how) => *lock(&ending) = Some(*how),
            }
            answer
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    let served = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    let ending = lock(&ending).take();
    match (served, ending) {
        (_, Some(Disconnect::Reset)) => {
            let _ = stream.tcp().set_zero_linger();
        }
        (_, Some(Disconnect::Garbage)) => {
            let _ = stream.write_all(GARBAGE).await;
            let _ = stream.flush().await;
        }
        (_, Some(Disconnect::Closed)) => {}
        (Ok(()), None) if agreed.load(Ordering::Relaxed) => {
            socket::serve(stream, parts.read_buf.to_vec(), Arc::clone(&simulation)).await;
        }
        (Ok(()), None) => {
            let _ = stream.shutdown().await;
        }
        (Err(error), None) => debug!(%error, "connection ended with an error"),
    }
}

/// Serves HTTP/2. For every [`Disconnect`], hyper resets only the stream of that request, so that
/// other requests on the connection continue.
async fn serve_http2<S: Wire>(stream: S, simulation: Arc<Simulation>) {
    let service = service_fn(move |request| {
        let simulation = Arc::clone(&simulation);
        async move { answer(&simulation, request).await }
    });
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    let http2 = http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS);
    if let Err(error) = http2.serve_connection(TokioIo::new(stream), service).await {
        debug!(%error, "connection ended with an error");
    }
}

async fn answer(
    simulation: &Simulation,
    request: Request<body::Incoming>,
) -> Result<Response<Body>, Disconnect> {
    let (head, body) = request.into_parts();
    let max = if head.uri.path().starts_with("/_upload/") {
        MAX_FILE
    } else {
        MAX_REQUEST
    };
    let body = match Limited::new(body, max).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(simulation.too_large(&head, max).await),
    };
    let request = request::Request {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: head.headers,
        body,
    };
    if request.path.starts_with(admin::PREFIX) {
        return Ok(admin::handle(simulation, &request));
    }
    simulation.handle(request).await
}

pub(crate) async fn bind(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}
