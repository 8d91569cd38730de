//! The parameters of a `postgres://` URL (PostgreSQL documentation, section 34.1.2). Each is either
//! applied or rejected by name. No message contains a value, which may be a secret.

use std::{path::Path, sync::Arc};

use guestlane_runtime::{ClientCertificate, TlsRoots};

use super::InvalidDatabase;

/// Parameters that the client library applies.
const FORWARDED: &[&str] = &[
    "user",
    "password",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "options",
    "application_name",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "sslnegotiation",
    "channel_binding",
];

/// Other parameters of libpq, and common ones of pools and other drivers, which are rejected.
const REJECTED: &[&str] = &[
    "connection_limit",
    "currentSchema",
    "fallback_application_name",
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "passfile",
    "pgbouncer",
    "pool_mode",
    "pool_timeout",
    "replication",
    "require_auth",
    "requirepeer",
    "requiressl",
    "schema",
    "scram_client_key",
    "scram_server_key",
    "search_path",
    "service",
    "servicefile",
    "ssl",
    "ssl_max_protocol_version",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkeylogfile",
    "sslpassword",
    "sslsni",
    "statement_cache_size",
    "statement_timeout",
];

/// The parameters of a URL.
#[derive(Default)]
pub(super) struct UrlParameters {
    /// The query for the client library, percent-encoded.
    pub(super) rest: String,
    pub(super) mode: Option<String>,
    pub(super) trust: TlsRoots,
    pub(super) client: Option<Arc<ClientCertificate>>,
    /// Whether a parameter names certificates, which only TLS uses.
    pub(super) names_certificates: bool,
    /// Whether several hosts are tried in their order.
    pub(super) in_order: bool,
}

/// Reads a query and the files that it names.
///
/// # Errors
/// Returns [`InvalidDatabase`] if a parameter is unknown or cannot be applied, or if a file that it
/// names cannot be used.
pub(super) fn read_words(query: &str) -> Result<UrlParameters, InvalidDatabase> {
    let mut words = UrlParameters::default();
    let mut rest = url::form_urlencoded::Serializer::new(String::new());
    let (mut cert, mut key) = (None, None);
    for (name, value) in url::form_urlencoded::parse(&encoded_plus(query)) {
        match (name.as_ref(), value.as_ref()) {
            ("sslmode", _) => words.mode = Some(value.into_owned()),
            ("sslrootcert", file) => {
                words.trust = trust_in(file)?;
                words.names_certificates = true;
            }
            ("sslcert", file) => cert = Some(file.to_owned()),
            ("sslkey", file) => key = Some(file.to_owned()),
            ("load_balance_hosts", "disable") => words.in_order = true,
            ("load_balance_hosts", "random") => {}
            ("keepalives_count" | "keepalives_retries", count) => {
                rest.append_pair("keepalives_retries", count);
            }
            (name, value) if FORWARDED.contains(&name) => {
                rest.append_pair(name, value);
            }
            (name, value) => check_fixed_parameter(name, value)?,
        }
    }
    words.client = client(cert.as_deref(), key.as_deref())?.map(Arc::new);
    words.names_certificates |= words.client.is_some();
    // libpq does not decode a plus as a space.
    words.rest = rest.finish().replace('+', "%20");
    Ok(words)
}

/// Encodes each plus. libpq does not decode it, but the form parser would turn it into a space.
fn encoded_plus(query: &str) -> Vec<u8> {
    query.replace('+', "%2B").into_bytes()
}

/// Accepts parameters that are always satisfied, and rejects all others.
fn check_fixed_parameter(name: &str, value: &str) -> Result<(), InvalidDatabase> {
    let refused = |reason: String, fix: &str| Err(InvalidDatabase::new(reason, fix));
    match (name, value) {
        // No connection uses GSSAPI, all text is UTF-8, and the host that accepts writes is used.
        ("gssencmode", "disable" | "prefer")
        | ("target_session_attrs", "any" | "read-write" | "primary") => Ok(()),
        ("client_encoding", encoding)
            if ["utf8", "utf-8", "unicode", "auto"]
                .contains(&encoding.to_ascii_lowercase().as_str()) =>
        {
            Ok(())
        }
        // TLS versions before 1.2 are never used.
        ("ssl_min_protocol_version", "" | "TLSv1" | "TLSv1.1" | "TLSv1.2") => Ok(()),
        ("target_session_attrs", _) => {
            let reason = "has a target_session_attrs other than read-write, primary or any, but guestlane writes";
            refused(
                reason.to_owned(),
                "remove it: of several hosts, guestlane uses the one that accepts writes",
            )
        }
        (
            "gssencmode" | "client_encoding" | "ssl_min_protocol_version" | "load_balance_hosts",
            _,
        ) => {
            let (name, known) = match name {
                "gssencmode" => (name, "disable and prefer"),
                "client_encoding" => (name, "UTF8 and auto"),
                "load_balance_hosts" => (name, "disable and random"),
                _ => (name, "TLSv1, TLSv1.1 and TLSv1.2"),
            };
            refused(
                format!("has an unsupported value of {name}"),
                &format!("remove it; the supported values are {known}"),
            )
        }
        ("pgbouncer" | "pool_mode", _) => {
            let fix = "remove it; PgBouncer must use session pooling (pool_mode = session in its own settings)";
            refused(
                format!("has the parameter {name}, which guestlane does not support"),
                fix,
            )
        }
        ("schema" | "search_path" | "currentSchema", _) => {
            let fix = "remove it; set the schema with options=-csearch_path%3DNAME";
            refused(
                format!("has the parameter {name}, which guestlane does not support"),
                fix,
            )
        }
        ("ssl" | "requiressl", _) => refused(
            format!("has the parameter {name}, which guestlane does not support"),
            "replace it with sslmode=verify-full",
        ),
        ("passfile" | "service" | "servicefile", _) => {
            let fix = "remove it; write the user and the password into the URL";
            refused(
                format!("has the parameter {name}, which guestlane does not support"),
                fix,
            )
        }
        ("sslpassword", _) => {
            let fix = "remove it; set sslkey to a key that is not encrypted (openssl pkey -in FILE -out NEW)";
            refused(
                "has the parameter sslpassword, which guestlane does not support".to_owned(),
                fix,
            )
        }
        (name, _) if REJECTED.contains(&name) => refused(
            format!("has the parameter {name}, which guestlane does not support"),
            "remove it",
        ),
        // An unknown parameter may be a piece of a password with ? or & in it, so the message does
        // not repeat it.
        _ => {
            let fix = "check the parameters after ? for misspellings, or percent-encode & and ? in the values (%26, %3F)";
            refused(
                "has a parameter after ? that libpq does not define".to_owned(),
                fix,
            )
        }
    }
}

/// Returns the trusted roots. `system` is libpq's name for the certificates that the system trusts.
fn trust_in(file: &str) -> Result<TlsRoots, InvalidDatabase> {
    if file == "system" {
        return Ok(TlsRoots::System);
    }
    let fix =
        "set it to a PEM file of certificates, to system for those of the system, or remove it";
    let refused =
        |error| InvalidDatabase::new(format!("has an sslrootcert file that {error}"), fix);
    TlsRoots::from_file(Path::new(file)).map_err(refused)
}

fn client(
    cert: Option<&str>,
    key: Option<&str>,
) -> Result<Option<ClientCertificate>, InvalidDatabase> {
    let (cert, key) = match (cert, key) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        (Some(_), None) => {
            return Err(InvalidDatabase::new(
                "has sslcert without sslkey",
                "set the private key with sslkey=FILE",
            ));
        }
        (None, Some(_)) => {
            return Err(InvalidDatabase::new(
                "has sslkey without sslcert",
                "set the certificate with sslcert=FILE",
            ));
        }
    };
    let fix = "set the certificate with sslcert=FILE and its private key with sslkey=FILE, both in PEM and not encrypted";
    let refused = |error| {
        InvalidDatabase::new(
            format!("has a client certificate that cannot be used: {error}"),
            fix,
        )
    };
    ClientCertificate::from_files(Path::new(cert), Path::new(key))
        .map(Some)
        .map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_url_parameter_is_applied_or_rejected_by_name() {
        for good in [
            "sslrootcert=system",
            "target_session_attrs=primary",
            "gssencmode=disable",
            "client_encoding=UTF8",
            "channel_binding=require",
            "keepalives_count=3",
            "load_balance_hosts=disable",
            "ssl_min_protocol_version=TLSv1.2",
        ] {
            assert!(read_words(good).is_ok(), "{good}");
        }
        for (bad, name) in [
            ("pgbouncer=hunter2", "pgbouncer"),
            ("target_session_attrs=hunter2", "target_session_attrs"),
            ("gssencmode=hunter2", "gssencmode"),
            ("client_encoding=hunter2", "client_encoding"),
            ("sslcert=hunter2", "sslkey"),
            ("sslkey=hunter2", "sslcert"),
            ("passfile=hunter2", "passfile"),
            ("sslrootcert=hunter2", "sslrootcert"),
            ("hunter2=1", "libpq does not define"),
        ] {
            let Err(error) = read_words(bad) else {
                panic!("{bad} was taken")
            };
            assert!(
                error.reason.contains(name) && !format!("{error:?}").contains("hunter2"),
                "{bad}: {error:?}"
            );
        }
    }

    #[test]
    fn plus_stays_a_plus_and_space_is_encoded() {
        let words = read_words("options=-ca%3Db+c%20d").ok().unwrap();
        assert_eq!(words.rest, "options=-ca%3Db%2Bc%20d");
    }
}
