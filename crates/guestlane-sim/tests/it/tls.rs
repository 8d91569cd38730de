use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use guestlane_sim::{DEPLOYMENT_ID, Tls};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::client::Client;

#[tokio::test]
async fn the_hosts_of_a_region_are_known_by_the_simulators_own_ca() {
    let client = Client::new(|options| options.tls = Some(Tls { region: "mypurecloud.de".to_owned() })).await;
    let address = client.sim.base_url();
    let address = address.strip_prefix("https://").unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(client.sim.ca_pem().unwrap().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let connect = async |name: &'static str| {
        connector.connect(ServerName::try_from(name).unwrap(), TcpStream::connect(address).await.unwrap()).await
    };
    for name in ["login.mypurecloud.de", "api.mypurecloud.de", "webmessaging.mypurecloud.de", "localhost", "127.0.0.1"] {
        let mut stream = connect(name).await.unwrap();
        let request = format!("GET /api/v2/tokens/me HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{name}: {answer}");
    }
    let stream = connect("webmessaging.mypurecloud.de").await.unwrap();
    let url = format!("wss://webmessaging.mypurecloud.de/v1?deploymentId={DEPLOYMENT_ID}");
    let (mut socket, _) = client_async(url, stream).await.unwrap();
    let configure = format!(r#"{{"action":"configureSession","token":"t","deploymentId":"{DEPLOYMENT_ID}"}}"#);
    socket.send(Message::text(configure)).await.unwrap();
    let answer = socket.next().await.unwrap().unwrap();
    assert!(answer.to_text().unwrap().contains("SessionResponse"), "{answer}");
    assert!(connect("api.mypurecloud.com").await.is_err(), "another region is another name");
}
