//! Parts of a database URL, and whether they are safe to use.

use std::net::{IpAddr, Ipv4Addr};

use tokio_postgres::config::{ChannelBinding, Host, SslMode};

use super::{EXAMPLE, InvalidDatabase, parameters::UrlParameters};

const UNREADABLE: &str =
    "is not a valid database URL: its host, its port or a value cannot be parsed";

/// Names the option whose value cannot be parsed. The library's message is not shown, because it
/// may repeat the value.
pub(super) fn unreadable(error: &tokio_postgres::Error) -> InvalidDatabase {
    let cause = std::error::Error::source(error)
        .map(ToString::to_string)
        .unwrap_or_default();
    let option = cause
        .strip_prefix("invalid value for option `")
        .and_then(|rest| rest.strip_suffix('`'));
    match option {
        Some("port") | None => InvalidDatabase::new(UNREADABLE, EXAMPLE),
        Some(option) => InvalidDatabase::new(
            format!("has an invalid value of {option}"),
            "correct it, or remove it",
        ),
    }
}

/// Uses the loopback address for `localhost`, whatever the system's resolver says. No unencrypted
/// connection goes to another machine.
pub(super) fn stay_here(config: &mut tokio_postgres::Config) {
    let addresses: Option<Vec<IpAddr>> = config.get_hosts().iter().map(address_here).collect();
    if let Some(addresses) = addresses.filter(|_| config.get_hostaddrs().is_empty()) {
        for address in addresses {
            config.hostaddr(address);
        }
    }
}

fn address_here(host: &Host) -> Option<IpAddr> {
    match host {
        Host::Tcp(name) if name == "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        Host::Tcp(name) => name.trim_matches(['[', ']']).parse().ok(),
        Host::Unix(_) => None,
    }
}

/// Returns the part before the query, and the query.
///
/// # Errors
/// Fails if it is not certain where user and password end. A part of the password could otherwise
/// be taken for the host, be resolved by DNS and be shown.
pub(super) fn parts(text: &str) -> Result<(&str, &str), InvalidDatabase> {
    const FIX: &str = "percent-encode these characters in the user and the password: @ is %40, / is %2F, : is %3A, ? is %3F, # is %23";
    let Some((_, rest)) = text.split_once("://") else {
        return Err(InvalidDatabase::new(UNREADABLE, EXAMPLE));
    };
    if let Some((credentials, rest)) = rest.split_once('@') {
        if credentials.contains(['/', '?', '#']) {
            return Err(InvalidDatabase::new("has /, ? or # before @", FIX));
        }
        if rest.contains('@') {
            return Err(InvalidDatabase::new(
                "has an @ in its host, path or query",
                FIX,
            ));
        }
    }
    let (plain, query) = text.split_once('?').unwrap_or((text, ""));
    if text.contains('#') {
        return Err(InvalidDatabase::new(
            "has a # that is not percent-encoded",
            FIX,
        ));
    }
    Ok((plain, query))
}

/// Returns whether TLS is used. A connection is unencrypted only to this machine, and only if no
/// parameter needs TLS.
pub(super) fn ssl_mode(
    config: &tokio_postgres::Config,
    words: &UrlParameters,
) -> Result<SslMode, InvalidDatabase> {
    let here = config.get_hosts().iter().all(is_this_machine)
        && config.get_hostaddrs().iter().all(IpAddr::is_loopback);
    let needs_tls =
        words.names_certificates || config.get_channel_binding() == ChannelBinding::Require;
    match words.mode.as_deref() {
        None if here && !needs_tls => Ok(SslMode::Disable),
        None | Some("require" | "verify-ca" | "verify-full") => Ok(SslMode::Require),
        Some("disable") if needs_tls => {
            let reason = "has sslmode=disable together with a certificate or channel binding, which require TLS";
            Err(InvalidDatabase::new(
                reason,
                "write sslmode=verify-full, or remove the other parameters",
            ))
        }
        Some("disable") if here => Ok(SslMode::Disable),
        Some("disable") => {
            let fix = "remove sslmode; set a private CA with sslrootcert=FILE";
            Err(InvalidDatabase::new(
                "has sslmode=disable, but the database is on another machine",
                fix,
            ))
        }
        Some(_) => {
            let reason =
                "has an sslmode that does not determine whether the connection is encrypted";
            Err(InvalidDatabase::new(
                reason,
                "write sslmode=verify-full, or sslmode=disable if the database is on this machine",
            ))
        }
    }
}

pub(super) fn is_host(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            !name.is_empty()
                && name.chars().all(|c| {
                    c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']' | '%')
                })
        }
        Host::Unix(_) => true,
    }
}

fn is_this_machine(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .trim_matches(['[', ']'])
                    .parse()
                    .is_ok_and(|address: IpAddr| address.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

pub(super) fn shown(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}
