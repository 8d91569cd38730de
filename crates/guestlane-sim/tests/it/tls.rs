//! TLS of the simulator: host names of a region, HTTP/2, and faults on an HTTP/2 connection.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use guestlane_sim::{DEPLOYMENT_ID, Tls};
use http::{Request, StatusCode, Version};
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::client::Client;

/// Returns a client whose simulator uses TLS.
async fn client() -> Client {
    Client::new(|options| {
        options.tls = Some(Tls {
            region: "mypurecloud.de".to_owned(),
        })
    })
    .await
}

async fn connect(
    client: &Client,
    name: &'static str,
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let address = client.sim.base_url();
    let address = address.strip_prefix("https://").unwrap();
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(client.sim.ca_pem().unwrap().as_bytes()).unwrap())
        .unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let connector = TlsConnector::from(Arc::new(config));
    connector
        .connect(
            ServerName::try_from(name).unwrap(),
            TcpStream::connect(address).await.unwrap(),
        )
        .await
}

#[tokio::test]
async fn simulator_certificate_covers_the_hosts_of_its_region() {
    let client = client().await;
    for name in [
        "login.mypurecloud.de",
        "api.mypurecloud.de",
        "webmessaging.mypurecloud.de",
        "localhost",
        "127.0.0.1",
    ] {
        let mut stream = connect(&client, name, &[]).await.unwrap();
        let request =
            format!("GET /api/v2/tokens/me HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{name}: {answer}");
    }
    let stream = connect(&client, "webmessaging.mypurecloud.de", &[])
        .await
        .unwrap();
    let url = format!("wss://webmessaging.mypurecloud.de/v1?deploymentId={DEPLOYMENT_ID}");
    let (mut socket, _) = client_async(url, stream).await.unwrap();
    let configure =
        format!(r#"{{"action":"configureSession","token":"t","deploymentId":"{DEPLOYMENT_ID}"}}"#);
    socket.send(Message::text(configure)).await.unwrap();
    let answer = socket.next().await.unwrap().unwrap();
    assert!(
        answer.to_text().unwrap().contains("SessionResponse"),
        "{answer}"
    );
    assert!(
        connect(&client, "api.mypurecloud.com", &[]).await.is_err(),
        "another region is another name"
    );
}

#[tokio::test]
async fn alpn_prefers_http_2_and_falls_back_to_http_1() {
    let client = client().await;
    for (offered, chosen) in [
        (&[b"h2".as_slice(), b"http/1.1"][..], Some(b"h2".as_slice())),
        (&[b"http/1.1", b"h2"], Some(b"h2")),
        (&[b"http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let stream = connect(&client, "localhost", offered).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
    }
}

#[tokio::test]
async fn http_2_fault_resets_one_stream_and_keeps_the_connection() {
    let client = client().await;
    let faults = ["reset:nth=1", "answer-lost:nth=2", "not-http:nth=3"];
    client.sim.set_faults(
        faults
            .map(|fault| format!("token-info:{fault}").parse().unwrap())
            .into(),
    );
    let stream = connect(&client, "localhost", &[b"h2"]).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let get = |path: &str| {
        let request = Request::get(format!("https://localhost{path}"))
            .body(Full::<Bytes>::default())
            .unwrap();
        let mut sender = sender.clone();
        async move { sender.send_request(request).await }
    };
    let held = client.sim.state().connections;
    for _ in 0..3 {
        let error = get("/api/v2/tokens/me").await.unwrap_err();
        let reset = std::error::Error::source(&error).unwrap().to_string();
        assert!(reset.starts_with("stream error received"), "{reset}");
    }
    let answer = get("/api/v2/tokens/me").await.unwrap();
    assert_eq!(
        (answer.status(), answer.version()),
        (StatusCode::UNAUTHORIZED, Version::HTTP_2)
    );
    assert_eq!(
        get("/v1?deploymentId=any").await.unwrap().status(),
        StatusCode::UPGRADE_REQUIRED
    );
    let state = client.sim.state();
    assert_eq!((state.connections, state.calls["token-info"]), (held, 4));
}
