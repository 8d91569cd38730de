//! Files of certificates in PEM (RFC 7468). The usual readers skip what they do not understand;
//! here nothing is left out silently.

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// The file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPem {
    /// No certificate is in it.
    #[error("has no certificate in PEM")]
    Empty,
    /// Text stands in front of a section's first line, on the same line.
    #[error("has text in front of -----BEGIN in line {0}: begin a new line there, or the certificate is left out")]
    MissingLineBreak(usize),
    /// A section that is no certificate in the usual form.
    #[error("has a section `{label}` in line {line}, which cannot be read; convert it: openssl x509 -in FILE -out NEW")]
    Label {
        /// The line of its `-----BEGIN`.
        line: usize,
        /// What it is called.
        label: String,
    },
    /// The sections are damaged.
    #[error("is not PEM: {0}")]
    Damaged(String),
    /// Fewer certificates can be read than begin.
    #[error("has {begun} times -----BEGIN CERTIFICATE, and {read} certificates that can be read; see line {line}")]
    Unsupported {
        /// How many begin.
        begun: usize,
        /// How many can be read.
        read: usize,
        /// The line at which the first one begins that is left out.
        line: usize,
    },
}

/// The file has no private key that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// No private key is in it.
    #[error("has no private key in PEM")]
    Empty,
    /// Text stands in front of a section's first line, on the same line.
    #[error("has text in front of -----BEGIN in line {0}: begin a new line there, or the section is left out")]
    MissingLineBreak(usize),
    /// The key is encrypted, and nothing asks for its password.
    #[error("has an encrypted private key in line {0}; decrypt it: openssl pkey -in FILE -out NEW")]
    Encrypted(usize),
    /// A key in a form that is not read.
    #[error("has a private key in line {0} in a form that is not read; convert it: openssl pkey -in FILE -out NEW")]
    Form(usize),
    /// More than one: which one counts would be a guess.
    #[error("has a second private key in line {0}: keep the one that belongs to the certificate")]
    MultipleKeys(usize),
    /// The section is damaged. The reader's own words may repeat a part of the key.
    #[error("has a private key in line {0} that is damaged")]
    Damaged(usize),
}

const BEGIN: &str = "-----BEGIN";

/// The one private key of a file: PKCS#8, PKCS#1 or SEC1. Certificates and parameters beside it are
/// skipped: some programs keep them in one file.
///
/// # Errors
///
/// There is none, more than one, or one that is encrypted, damaged or in another form.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, InvalidKey> {
    let pem = normalized(pem);
    let text = String::from_utf8_lossy(&pem);
    let mut key = None;
    for (line, number) in text.lines().zip(1..) {
        let Some(at) = line.find(BEGIN) else {
            // RFC 1421, as `openssl rsa -aes256` writes it.
            if key.is_some() && line.starts_with("Proc-Type:") && line.contains("ENCRYPTED") {
                return Err(InvalidKey::Encrypted(number));
            }
            continue;
        };
        if at > 0 || line[BEGIN.len()..].contains(BEGIN) {
            return Err(InvalidKey::MissingLineBreak(number));
        }
        match line[BEGIN.len()..].trim().trim_matches('-').trim() {
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" if key.is_none() => key = Some(number),
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => return Err(InvalidKey::MultipleKeys(number)),
            "ENCRYPTED PRIVATE KEY" => return Err(InvalidKey::Encrypted(number)),
            label if label.ends_with("PRIVATE KEY") => return Err(InvalidKey::Form(number)),
            _ => {}
        }
    }
    let line = key.ok_or(InvalidKey::Empty)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| InvalidKey::Damaged(line))
}

/// All certificates of a file. Private keys and parameters beside them are skipped: some programs
/// keep them in one file.
///
/// # Errors
///
/// A certificate would be left out: its `-----BEGIN` is not at the start of a line, its label is
/// another one (`TRUSTED CERTIFICATE`), or its section is damaged.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, InvalidPem> {
    let pem = normalized(pem);
    let mut begun = Vec::new();
    for (line, number) in String::from_utf8_lossy(&pem).lines().zip(1..) {
        let Some(at) = line.find(BEGIN) else { continue };
        if at > 0 || line[BEGIN.len()..].contains(BEGIN) {
            return Err(InvalidPem::MissingLineBreak(number));
        }
        let label = line[BEGIN.len()..].trim().trim_matches('-').trim();
        if label == "CERTIFICATE" {
            begun.push(number);
        } else if !label.ends_with("PRIVATE KEY") && !label.ends_with("PARAMETERS") {
            let label = label.chars().filter(|c| !c.is_control()).take(40).collect();
            return Err(InvalidPem::Label { line: number, label });
        }
    }
    let read: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| InvalidPem::Damaged(error.to_string()))?;
    match begun.get(read.len()) {
        Some(line) => Err(InvalidPem::Unsupported { begun: begun.len(), read: read.len(), line: *line }),
        None if read.is_empty() => Err(InvalidPem::Empty),
        None => Ok(read),
    }
}

/// The text without a byte order mark, and with LF at the end of each line in the place of CR or
/// CRLF.
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

    // Sections need only be base64 here: what a certificate must be is for rustls.
    const FIRST: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const SECOND: &str = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n";

    fn count(text: &str) -> Result<usize, InvalidPem> {
        certificates(text.as_bytes()).map(|certificates| certificates.len())
    }

    #[test]
    fn every_certificate_is_read_with_any_line_break_and_with_a_byte_order_mark() {
        let both = format!("Subject: comment\n{FIRST}\n{SECOND}");
        for text in [both.clone(), format!("\u{feff}{FIRST}{SECOND}"), both.replace('\n', "\r\n"), both.replace('\n', "\r")] {
            assert_eq!(count(&text), Ok(2), "{text:?}");
        }
        let key = "-----BEGIN EC PARAMETERS-----\nAAAA\n-----END EC PARAMETERS-----\n-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(count(&format!("{key}{FIRST}")), Ok(1));
        assert_eq!(count(""), Err(InvalidPem::Empty));
        assert_eq!(count(key), Err(InvalidPem::Empty));
    }

    #[test]
    fn the_one_private_key_of_a_file_is_read_or_refused_with_its_line() {
        let section = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        let key = section("PRIVATE KEY");
        let read = |text: &str| private_key(text.as_bytes()).map(|_| ());
        for good in
            [key.clone(), format!("\u{feff}{key}"), key.replace('\n', "\r\n"), format!("{FIRST}{key}"), section("EC PRIVATE KEY")]
        {
            assert_eq!(read(&good), Ok(()), "{good:?}");
        }
        assert_eq!(read(FIRST), Err(InvalidKey::Empty));
        assert_eq!(read(&format!("{key}{key}")), Err(InvalidKey::MultipleKeys(4)));
        assert_eq!(read(&format!("{}{key}", FIRST.trim_end())), Err(InvalidKey::MissingLineBreak(3)));
        assert_eq!(read(&section("ENCRYPTED PRIVATE KEY")), Err(InvalidKey::Encrypted(1)));
        assert_eq!(read(&section("OPENSSH PRIVATE KEY")), Err(InvalidKey::Form(1)));
        let legacy = section("RSA PRIVATE KEY").replace("AAAA", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA");
        assert_eq!(read(&legacy), Err(InvalidKey::Encrypted(2)));
        assert_eq!(read("-----BEGIN PRIVATE KEY-----\nhunter2*\n-----END PRIVATE KEY-----\n"), Err(InvalidKey::Damaged(1)));
    }

    #[test]
    fn a_certificate_that_would_be_left_out_is_refused_with_its_line() {
        let glued = format!("{}{SECOND}", FIRST.trim_end());
        assert_eq!(count(&glued), Err(InvalidPem::MissingLineBreak(3)));
        assert_eq!(count(&format!("{FIRST}  {SECOND}")), Err(InvalidPem::MissingLineBreak(4)), "indented");
        assert_eq!(
            count(&format!("{FIRST}\u{feff}{SECOND}")),
            Err(InvalidPem::MissingLineBreak(4)),
            "two files with a byte order mark"
        );
        let trusted = SECOND.replace("CERTIFICATE", "TRUSTED CERTIFICATE");
        assert_eq!(
            count(&format!("{FIRST}{trusted}")),
            Err(InvalidPem::Label { line: 4, label: "TRUSTED CERTIFICATE".to_owned() })
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
