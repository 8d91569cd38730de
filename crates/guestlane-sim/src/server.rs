//! Sockets: accepts connections, reads requests whole, and closes without an answer when told to.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
};

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::{body, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tracing::debug;

use crate::{
    answer::{Body, Refusal},
    effect::Ending,
    world::{Incoming, World, lock},
};

/// The longest request that is read; more is a 413 (the platform's own threshold is not known: reference, section 14).
const MAX_REQUEST: usize = 1024 * 1024;

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, world: Arc<World>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    connections.spawn(serve_connection(stream, Arc::clone(&world)));
                }
                // Out of file descriptors, or the peer is gone already: let the others get on.
                Err(error) => {
                    debug!(%error, "a connection could not be accepted");
                    tokio::task::yield_now().await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection(stream: TcpStream, world: Arc<World>) {
    let ending = Mutex::new(None);
    let service = service_fn(|request| async {
        let answer = answer(&world, request).await;
        answer.inspect_err(|how| *lock(&ending) = Some(*how))
    });
    let mut connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    if let Err(error) = Pin::new(&mut connection).await {
        debug!(%error, "a connection ended");
    }
    let stream = connection.into_parts().io.into_inner();
    let ending = lock(&ending).take();
    match ending {
        Some(Ending::Reset) => {
            let _ = stream.set_zero_linger();
        }
        Some(Ending::Garbage) => {
            let _ = stream.try_write(b"\x15\x03\x01\x00\x02\x02\x28 this is no HTTP\r\n\r\n");
        }
        Some(Ending::Closed) | None => {}
    }
}

async fn answer(world: &World, request: Request<body::Incoming>) -> Result<Response<Body>, Ending> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, MAX_REQUEST).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => {
            let message = format!("The body is too large. Maximum bytes: {MAX_REQUEST}");
            return Ok(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "request.too.large", message).answer(uuid::Uuid::nil()));
        }
    };
    let incoming = Incoming {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: head.headers,
        body,
    };
    world.handle(incoming).await
}

pub(crate) async fn bind(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}
