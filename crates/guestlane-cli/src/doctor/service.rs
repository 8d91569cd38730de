//! Checks of the service: addresses, certificate, trace collector and log settings. No listener
//! stays open.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use guestlane_runtime::{Clock, pem, resolver, tls_error};
use rustls::{crypto::aws_lc_rs::default_provider, sign::CertifiedKey};
use tokio::net::TcpStream;
use url::Url;

use super::Finding;
use crate::config::{
    LISTEN, LOG_FORMAT, LOG_LEVEL, METRICS_LISTEN, OTLP_ENDPOINT, Settings, TLS_CERT_FILE,
    TLS_KEY_FILE,
};
use guestlane::Error;
use guestlane_server::{ServiceSettings, TlsFiles};

/// How long the trace collector may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) async fn examine(settings: &Settings, clock: &Clock) -> Vec<Finding> {
    let mut findings = match settings.service() {
        Ok(service) => of_service(&service),
        Err(error) => of_settings(error),
    };
    match settings.traces() {
        Ok(None) => {}
        Ok(Some(collector)) => findings.push(of_collector(&collector, clock).await),
        Err(error) => findings.extend(of_settings(error)),
    }
    findings.extend(of_log(settings));
    findings
}

/// Returns a warning for an environment variable that names a proxy, because guestlane connects
/// directly. The value is not shown, since it may contain a password.
pub(super) fn unused_proxy(name: &str) -> Finding {
    Finding::warning("proxy", format!("{name} is set but not used"))
        .because("guestlane connects directly to the platform, the CRM and the trace collector")
        .fix(
            "allow these connections in the firewall; if all of them are meant to be direct, \
            unset the variable",
        )
}

fn of_settings(error: Error) -> Vec<Finding> {
    match error {
        Error::Settings(refused) => refused.into_iter().map(super::of_setting).collect(),
        error => vec![Finding::bad("settings", error.to_string())],
    }
}

fn of_service(service: &ServiceSettings) -> Vec<Finding> {
    let mut findings = vec![of_address("listen", LISTEN, service.listen)];
    findings.extend(
        service
            .metrics
            .map(|address| of_address("metrics listen", METRICS_LISTEN, address)),
    );
    findings.extend(service.tls.as_ref().map(of_tls));
    findings
}

/// Binds the address for a moment.
fn of_address(check: &str, setting: &str, address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::good(check, format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Finding::warning(check, format!("{address} is in use"))
                .because(
                    "another process listens on it; while `guestlane serve` runs, that is the \
                service itself",
                )
                .fix(format!(
                    "if it is another program, stop it, or set {setting}"
                ))
        }
        Err(error) => Finding::bad(check, format!("cannot listen on {address}: {error}")).fix(
            format!("set {setting} to an address of this machine and a port of 1024 or higher"),
        ),
    }
}

fn of_tls(files: &TlsFiles) -> Finding {
    let check = "certificate of the service";
    let read = |path: &std::path::Path| {
        std::fs::read(path)
            .map(|text| pem::normalized(&text))
            .map_err(|error| format!("{}: {error}", path.display()))
    };
    let chain = || {
        let chain = pem::certificates(&read(&files.cert)?)
            .map_err(|error| format!("{} {error}", files.cert.display()))?;
        let key = pem::private_key(&read(&files.key)?)
            .map_err(|error| format!("{} {error}", files.key.display()))?;
        let count = chain.len();
        CertifiedKey::from_der(chain, key, &default_provider())
            .map_err(|error| format!("{}: {}", files.key.display(), tls_error::sentence(&error)))?;
        Ok::<_, String>(count)
    };
    match chain() {
        Ok(count) => Finding::good(
            check,
            format!("{count} in the chain; the private key belongs to the first"),
        ),
        Err(reason) => Finding::bad(check, reason).fix(format!(
            "set {TLS_CERT_FILE} to the chain and {TLS_KEY_FILE} to its private key, both in PEM"
        )),
    }
}

async fn of_collector(collector: &Url, clock: &Clock) -> Finding {
    let host = collector
        .host_str()
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .to_owned();
    let port = collector.port_or_known_default().unwrap_or(443);
    let check = format!("trace collector {host}:{port}");
    let connecting =
        async { TcpStream::connect(resolver::lookup(&host, port).await?.as_slice()).await };
    let reason = match clock.timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(_)) => return Finding::good(check, "accepts connections; no span was sent"),
        Ok(Err(error)) => error.to_string(),
        Err(late) => late.to_string(),
    };
    Finding::warning(check, format!("cannot be connected to: {reason}"))
        .because("spans are lost until it can be reached; sessions are created")
        .fix(format!("start the collector, or correct {OTLP_ENDPOINT}"))
}

fn of_log(settings: &Settings) -> Vec<Finding> {
    let values = [
        (LOG_FORMAT, &["text", "json"] as &[&str]),
        (LOG_LEVEL, &["error", "warn", "info", "debug"]),
    ];
    let refused = values.into_iter().filter(|(setting, known)| {
        settings
            .get(setting)
            .is_some_and(|(value, _)| !known.contains(&value))
    });
    refused
        .map(|(setting, known)| {
            Finding::bad("settings", format!("{setting} is not a valid value"))
                .fix(format!("write {}", known.join(" or ")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::doctor::CheckStatus;

    fn certificate(directory: &Path, name: &str) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let files = TlsFiles {
            cert: directory.join(format!("{name}.pem")),
            key: directory.join(format!("{name}.key")),
        };
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        fs::write(&files.cert, params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn certificate_check_requires_its_single_private_key() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (
            certificate(directory.path(), "one"),
            certificate(directory.path(), "other"),
        );
        assert_eq!(of_tls(&one).outcome, CheckStatus::Ok, "{:?}", of_tls(&one));
        let other_key = other.key.clone();
        let swapped = of_tls(&TlsFiles {
            key: other.key,
            ..one.clone()
        });
        assert!(
            swapped.outcome == CheckStatus::Failed && swapped.result.contains("does not belong"),
            "{swapped:?}"
        );
        // `doctor` must reject what the service rejects: a file with two keys.
        let both = fs::read_to_string(&one.key).unwrap() + &fs::read_to_string(&other_key).unwrap();
        fs::write(directory.path().join("both.key"), both).unwrap();
        let two = of_tls(&TlsFiles {
            key: directory.path().join("both.key"),
            ..one.clone()
        });
        assert!(
            two.outcome == CheckStatus::Failed
                && two.result.contains("a second private key in line"),
            "{two:?}"
        );
        let missing = of_tls(&TlsFiles {
            cert: directory.path().join("none"),
            ..one
        });
        assert!(
            missing.outcome == CheckStatus::Failed && missing.result.contains("No such file"),
            "{missing:?}"
        );
    }

    #[test]
    fn listen_address_check_warns_if_the_address_is_in_use() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(
            of_address("listen", LISTEN, address).outcome,
            CheckStatus::Warning
        );
        drop(taken);
        assert_eq!(
            of_address("listen", LISTEN, address).outcome,
            CheckStatus::Ok
        );
        // No machine has an address of TEST-NET-1 (RFC 5737).
        assert_eq!(
            of_address("listen", LISTEN, "192.0.2.1:8971".parse().unwrap()).outcome,
            CheckStatus::Failed
        );
    }
}
