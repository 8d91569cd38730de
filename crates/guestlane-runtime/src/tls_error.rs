//! TLS failures as sentences with a remedy. The names of the library's errors (`UnknownIssuer`,
//! `CaUsedAsEndEntity`) do not tell an operator what to change.

use std::{error::Error, io};

use rustls::{AlertDescription, CertificateError, OtherError, pki_types::UnixTime};

use crate::{Timestamp, text::one_line};

/// Beginning of the message about an untrusted authority.
const UNTRUSTED: &str = "its certificate authority is not trusted";

/// Beginning of every message about a certificate.
pub const CERTIFICATE: &str = "the certificate cannot be trusted";

/// Maximum number of a certificate's names in a message.
const MAX_NAMES: usize = 5;

/// Returns the message for the TLS failure in an error's source chain, or `None` if there is none.
pub fn explain(error: &(dyn Error + 'static)) -> Option<String> {
    find(error).map(sentence)
}

/// Returns the TLS failure in an error's source chain, including the error itself.
pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An I/O error's `source` is that of its inner error, which would skip the inner error
        // itself.
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        cause = inner
            .map(|inner| inner as &(dyn Error + 'static))
            .or_else(|| error.source());
    }
    None
}

/// Returns a message that states the problem and the remedy. It does not name a setting.
pub fn sentence(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => certificate(error),
        rustls::Error::AlertReceived(alert) => from_server(*alert).to_owned(),
        rustls::Error::InvalidMessage(_) => {
            "the server does not speak TLS on this port: check the port and the scheme".to_owned()
        }
        rustls::Error::PeerIncompatible(_) => NOTHING_IN_COMMON.to_owned(),
        rustls::Error::InconsistentKeys(_) => {
            "the private key does not belong to the certificate: configure the key for which the certificate was issued".to_owned()
        }
        rustls::Error::NoCertificatesPresented => "the server sent no certificate: install one on the server".to_owned(),
        rustls::Error::General(text) => format!("TLS cannot be used: {}", one_line(text)),
        // The enum is non-exhaustive, and its `Debug` output is meant for developers.
        _ => "the TLS handshake failed: check the server's log".to_owned(),
    }
}

const NOTHING_IN_COMMON: &str = "the server has no TLS version or cipher suite in common with guestlane, which supports TLS 1.2 and 1.3: update the server";

fn certificate(error: &CertificateError) -> String {
    let reason = match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("it expired at {}: renew it, or set this machine's clock", moment(*not_after))
        }
        CertificateError::Expired => "it has expired: renew it, or set this machine's clock".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("it is not valid before {}: set this machine's clock, or wait", moment(*not_before))
        }
        CertificateError::NotValidYet => "it is not valid yet: set this machine's clock, or wait".to_owned(),
        CertificateError::UnknownIssuer => {
            format!("{UNTRUSTED}: configure the authority's certificate as CA file, and have the server send its whole chain")
        }
        CertificateError::BadSignature => {
            "its signature does not verify: the CA file may have another authority of the same name".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            format!("it is for {}, and not for {}: {BY_NAME}", names(presented), expected.to_str())
        }
        CertificateError::NotValidForName => format!("it is for another name: {BY_NAME}"),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => PURPOSE.to_owned(),
        CertificateError::Revoked => "it was revoked: replace it on the server".to_owned(),
        CertificateError::BadEncoding => "it is damaged: replace it on the server".to_owned(),
        CertificateError::UnhandledCriticalExtension => {
            "it has an unknown critical extension: have it issued without that extension".to_owned()
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "it is signed with an unsupported algorithm, for example SHA-1: have it issued with SHA-256".to_owned()
        }
        CertificateError::Other(other) if is_ca_as_end_entity(other) => {
            "it is the certificate of an authority (CA:TRUE), not of a server: issue one with -addext basicConstraints=critical,CA:FALSE, \
             or configure this certificate itself as CA file"
                .to_owned()
        }
        CertificateError::Other(OtherError(other)) if format!("{other:?}").contains("Eku") => PURPOSE.to_owned(),
        _ => "it violates RFC 5280: have another one issued".to_owned(),
    };
    format!("{CERTIFICATE}; {reason}")
}

const BY_NAME: &str = "use a name in the certificate, or have a certificate issued for this name";
const PURPOSE: &str =
    "its extended key usage does not include serverAuth: have it issued with serverAuth";

/// Whether a server presented a certificate authority's certificate as its own.
pub fn is_ca_as_end_entity(other: &OtherError) -> bool {
    // The inner type belongs to a crate that only rustls depends on (rustls-webpki).
    format!("{:?}", other.0) == "CaUsedAsEndEntity"
}

/// Returns the message for a TLS alert of the server (RFC 8446, section 6).
fn from_server(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateRequired => {
            "the server requires a client certificate, and none is configured"
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => {
            "the server rejected the client certificate: check the server's log"
        }
        AlertDescription::ProtocolVersion
        | AlertDescription::HandshakeFailure
        | AlertDescription::InsufficientSecurity => NOTHING_IN_COMMON,
        AlertDescription::UnrecognisedName => {
            "the server has no certificate for the requested name: correct the name"
        }
        _ => "the server aborted the TLS handshake: check the server's log",
    }
}

fn moment(time: UnixTime) -> Timestamp {
    Timestamp::from_unix_micros(
        i64::try_from(time.as_secs())
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000_000),
    )
}

/// Formats a certificate's names. rustls writes them as `DnsName("example.org")` and
/// `IpAddress(127.0.0.1)`.
fn names(presented: &[String]) -> String {
    let plain = |name: &String| {
        one_line(
            name.split(['"', '(', ')'])
                .rfind(|part| !part.is_empty())
                .unwrap_or(name),
        )
        .chars()
        .take(100)
        .collect::<String>()
    };
    let mut names = presented
        .iter()
        .take(MAX_NAMES)
        .map(plain)
        .collect::<Vec<_>>()
        .join(", ");
    if presented.len() > MAX_NAMES {
        names.push_str(", …");
    }
    if names.is_empty() {
        "no name".to_owned()
    } else {
        names
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn tls_errors_are_explained_without_library_names() {
        let context = CertificateError::NotValidForNameContext {
            expected: "crm.example".try_into().unwrap(),
            presented: vec!["DnsName(\"other.example\")".to_owned()],
        };
        for (error, says) in [
            (CertificateError::UnknownIssuer.into(), UNTRUSTED),
            (
                context.into(),
                "it is for other.example, and not for crm.example",
            ),
            (CertificateError::Expired.into(), "expired"),
            (
                rustls::Error::AlertReceived(AlertDescription::CertificateRequired),
                "client certificate",
            ),
            (
                rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
                "does not speak TLS",
            ),
        ] {
            let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error));
            let text = explain(&wrapped).unwrap();
            assert!(text.contains(says), "{text}");
            for bare in [
                "UnknownIssuer",
                "NotValidForName",
                "DnsName",
                "OtherError",
                "InvalidContentType",
                "CertificateRequired",
            ] {
                assert!(!text.contains(bare), "{text}");
            }
        }
        let other = OtherError(Arc::new(io::Error::other("x")));
        assert!(sentence(&CertificateError::Other(other).into()).contains("RFC 5280"));
        assert_eq!(explain(&io::Error::other("no TLS")), None);
    }
}
