//! Whose certificates are believed.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};

/// Whose certificates are believed.
#[derive(Debug, Clone, Default)]
pub enum Trust {
    /// Those that the operating system believes.
    #[default]
    System,
    /// Those signed by one of these, and no others: a private certificate authority, the simulator.
    Only(Arc<RootCertStore>),
}

/// The text has no certificate that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTrust(String);

impl Trust {
    /// From PEM: one certificate or more.
    pub fn from_pem(pem: &[u8]) -> Result<Self, InvalidTrust> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| InvalidTrust(format!("is not PEM: {error}")))?;
            roots.add(certificate).map_err(|error| InvalidTrust(format!("has a certificate that is none: {error}")))?;
        }
        if roots.is_empty() { Err(InvalidTrust("has no certificate in PEM".to_owned())) } else { Ok(Self::Only(roots.into())) }
    }

    /// TLS with these roots; `None` where the operating system decides.
    pub(crate) fn own_roots(&self) -> Result<Option<ClientConfig>, rustls::Error> {
        let Self::Only(roots) = self else { return Ok(None) };
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::clone(roots))
            .with_no_client_auth();
        Ok(Some(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_a_certificate_is_refused() {
        for text in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(Trust::from_pem(text.as_bytes()).is_err(), "{text}");
        }
    }
}
