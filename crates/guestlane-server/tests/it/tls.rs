//! TLS from files, certificate reload with open connections, and the API key required beyond
//! loopback.

use std::{path::Path, sync::Arc, time::Duration};

use guestlane::SessionEngine;
use guestlane_cli::config::Settings;
use guestlane_runtime::http_client::HttpClient;
use guestlane_runtime::{Clock, TlsRoots};
use guestlane_server::TlsFiles;
use guestlane_server::{
    Service,
    server::{BindError, Server},
};
use http::Request;
use http_body_util::Full;

use guestlane_testkit::service::{TestService, settings};

/// Creates a self-signed certificate for 127.0.0.1.
fn certificate(directory: &Path, name: &str) -> (TlsFiles, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])
        .unwrap();
    let files = TlsFiles {
        cert: directory.join(format!("{name}.pem")),
        key: directory.join(format!("{name}.key")),
    };
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    (files, made.cert.pem())
}

async fn reaches(address: &str, pem: &str) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, pem).unwrap();
    let trust = TlsRoots::from_pem(std::fs::read(&file).unwrap().as_slice()).unwrap();
    let client = HttpClient::new(Clock::system(), Duration::from_secs(10), &trust).unwrap();
    let request = Request::get(format!("{address}/healthz"))
        .body(Full::default())
        .unwrap();
    let answer = client
        .send(request, Clock::system().now() + Duration::from_secs(10))
        .await;
    // HSTS: a browser that has visited once does not return without TLS (RFC 6797).
    let hsts = |answer: &guestlane_runtime::http_client::HttpResponse| {
        answer.headers["strict-transport-security"] == "max-age=31536000"
    };
    answer.is_ok_and(|answer| answer.status == 200 && hsts(&answer))
}

#[tokio::test]
async fn certificate_is_reloaded_and_invalid_file_keeps_the_old_one() {
    let directory = tempfile::tempdir().unwrap();
    let (files, first) = certificate(directory.path(), "first");
    let (second_files, second) = certificate(directory.path(), "second");
    // The harness provides the engine.
    let test_service = TestService::new().await;
    let mut settings = settings();
    settings.tls = Some(files.clone());
    let service = Service::open(test_service.engine.clone(), &settings, None)
        .await
        .unwrap();
    let listening = Server::bind(service, &settings).await.unwrap();
    let address = format!("https://localhost:{}", listening.address().unwrap().port());
    let reload = listening.reload_handle();
    let serving = tokio::spawn(listening.serve(std::future::pending()));
    assert!(reaches(&address, &first).await);

    std::fs::copy(&second_files.cert, &files.cert).unwrap();
    std::fs::copy(&second_files.key, &files.key).unwrap();
    reload.reload().await;
    assert!(reaches(&address, &second).await && !reaches(&address, &first).await);

    let chain = std::fs::read_to_string(&second_files.cert).unwrap();
    std::fs::write(&files.cert, format!("\u{feff}{chain}")).unwrap();
    reload.reload().await;
    assert!(
        reaches(&address, &second).await,
        "a byte order mark has no meaning"
    );

    std::fs::write(&files.cert, format!("{}{chain}", chain.trim_end())).unwrap();
    let refused = Server::bind(
        Service::open(test_service.engine.clone(), &settings, None)
            .await
            .unwrap(),
        &settings,
    )
    .await
    .err()
    .unwrap();
    assert!(
        refused
            .to_string()
            .contains("has other text beside -----BEGIN …----- in line"),
        "{refused}"
    );

    std::fs::write(&files.cert, "no certificate").unwrap();
    reload.reload().await;
    assert!(
        reaches(&address, &second).await,
        "one that cannot be read changes nothing"
    );
    serving.abort();
}

/// The result of `openssl req -x509`: a server certificate that is also a certificate authority
/// (CA:TRUE).
#[tokio::test]
async fn self_signed_ca_certificate_authenticates_only_itself() {
    let directory = tempfile::tempdir().unwrap();
    let own_authority = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let files = TlsFiles {
            cert: directory.path().join(format!("{name}.pem")),
            key: directory.path().join(format!("{name}.key")),
        };
        let pem = params.self_signed(&key).unwrap().pem();
        std::fs::write(&files.cert, &pem).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        (files, pem)
    };
    let ((files, own), (other_files, another)) = (own_authority("own"), own_authority("another"));
    // The harness provides the engine.
    let test_service = TestService::new().await;
    let mut settings = settings();
    settings.tls = Some(files.clone());
    let service = Service::open(test_service.engine.clone(), &settings, None)
        .await
        .unwrap();
    let listening = Server::bind(Arc::clone(&service), &settings).await.unwrap();
    let port = listening.address().unwrap().port();
    let serving = tokio::spawn(listening.serve(std::future::pending()));
    assert!(reaches(&format!("https://localhost:{port}"), &own).await);
    assert!(
        !reaches(&format!("https://localhost:{port}"), &another).await,
        "another one of the same name"
    );
    assert!(
        !reaches(&format!("https://127.0.0.1:{port}"), &own).await,
        "it has no such name"
    );
    serving.abort();

    settings.tls = Some(TlsFiles {
        cert: files.cert.clone(),
        key: other_files.key,
    });
    let refused = Server::bind(Arc::clone(&service), &settings)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        refused.contains("the private key does not belong to the certificate"),
        "{refused}"
    );
    settings.tls = Some(TlsFiles {
        cert: files.cert.clone(),
        key: files.cert,
    });
    let refused = Server::bind(service, &settings)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        refused.contains("the key has no private key in PEM"),
        "{refused}"
    );
}

async fn bind(engine: &std::sync::Arc<SessionEngine>, listen: &str) -> Result<Server, BindError> {
    let mut settings = settings();
    settings.listen = listen.parse().unwrap();
    let service = Service::open(engine.clone(), &settings, None)
        .await
        .unwrap();
    Server::bind(service, &settings).await
}

#[tokio::test]
async fn non_loopback_listener_requires_an_api_key_and_tls() {
    let test_service = TestService::new().await;
    let store = test_service.engine.store();
    for key in store.api_keys().await.unwrap() {
        store
            .revoke_api_key(key.id, test_service.engine.clock().now())
            .await
            .unwrap();
    }
    let refused = bind(&test_service.engine, "0.0.0.0:0")
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("no valid API key") && refused.contains("guestlane api-keys create"),
        "{refused}"
    );
    assert!(bind(&test_service.engine, "127.0.0.1:0").await.is_ok());

    let read = |pairs: &[(&str, &str)]| {
        let mut settings = Settings::default();
        settings.add_environment(|name| {
            pairs
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        });
        settings.service()
    };
    let plain = read(&[("GUESTLANE_LISTEN", "0.0.0.0:8971")])
        .unwrap_err()
        .to_string();
    assert!(plain.contains("TLS"), "{plain}");
    assert!(
        read(&[
            ("GUESTLANE_LISTEN", "0.0.0.0:8971"),
            ("GUESTLANE_TLS_TERMINATED_UPSTREAM", "true")
        ])
        .is_ok()
    );
    let half = read(&[("GUESTLANE_TLS_CERT_FILE", "cert.pem")])
        .unwrap_err()
        .to_string();
    assert!(half.contains("GUESTLANE_TLS_KEY_FILE"), "{half}");
}
