//! Whose certificates are believed.

use std::{fs::File, io::Read, path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

use crate::pem;

/// The largest file of certificates, in bytes; the bundle of all public authorities has about 250
/// KB.
const MAX_FILE: u64 = 4 * 1024 * 1024;

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
    ///
    /// # Errors
    ///
    /// There is none, or one would be left out: see [`pem::certificates`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, InvalidTrust> {
        let mut roots = RootCertStore::empty();
        for certificate in pem::certificates(pem).map_err(|error| InvalidTrust(error.to_string()))? {
            roots.add(certificate).map_err(|error| InvalidTrust(format!("has a certificate that is none: {error}")))?;
        }
        Ok(Self::Only(roots.into()))
    }

    /// From a file of at most 4 MiB: see [`from_pem`](Self::from_pem).
    ///
    /// # Errors
    ///
    /// The file cannot be read, is too large, or is no PEM of certificates.
    pub fn from_file(path: &Path) -> Result<Self, InvalidTrust> {
        let mut pem = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut pem));
        read.map_err(|error| InvalidTrust(format!("cannot be read: {error}")))?;
        if pem.len() as u64 > MAX_FILE {
            return Err(InvalidTrust(format!("has more than {MAX_FILE} bytes")));
        }
        Self::from_pem(&pem)
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
