//! Certificate and key files in PEM (RFC 7468). The usual parsers skip what they do not understand;
//! this module reports every section that it would otherwise omit.

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// Why a certificate file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPem {
    /// The file has no certificate.
    #[error("has no certificate in PEM")]
    Empty,
    /// The line that begins a section has other text.
    #[error("has other text beside -----BEGIN …----- in line {0}: give it a line of its own")]
    MissingLineBreak(usize),
    /// The file has a section that is not a certificate in the usual form.
    #[error(
        "has an unsupported section `{label}` in line {line}; convert it: openssl x509 -in FILE -out NEW"
    )]
    Label {
        /// The line of its `-----BEGIN`.
        line: usize,
        /// The section's label.
        label: String,
    },
    /// The sections are damaged.
    #[error("is not PEM: {0}")]
    Damaged(String),
    /// Fewer certificates were parsed than begin in the file.
    #[error(
        "has {begun} lines -----BEGIN CERTIFICATE but only {read} readable certificates; see line {line}"
    )]
    Unsupported {
        /// Number of certificates that begin.
        begun: usize,
        /// Number of certificates that were parsed.
        read: usize,
        /// The line at which the first omitted certificate begins.
        line: usize,
    },
}

/// Why a private key file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The file has no private key.
    #[error("has no private key in PEM")]
    Empty,
    /// The line that begins a section has other text.
    #[error("has other text beside -----BEGIN …----- in line {0}: give it a line of its own")]
    MissingLineBreak(usize),
    /// The key is encrypted, and guestlane does not prompt for a password.
    #[error("has an encrypted private key in line {0}; decrypt it: openssl pkey -in FILE -out NEW")]
    Encrypted(usize),
    /// The key is in an unsupported form.
    #[error(
        "has a private key in line {0} in an unsupported form; convert it: openssl pkey -in FILE -out NEW"
    )]
    Form(usize),
    /// The file has more than one key, and it is unclear which one to use.
    #[error("has a second private key in line {0}: keep the one that belongs to the certificate")]
    MultipleKeys(usize),
    /// The section is damaged. The parser's own message is omitted, because it may repeat a part of
    /// the key.
    #[error("has a damaged private key in line {0}")]
    Damaged(usize),
}

/// The line that begins a section has other text, with which a parser fails or skips the section.
struct OtherText;

/// The label of the section that begins in `line`, if one begins there. It has no `--` within
/// (RFC 7468 section 3): otherwise the line has text after its `-----`.
fn section_label(line: &str) -> Result<Option<&str>, OtherText> {
    const BEGIN: &str = "-----BEGIN";
    let Some((before, after)) = line.split_once(BEGIN) else {
        return Ok(None);
    };
    let label = after.trim().trim_end_matches('-').trim();
    if !before.is_empty() || label.contains("--") {
        return Err(OtherText);
    }
    Ok(Some(label))
}

/// Parses the one private key of a file: PKCS#8, PKCS#1 or SEC1. Certificates and parameters in the
/// same file are skipped, because some programs keep them in one file.
///
/// # Errors
///
/// Fails if there is no key, more than one, or one that is encrypted, damaged or in another form.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, InvalidKey> {
    let pem = normalized(pem);
    let text = String::from_utf8_lossy(&pem);
    let mut key = None;
    for (line, number) in text.lines().zip(1..) {
        let label = section_label(line).map_err(|_| InvalidKey::MissingLineBreak(number))?;
        let Some(label) = label else {
            // RFC 1421 encryption, as written by `openssl rsa -aes256`.
            if key.is_some() && line.starts_with("Proc-Type:") && line.contains("ENCRYPTED") {
                return Err(InvalidKey::Encrypted(number));
            }
            continue;
        };
        match label {
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" if key.is_none() => {
                key = Some(number)
            }
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => {
                return Err(InvalidKey::MultipleKeys(number));
            }
            "ENCRYPTED PRIVATE KEY" => return Err(InvalidKey::Encrypted(number)),
            label if label.ends_with("PRIVATE KEY") => return Err(InvalidKey::Form(number)),
            _ => {}
        }
    }
    let line = key.ok_or(InvalidKey::Empty)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| InvalidKey::Damaged(line))
}

/// Parses all certificates of a file. Private keys and parameters in the same file are skipped,
/// because some programs keep them in one file.
///
/// # Errors
///
/// Fails if a certificate would be omitted: its `-----BEGIN` is not at the start of a line, it has
/// another label (`TRUSTED CERTIFICATE`), or its section is damaged.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, InvalidPem> {
    let pem = normalized(pem);
    let mut begun = Vec::new();
    for (line, number) in String::from_utf8_lossy(&pem).lines().zip(1..) {
        let label = section_label(line).map_err(|_| InvalidPem::MissingLineBreak(number))?;
        let Some(label) = label else { continue };
        if label == "CERTIFICATE" {
            begun.push(number);
        } else if !label.ends_with("PRIVATE KEY") && !label.ends_with("PARAMETERS") {
            let label = label.chars().filter(|c| !c.is_control()).take(40).collect();
            return Err(InvalidPem::Label {
                line: number,
                label,
            });
        }
    }
    let read: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| InvalidPem::Damaged(error.to_string()))?;
    match begun.get(read.len()) {
        Some(line) => Err(InvalidPem::Unsupported {
            begun: begun.len(),
            read: read.len(),
            line: *line,
        }),
        None if read.is_empty() => Err(InvalidPem::Empty),
        None => Ok(read),
    }
}

/// Removes the byte order mark and replaces CR and CRLF line endings by LF.
pub fn normalized(pem: &[u8]) -> Vec<u8> {
    let pem = pem.strip_prefix(b"\xef\xbb\xbf").unwrap_or(pem);
    let mut lines = Vec::with_capacity(pem.len());
    let mut after_cr = false;
    for byte in pem {
        match byte {
            b'\n' if after_cr => {}
            b'\r' => lines.push(b'\n'),
            byte => lines.push(*byte),
        }
        after_cr = *byte == b'\r';
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    // For these tests a section need only be base64; rustls validates certificates.
    const FIRST: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const SECOND: &str = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n";

    fn count(text: &str) -> Result<usize, InvalidPem> {
        certificates(text.as_bytes()).map(|certificates| certificates.len())
    }

    #[test]
    fn certificates_are_read_with_any_line_break_or_byte_order_mark() {
        let both = format!("Subject: comment\n{FIRST}\n{SECOND}");
        for text in [
            both.clone(),
            format!("\u{feff}{FIRST}{SECOND}"),
            both.replace('\n', "\r\n"),
            both.replace('\n', "\r"),
        ] {
            assert_eq!(count(&text), Ok(2), "{text:?}");
        }
        let key = "-----BEGIN EC PARAMETERS-----\nAAAA\n-----END EC PARAMETERS-----\n-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(count(&format!("{key}{FIRST}")), Ok(1));
        assert_eq!(count(""), Err(InvalidPem::Empty));
        assert_eq!(count(key), Err(InvalidPem::Empty));
    }

    #[test]
    fn private_key_is_read_or_refused_with_its_line() {
        let section =
            |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        let key = section("PRIVATE KEY");
        let read = |text: &str| private_key(text.as_bytes()).map(|_| ());
        for good in [
            key.clone(),
            format!("\u{feff}{key}"),
            key.replace('\n', "\r\n"),
            format!("{FIRST}{key}"),
            section("EC PRIVATE KEY"),
        ] {
            assert_eq!(read(&good), Ok(()), "{good:?}");
        }
        assert_eq!(read(FIRST), Err(InvalidKey::Empty));
        assert_eq!(
            read(&format!("{key}{key}")),
            Err(InvalidKey::MultipleKeys(4))
        );
        assert_eq!(
            read(&format!("{}{key}", FIRST.trim_end())),
            Err(InvalidKey::MissingLineBreak(3))
        );
        assert_eq!(
            read(&key.replacen("-----\n", "-----x-----\n", 1)),
            Err(InvalidKey::MissingLineBreak(1))
        );
        assert_eq!(
            read(&section("ENCRYPTED PRIVATE KEY")),
            Err(InvalidKey::Encrypted(1))
        );
        assert_eq!(
            read(&section("OPENSSH PRIVATE KEY")),
            Err(InvalidKey::Form(1))
        );
        let legacy = section("RSA PRIVATE KEY").replace(
            "AAAA",
            "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA",
        );
        assert_eq!(read(&legacy), Err(InvalidKey::Encrypted(2)));
        assert_eq!(
            read("-----BEGIN PRIVATE KEY-----\nhunter2*\n-----END PRIVATE KEY-----\n"),
            Err(InvalidKey::Damaged(1))
        );
    }

    #[test]
    fn certificate_that_would_be_skipped_is_refused_with_its_line() {
        let glued = format!("{}{SECOND}", FIRST.trim_end());
        assert_eq!(count(&glued), Err(InvalidPem::MissingLineBreak(3)));
        assert_eq!(
            count(&format!("{FIRST}  {SECOND}")),
            Err(InvalidPem::MissingLineBreak(4)),
            "indented"
        );
        assert_eq!(
            count(&format!("{FIRST}\u{feff}{SECOND}")),
            Err(InvalidPem::MissingLineBreak(4)),
            "two files with a byte order mark"
        );
        assert_eq!(
            count(&format!("-----BEGIN-----BEGIN PRIVATE KEY-----\n{FIRST}")),
            Err(InvalidPem::MissingLineBreak(1))
        );
        for other in ["x PRIVATE KEY-----", "-----BEGIN CERTIFICATE-----", "x"] {
            let followed = SECOND.replacen("-----\n", &format!("-----{other}\n"), 1);
            assert_eq!(
                count(&format!("{FIRST}{followed}")),
                Err(InvalidPem::MissingLineBreak(4)),
                "{other}"
            );
        }
        let trusted = SECOND.replace("CERTIFICATE", "TRUSTED CERTIFICATE");
        assert_eq!(
            count(&format!("{FIRST}{trusted}")),
            Err(InvalidPem::Label {
                line: 4,
                label: "TRUSTED CERTIFICATE".to_owned()
            })
        );
        let unended = format!("-----BEGIN CERTIFICATE-----\nAAAA\n{SECOND}");
        assert!(count(&unended).is_err(), "{:?}", count(&unended));
        for damaged in [
            "-----BEGIN CERTIFICATE-----\nAAAA\n",
            "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE\n",
        ] {
            assert!(count(damaged).is_err(), "{damaged:?}");
        }
    }
}
