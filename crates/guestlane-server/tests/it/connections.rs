//! Connection limits, tested with peers on real sockets.

use std::{net::SocketAddr, time::Duration};

use guestlane_runtime::{Clock, ManualClock};
use guestlane_server::ServiceSettings;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use guestlane_testkit::service::{TestService, settings};

/// The flow-control window of a client that reads responses as they arrive.
const OPEN_WINDOW: u32 = 1 << 20;

/// An HTTP/2 connection whose streams have a window of fixed size.
struct Http2 {
    requests: http2::SendRequest<Empty<bytes::Bytes>>,
    connection: tokio::task::JoinHandle<hyper::Result<()>>,
}

impl Http2 {
    async fn open(address: SocketAddr, window: u32) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window);
        let (requests, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        Self {
            requests,
            connection: tokio::spawn(connection),
        }
    }

    /// Returns the response without reading its body.
    async fn get(&mut self, path: &str) -> hyper::Result<http::Response<hyper::body::Incoming>> {
        let request = Request::get(format!("http://localhost{path}"))
            .body(Empty::new())
            .unwrap();
        self.requests.send_request(request).await
    }
}

/// The client reads the socket and sends further requests, but never opens the window for a
/// response.
#[tokio::test]
async fn http2_connection_without_window_is_closed_after_write_limit() {
    let clock = ManualClock::new(Clock::system().now());
    let test_service = TestService::at(&clock).await;
    let (service, metrics) = (
        test_service.socket_address(),
        test_service.metrics.strip_prefix("http://").unwrap(),
    );
    let metrics = metrics.strip_suffix("/metrics").unwrap().parse().unwrap();
    let mut reading = Http2::open(service, OPEN_WINDOW).await;
    // With a window of one byte, hyper takes a short response from the service and buffers it.
    for (address, window, path) in [
        (service, 0, "/openapi.json"),
        (service, 1, "/openapi.json"),
        (service, 1, "/healthz"),
        (metrics, 0, "/metrics"),
        (metrics, 1, "/healthz"),
    ] {
        let mut stalled = Http2::open(address, window).await;
        let mut kept = vec![stalled.get(path).await.unwrap()];
        clock.advance(Duration::from_secs(29));
        kept.push(stalled.get(path).await.unwrap());
        assert!(kept.iter().all(|answer| answer.status() == StatusCode::OK));
        clock.advance(Duration::from_secs(2));
        let later = stalled.get(path).await;
        assert!(
            later.is_err(),
            "window {window}, {path}: a later answer, which is not taken either, gives no more time"
        );
        assert!(
            stalled.connection.await.unwrap().is_err(),
            "window {window}, {path}: the service closed it"
        );
        let taken = reading.get("/openapi.json").await.unwrap();
        let document = taken.into_body().collect().await.unwrap().to_bytes();
        assert!(
            serde_json::from_slice::<serde_json::Value>(&document).is_ok(),
            "a caller that reads is served"
        );
    }
}

/// Opens a connection from `address`, and waits for the response to a first request.
async fn open_served_connection(address: [u8; 4], server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    let mut stream = socket.connect(server).await.unwrap();
    assert!(is_served(&mut stream).await);
    stream
}

/// Returns whether a request on the connection gets a response. `HEAD` limits the response to its
/// headers.
async fn is_served(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    if stream
        .write_all(b"HEAD /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .is_err()
    {
        return false;
    }
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut head).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return false,
        }
    }
    head.starts_with(b"HTTP/1.1 200")
}

fn is_closed(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// One address may have at most an eighth of 20,000 connections; a lower limit of open files
/// reduces this.
#[tokio::test]
async fn connection_flood_of_one_address_spares_other_addresses() {
    const MORE_THAN_ONE_ADDRESS_MAY_HAVE: usize = 2_600;
    let everywhere = ServiceSettings {
        listen: "0.0.0.0:0".parse().unwrap(),
        ..settings()
    };
    let test_service = TestService::with(|_| {}, everywhere).await;
    let server = SocketAddr::from(([127, 0, 0, 1], test_service.socket_address().port()));
    let mut earlier = open_served_connection([127, 0, 0, 2], server).await;
    let mut flood = Vec::new();
    while !flood.first().is_some_and(is_closed) {
        assert!(
            flood.len() < MORE_THAN_ONE_ADDRESS_MAY_HAVE,
            "one address has {} connections",
            flood.len()
        );
        flood.push(open_served_connection([127, 0, 0, 1], server).await);
    }
    assert!(
        is_served(&mut earlier).await,
        "the oldest connection of all is of another address"
    );
    open_served_connection([127, 0, 0, 2], server).await;
    let open = flood.iter().filter(|stream| !is_closed(stream)).count();
    assert!(
        open + 2 >= flood.len(),
        "a new connection closes one of its own address: {open} of {}",
        flood.len()
    );
}
