//! HTTPS with a CA that is created at every start, and a certificate for the hosts of a region.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer},
};

use crate::options::Tls;

/// The TLS identity of the server.
pub(crate) struct Identity {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) ca_pem: String,
}

/// The ALPN protocol name of HTTP/2.
pub(crate) const HTTP_2: &[u8] = b"h2";

/// The hosts of a region (docs/platform.md#hosts).
const HOSTS: [&str; 5] = ["login", "api", "webmessaging", "api-cdn", "apps"];

impl Identity {
    pub(crate) fn new(tls: &Tls) -> Result<Self, String> {
        made(tls).map_err(|error| {
            format!(
                "failed to create a certificate for the region `{}`: {error}",
                tls.region
            )
        })
    }
}

fn made(tls: &Tls) -> Result<Identity, Box<dyn std::error::Error>> {
    let mut ca = CertificateParams::default();
    ca.distinguished_name
        .push(DnType::CommonName, "guestlane simulator");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;

    let hosts = HOSTS.iter().map(|host| format!("{host}.{}", tls.region));
    let names: Vec<String> = hosts
        .chain(["localhost".to_owned(), "127.0.0.1".to_owned()])
        .collect();
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(names)?.signed_by(&key, &ca)?;

    // Name the crypto provider: the process may have another default provider, or none.
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )?;
    config.alpn_protocols = vec![HTTP_2.to_vec(), b"http/1.1".to_vec()];
    Ok(Identity {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        ca_pem: ca.pem(),
    })
}
