//! Checks of the webhook endpoints: whether each accepts a connection and has a trusted
//! certificate. No event is sent.

use std::{error::Error, io};

use guestlane_runtime::{Clock, TlsRoots, http_client::NotConnected, tls_error};
use rustls::CertificateError;
use url::Url;

use super::Finding;
use crate::config::{ALLOW_PRIVATE, CRM_CA_FILE, Settings, WEBHOOK_URL};
use guestlane::outbox::WebhookEndpoint;
use guestlane_runtime::ssrf::EgressPolicy;

pub(super) async fn examine(settings: &Settings, clock: &Clock) -> Vec<Finding> {
    let crm = match settings.crm() {
        Ok(Some(crm)) => crm,
        Ok(None) => {
            let fix = format!("set {WEBHOOK_URL} to send session events to a CRM");
            return vec![Finding::good("crm", "no webhook endpoint is configured").fix(fix)];
        }
        Err(_) => return vec![Finding::skipped("crm", "its settings are invalid")],
    };
    // Check all endpoints concurrently, so that the check takes as long as the slowest, which is
    // bounded.
    let findings = crm
        .urls
        .iter()
        .map(|url| of_endpoint(url, crm.egress_policy, &crm.tls_roots, clock));
    futures_util::future::join_all(findings).await
}

async fn of_endpoint(
    url: &Url,
    networks: EgressPolicy,
    trust: &TlsRoots,
    clock: &Clock,
) -> Finding {
    // Show host and port only: a path or a query may be a secret.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let check = format!("crm {host}:{}", url.port_or_known_default().unwrap_or(443));
    let crm = match WebhookEndpoint::new(url.clone(), networks, trust, clock.clone()) {
        Ok(crm) => crm,
        Err(error) => return Finding::bad(check, error.to_string()),
    };
    match crm.connect().await {
        Ok(()) if url.scheme() == "https" => Finding::good(
            check,
            "accepts connections, and its certificate is trusted; no event was sent",
        ),
        Ok(()) => Finding::good(check, "accepts connections, without TLS; no event was sent"),
        Err(error) => of_failure(check, &error),
    }
}

fn of_failure(check: String, error: &NotConnected) -> Finding {
    let error = match error {
        NotConnected::TimedOut(_) => {
            let result = format!(
                "accepted no connection within {} s",
                WebhookEndpoint::ATTEMPT_TIMEOUT.as_secs()
            );
            let fix = "check the firewall between this machine and the endpoint, and that the \
                port speaks TLS";
            return waiting(Finding::bad(check, result), fix);
        }
        NotConnected::Failed(error) => &**error,
    };
    let text = guestlane_runtime::text::display_chain(error);
    if text.contains(WebhookEndpoint::NOT_PUBLIC) {
        return Finding::bad(
            check,
            "has an address in a private network or a loopback address",
        )
        .because("events are sent to private networks only if a setting allows it")
        .fix(format!("set {ALLOW_PRIVATE}=true if your CRM is there"));
    }
    if let Some(failure) = tls_error::find(error) {
        return waiting(
            Finding::bad(check, tls_error::sentence(failure)),
            &tls_fix(failure),
        );
    }
    if error.to_string().contains("dns error") {
        return Finding::bad(check, format!("its host name cannot be resolved: {text}"))
            .fix(format!("check {WEBHOOK_URL} and DNS"));
    }
    match io_kind(error) {
        Some(io::ErrorKind::ConnectionRefused) => {
            let fix = "start the CRM, or open the firewall; `guestlane outbox deliver` sends pending \
                 events";
            waiting(Finding::bad(check, "refuses connections"), fix)
        }
        Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            let fix = format!("check the port in {WEBHOOK_URL}, and the endpoint's own log");
            waiting(
                Finding::bad(check, "closed the connection during the TLS handshake"),
                &fix,
            )
        }
        _ => {
            let fix = "check the network between this machine and the endpoint: routes, firewall";
            waiting(
                Finding::bad(check, format!("cannot be connected to: {text}")),
                fix,
            )
        }
    }
}

fn waiting(finding: Finding, fix: &str) -> Finding {
    finding
        .because("events stay pending in the outbox; sessions are created")
        .fix(fix)
}

/// The fix of a TLS failure, with the setting to change. The message about the failure names no
/// setting.
fn tls_fix(failure: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(refused) = failure else {
        return format!(
            "check the port and the scheme in {WEBHOOK_URL}, and the endpoint's own log"
        );
    };
    match refused {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "set {CRM_CA_FILE} to the authority's certificate (of a self-signed one: to itself), \
             or configure the endpoint to send its whole chain"
        ),
        CertificateError::Other(other) if tls_error::is_ca_as_end_entity(other) => {
            format!(
                "set {CRM_CA_FILE} to this certificate, or give the endpoint one that is not a CA \
                 certificate"
            )
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "renew the endpoint's certificate, or correct this machine's clock".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "correct this machine's clock, or wait until the endpoint's certificate is valid"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("correct the host in {WEBHOOK_URL}, or give the endpoint a certificate for it")
        }
        _ => "give the endpoint another certificate".to_owned(),
    }
}

/// The kind of the innermost I/O error. The outer errors have the kind `Other`.
fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut kind = None;
    let mut cause = Some(error);
    while let Some(error) = cause {
        let found = error.downcast_ref::<io::Error>();
        kind = found.map(io::Error::kind).or(kind);
        // `source` of an I/O error skips the error inside it, so take that with `get_ref`.
        let inner = found.and_then(io::Error::get_ref);
        cause = inner
            .map(|inner| inner as &(dyn Error + 'static))
            .or_else(|| error.source());
    }
    kind
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        net::{TcpListener, TcpStream},
        sync::Arc,
        thread::{self, JoinHandle},
        time::Duration,
    };

    use guestlane_runtime::{ManualClock, Timestamp};
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
    use rustls::{
        ServerConfig, ServerConnection, StreamOwned,
        crypto::aws_lc_rs::default_provider,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    };

    use super::*;
    use crate::doctor::CheckStatus;

    fn params(name: &str) -> CertificateParams {
        CertificateParams::new([name.to_owned()]).unwrap()
    }

    struct Receiver {
        url: String,
        pem: String,
        /// Bytes that the client sent after the handshake.
        received: JoinHandle<Vec<u8>>,
    }

    /// Accepts one connection with a self-signed certificate.
    fn receiver(params: CertificateParams) -> Receiver {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let (listener, url) = listener("https");
        let received = thread::spawn(move || {
            let tcp = listener.accept().unwrap().0;
            let mut tls = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), tcp);
            let mut bytes = Vec::new();
            let _ = tls.read_to_end(&mut bytes);
            bytes
        });
        Receiver {
            url,
            pem: certificate.pem(),
            received,
        }
    }

    fn listener(scheme: &str) -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!(
            "{scheme}://localhost:{}/hook-secret",
            listener.local_addr().unwrap().port()
        );
        (listener, url)
    }

    async fn examined(url: &str, networks: EgressPolicy, trust: &TlsRoots) -> Finding {
        let finding = of_endpoint(&url.parse().unwrap(), networks, trust, &Clock::system()).await;
        assert!(
            !format!("{finding:?}").contains("hook-secret"),
            "a path may be a secret: {finding:?}"
        );
        finding
    }

    #[tokio::test]
    async fn trusted_certificate_passes_and_no_request_is_sent() {
        let receiver = receiver(params("localhost"));
        let trust = TlsRoots::from_pem(receiver.pem.as_bytes()).unwrap();
        let found = examined(&receiver.url, EgressPolicy::Any, &trust).await;
        assert!(
            found.outcome == CheckStatus::Ok && found.result.contains("certificate is trusted"),
            "{found:?}"
        );
        assert_eq!(receiver.received.join().unwrap(), b"");
    }

    #[tokio::test]
    async fn each_rejected_certificate_has_its_own_fix() {
        let mut expired = params("localhost");
        (expired.not_before, expired.not_after) =
            (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        let mut early = params("localhost");
        (early.not_before, early.not_after) =
            (date_time_ymd(2901, 1, 1), date_time_ymd(2902, 1, 1));
        let mut authority = params("localhost");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        for (made, is_trusted, result, fix) in [
            (
                params("localhost"),
                false,
                "authority is not trusted",
                "set CRM_CA_FILE to the authority's certificate",
            ),
            (
                expired,
                true,
                "it expired at 2002-01-01",
                "renew the endpoint's certificate",
            ),
            (
                early,
                true,
                "it is not valid before 2901-01-01",
                "correct this machine's clock",
            ),
            (
                params("crm.example"),
                true,
                "it is for crm.example, and not for localhost",
                "correct the host in CRM_WEBHOOK_URL",
            ),
            (authority, false, "authority", "set CRM_CA_FILE to"),
        ] {
            let receiver = receiver(made);
            let mut other = params("localhost");
            other
                .distinguished_name
                .push(rcgen::DnType::CommonName, "another authority");
            let other = other
                .self_signed(&KeyPair::generate().unwrap())
                .unwrap()
                .pem();
            let trust = TlsRoots::from_pem(if is_trusted {
                receiver.pem.as_bytes()
            } else {
                other.as_bytes()
            })
            .unwrap();
            let found = examined(&receiver.url, EgressPolicy::Any, &trust).await;
            assert!(
                found.outcome == CheckStatus::Failed && found.result.contains(result),
                "{found:?}"
            );
            assert!(found.fix.as_ref().unwrap().contains(fix), "{found:?}");
            assert_eq!(receiver.received.join().unwrap(), b"");
        }
    }

    #[tokio::test]
    async fn each_connection_failure_has_its_own_message() {
        let (closed, url) = listener("https");
        drop(closed);
        let refused = examined(&url, EgressPolicy::Any, &TlsRoots::System).await;
        assert!(
            refused.result == "refuses connections"
                && refused.fix.unwrap().contains("start the CRM")
        );

        let (hangs_up, url) = listener("https");
        let hanging_up = thread::spawn(move || drop(hangs_up.accept()));
        let closed = examined(&url, EgressPolicy::Any, &TlsRoots::System).await;
        assert!(
            closed.result.contains("during the TLS handshake"),
            "{closed:?}"
        );
        hanging_up.join().unwrap();

        let (plain, url) = listener("https");
        let answering = thread::spawn(move || {
            let mut tcp: TcpStream = plain.accept().unwrap().0;
            io::Write::write_all(&mut tcp, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
            let _ = tcp.read_to_end(&mut Vec::new());
        });
        let plain = examined(&url, EgressPolicy::Any, &TlsRoots::System).await;
        assert!(plain.result.contains("does not speak TLS"), "{plain:?}");
        answering.join().unwrap();

        let (_listener, url) = listener("http");
        let good = examined(&url, EgressPolicy::Any, &TlsRoots::System).await;
        assert!(
            good.outcome == CheckStatus::Ok && good.result.contains("without TLS"),
            "{good:?}"
        );
    }

    #[tokio::test]
    async fn forbidden_private_address_is_not_connected_to() {
        let (listener, by_name) = listener("https");
        let by_address = by_name.replace("localhost", "127.0.0.1");
        for url in [by_name, by_address] {
            let found = examined(&url, EgressPolicy::Public, &TlsRoots::System).await;
            assert!(
                found.outcome == CheckStatus::Failed && found.result.contains("private network"),
                "{found:?}"
            );
            assert!(
                found
                    .fix
                    .unwrap()
                    .contains("CRM_ALLOW_PRIVATE_NETWORKS=true")
            );
        }
        listener.set_nonblocking(true).unwrap();
        assert_eq!(
            listener.accept().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }

    #[tokio::test]
    async fn silent_endpoint_fails_after_the_delivery_timeout() {
        let (_silent, url) = listener("https");
        let hands = ManualClock::new(Timestamp::from_unix_micros(1_795_361_029_000_000));
        let (url, clock) = (url.parse().unwrap(), Clock::from(hands.clone()));
        let examining = of_endpoint(&url, EgressPolicy::Any, &TlsRoots::System, &clock);
        let passing = async {
            loop {
                hands.advance(WebhookEndpoint::ATTEMPT_TIMEOUT + Duration::from_millis(1));
                tokio::task::yield_now().await;
            }
        };
        let found = tokio::select! {
            found = examining => found,
            () = passing => unreachable!(),
        };
        assert!(
            found.outcome == CheckStatus::Failed
                && found.result == "accepted no connection within 3 s",
            "{found:?}"
        );
    }
}
