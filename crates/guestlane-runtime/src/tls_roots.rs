//! Trusted TLS root certificates and the client certificate.

use std::{fmt, fs::File, io::Read, path::Path, sync::Arc};

use hyper_rustls::ConfigBuilderExt;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
    sign::{CertifiedKey, SingleCertAndKey},
};

use crate::{pem, tls_error};

/// Maximum size of a certificate file in bytes; the bundle of all public authorities has about 250
/// KB.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// The certificates that a TLS client trusts.
#[derive(Debug, Clone, Default)]
pub enum TlsRoots {
    /// The certificates that the operating system trusts.
    #[default]
    System,
    /// Only the certificates of a file, for a private certificate authority or the simulator.
    Only(Arc<Authorities>),
}

/// The certificates of a file. Each is trusted as a certificate authority and also as a server's
/// own certificate, because `openssl req -x509` creates certificates that are both.
#[derive(Debug)]
pub struct Authorities {
    roots: Arc<RootCertStore>,
    certificates: Vec<CertificateDer<'static>>,
}

/// Two values are equal if they trust the same certificates in the same order.
impl PartialEq for TlsRoots {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::System, Self::System) => true,
            (Self::Only(one), Self::Only(other)) => one.certificates == other.certificates,
            (Self::System, Self::Only(_)) | (Self::Only(_), Self::System) => false,
        }
    }
}

/// Why certificates or keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTrust(String);

impl TlsRoots {
    /// Parses one or more certificates in PEM.
    ///
    /// # Errors
    ///
    /// Fails if there is no certificate, or if one would be omitted: see [`pem::certificates`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, InvalidTrust> {
        let mut roots = RootCertStore::empty();
        let certificates =
            pem::certificates(pem).map_err(|error| InvalidTrust(error.to_string()))?;
        for certificate in &certificates {
            let unusable = |error| {
                InvalidTrust(format!(
                    "has a certificate that cannot be used: {}",
                    tls_error::sentence(&error)
                ))
            };
            roots.add(certificate.clone()).map_err(unusable)?;
        }
        Ok(Self::Only(Arc::new(Authorities {
            roots: roots.into(),
            certificates,
        })))
    }

    /// Reads a file of at most 4 MiB: see [`from_pem`](Self::from_pem).
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, is too large, or does not contain valid certificates in
    /// PEM.
    pub fn from_file(path: &Path) -> Result<Self, InvalidTrust> {
        Self::from_pem(&read(path)?)
    }

    /// Returns the TLS configuration of a client. `client` is the certificate that it presents to a
    /// server that requests one.
    ///
    /// # Errors
    ///
    /// Fails if the operating system has no certificates.
    pub fn client_config(
        &self,
        client: Option<&ClientCertificate>,
    ) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match self {
            Self::System => builder.try_with_platform_verifier()?,
            Self::Only(authorities) => {
                let chains = WebPkiServerVerifier::builder_with_provider(
                    Arc::clone(&authorities.roots),
                    provider,
                )
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
                let verifier = Verifier {
                    chains,
                    authorities: Arc::clone(authorities),
                };
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        Ok(match client {
            Some(ClientCertificate(key)) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())))
            }
            None => builder.with_no_client_auth(),
        })
    }
}

/// rustls' own verifier with one exception. rustls rejects a server that presents a certificate
/// authority's certificate as its own; this verifier accepts it if the file contains this
/// certificate.
#[derive(Debug)]
struct Verifier {
    chains: Arc<WebPkiServerVerifier>,
    authorities: Arc<Authorities>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refused = match self
            .chains
            .verify_server_cert(certificate, chain, name, ocsp, now)
        {
            Ok(verified) => return Ok(verified),
            Err(refused) => refused,
        };
        // rustls checked the validity period before it returned this error (RFC 5280, section
        // 6.1.3), but not the name.
        let is_authority = matches!(
            &refused,
            rustls::Error::InvalidCertificate(CertificateError::Other(other)) if tls_error::is_ca_as_end_entity(other)
        );
        if !is_authority
            || !self
                .authorities
                .certificates
                .iter()
                .any(|known| known == certificate)
        {
            return Err(refused);
        }
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// A certificate chain and its private key, which a client presents to a server.
#[derive(Clone)]
pub struct ClientCertificate(CertifiedKey);

impl ClientCertificate {
    /// Reads two PEM files, or one file that has both. Each may have at most 4 MiB.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be read, if a section of it would be omitted, or if the key does not
    /// belong to the certificate.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, InvalidTrust> {
        let chain = read(certificate).and_then(|pem| {
            pem::certificates(&pem).map_err(|error| InvalidTrust(error.to_string()))
        });
        let chain = chain.map_err(|error| InvalidTrust(format!("the certificate file {error}")))?;
        let key = read(key).and_then(|pem| {
            pem::private_key(&pem).map_err(|error| InvalidTrust(error.to_string()))
        });
        let key = key.map_err(|error| InvalidTrust(format!("the key file {error}")))?;
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
        certified
            .map(Self)
            .map_err(|error| InvalidTrust(tls_error::sentence(&error)))
    }
}

/// Two values are equal if their chains are, because a certificate belongs to one private key.
impl PartialEq for ClientCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.cert == other.0.cert
    }
}

/// Omits the private key.
impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientCertificate").finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, InvalidTrust> {
    let mut pem = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut pem));
    read.map_err(|error| InvalidTrust(format!("cannot be read: {error}")))?;
    if pem.len() as u64 > MAX_FILE {
        return Err(InvalidTrust(format!("has more than {MAX_FILE} bytes")));
    }
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_without_a_valid_certificate_is_refused() {
        for text in [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            assert!(TlsRoots::from_pem(text.as_bytes()).is_err(), "{text}");
        }
    }
}
