//! TLS certificates of the service, and their reload.

use std::{io, time::Duration};

use axum_server::tls_rustls::RustlsConfig;
use guestlane_core::request::ValidationError;
use guestlane_runtime::{pem, tls_error};
use tracing::{info, warn};

use crate::{TlsFiles, service::Service};

/// Interval at which the certificate files are checked for changes.
const TLS_RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Handle to the TLS certificate in use, if there is one.
#[derive(Debug, Clone)]
pub struct Certificate(pub(super) Option<(RustlsConfig, TlsFiles)>);

impl Certificate {
    /// Reads the certificate files again, without closing connections. If that fails, the old
    /// certificate stays in use.
    pub async fn reload(&self) {
        if let Some((config, files)) = &self.0 {
            reload(config, files).await;
        }
    }
}

/// Reads the certificate chain and its private key, in PEM.
///
/// # Errors
/// A file cannot be read or parsed. A chain with an unreadable certificate is refused as a whole:
/// without that certificate, clients could not verify the chain.
fn read_files(files: &TlsFiles) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let chain = pem::normalized(&std::fs::read(&files.cert)?);
    pem::certificates(&chain).map_err(|error| io::Error::other(format!("the chain {error}")))?;
    let key = pem::normalized(&std::fs::read(&files.key)?);
    pem::private_key(&key).map_err(|error| io::Error::other(format!("the key {error}")))?;
    Ok((chain, key))
}

pub(super) async fn read_certificate(files: &TlsFiles) -> Result<RustlsConfig, ValidationError> {
    let read = async {
        let (chain, key) = read_files(files)?;
        RustlsConfig::from_pem(chain, key).await
    };
    read.await.map_err(|error| {
        let field = format!("GUESTLANE_TLS_CERT_FILE {}", files.cert.display());
        let error = tls_error::explain(&error).unwrap_or_else(|| error.to_string());
        let reason = format!(
            "and its key {} cannot be used: {error}",
            files.key.display()
        );
        // A certificate file that is being replaced may be readable a moment later.
        ValidationError::new(
            field,
            reason,
            "set it to the certificate chain and GUESTLANE_TLS_KEY_FILE to its private key, both \
             in PEM",
        )
        .may_pass()
    })
}

/// Reloads the certificate, and returns whether that succeeded.
async fn reload(config: &RustlsConfig, files: &TlsFiles) -> bool {
    let read = async {
        let (chain, key) = read_files(files)?;
        config.reload_from_pem(chain, key).await
    };
    match read.await {
        Ok(()) => {
            info!(file = %files.cert.display(), "certificate reloaded");
            true
        }
        Err(error) => {
            let error = tls_error::explain(&error).unwrap_or_else(|| error.to_string());
            warn!(error, file = %files.cert.display(), "failed to reload the certificate; the \
                previous one stays in use");
            false
        }
    }
}

/// Reloads the certificate when its files change. Never returns, with or without TLS.
pub(super) async fn reload_tls_loop(service: &Service, tls: Option<&(RustlsConfig, TlsFiles)>) {
    let Some((config, files)) = tls else {
        return std::future::pending().await;
    };
    let changed = || {
        let of = |path| {
            std::fs::metadata(path)
                .and_then(|metadata| metadata.modified())
                .ok()
        };
        (of(&files.cert), of(&files.key))
    };
    let mut known = changed();
    loop {
        service.clock().sleep(TLS_RELOAD_INTERVAL).await;
        let now = changed();
        if now != known && reload(config, files).await {
            known = now;
        }
    }
}
