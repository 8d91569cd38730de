//! The URL of a PostgreSQL database, and how connections to it are opened.

mod parameters;
mod parse;

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use arc_swap::ArcSwap;
use guestlane_runtime::{ClientCertificate, Outage, TlsRoots};
use parameters::read_words;
use parse::{is_host, parts, shown, ssl_mode, stay_here, unreadable};
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode, TargetSessionAttrs};

use crate::InvalidDatabase;

/// A valid `postgres://` URL. Neither `Debug` nor `Display` shows user or password.
#[derive(Clone)]
pub struct PostgresUrl {
    /// How connections are opened. All clones share it: a reload replaces it for connections that
    /// are opened afterwards.
    login: Arc<ArcSwap<Login>>,
    target: Target,
    shown: String,
    /// The outage state, shared by all connections, so that one outage is one line in the log.
    pub(crate) outage: Arc<Outage>,
}

/// How a connection is opened: user and password, TLS and time limits.
#[derive(PartialEq)]
pub(crate) struct Login {
    pub(crate) config: tokio_postgres::Config,
    /// The trusted roots for the server's certificate.
    pub(crate) trust: TlsRoots,
    /// The client certificate, for a server that requests one.
    pub(crate) client: Option<Arc<ClientCertificate>>,
}

/// The store that a URL names. A running process never changes it.
#[derive(Clone, PartialEq)]
struct Target {
    hosts: Vec<Host>,
    /// The IP addresses in the URL, which replace the addresses that the host names resolve to.
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
    database: Option<String>,
    /// The value of `options`, which may name a schema (`search_path`).
    options: Option<String>,
}

impl Target {
    fn of(config: &tokio_postgres::Config) -> Self {
        let port = |index: usize| {
            config
                .get_ports()
                .get(index)
                .or(config.get_ports().first())
                .copied()
                .unwrap_or(5432)
        };
        Self {
            hosts: config.get_hosts().to_vec(),
            addresses: config.get_hostaddrs().to_vec(),
            ports: (0..config.get_hosts().len()).map(port).collect(),
            database: config.get_dbname().map(str::to_owned),
            options: config.get_options().map(str::to_owned),
        }
    }
}

impl PostgresUrl {
    /// Returns how connections are opened from now on.
    pub(crate) fn login(&self) -> Arc<Login> {
        self.login.load_full()
    }

    /// Whether connections to `other` are opened in the same way.
    pub fn has_login_of(&self, other: &Self) -> bool {
        *self.login.load() == *other.login.load()
    }

    /// Makes all clones of this URL open connections as `other` does from now on. Open connections
    /// stay. Returns a URL that opens connections as this one did before. The caller has checked
    /// that both have the same [`target`](Self::other_target).
    pub fn take_login_of(&self, other: &Self) -> Self {
        let before = self.login.swap(other.login());
        Self {
            login: Arc::new(ArcSwap::new(before)),
            ..self.clone()
        }
    }

    /// Returns the part of the URL by which `other` names another store, or `None` if both name the
    /// same store.
    pub fn other_target(&self, other: &Self) -> Option<&'static str> {
        let (one, other) = (&self.target, &other.target);
        if one.hosts != other.hosts || one.addresses != other.addresses {
            Some("host")
        } else if one.ports != other.ports {
            Some("port")
        } else if one.database != other.database {
            Some("database")
        } else if one.options != other.options {
            Some("value of options, which may name a schema")
        } else {
            None
        }
    }
}

const EXAMPLE: &str = "write it as postgres://USER:PASSWORD@HOST:5432/DATABASE";

impl FromStr for PostgresUrl {
    type Err = InvalidDatabase;

    /// Parses a URL as libpq does, but more strictly. The server must prove that it is the named
    /// host. Unencrypted connections are possible to this machine only. Each parameter is applied
    /// or rejected. Files that the URL names are read at once. Nothing is resolved or connected to.
    fn from_str(text: &str) -> Result<Self, InvalidDatabase> {
        let (plain, query) = parts(text)?;
        let words = read_words(query)?;
        let url = if words.rest.is_empty() {
            plain.to_owned()
        } else {
            format!("{plain}?{}", words.rest)
        };
        let mut config: tokio_postgres::Config = url.parse().map_err(|error| unreadable(&error))?;
        if config.get_hosts().is_empty() {
            return Err(InvalidDatabase::new("has no host", EXAMPLE));
        }
        if config.get_dbname().is_none_or(str::is_empty) {
            return Err(InvalidDatabase::new("has no database", EXAMPLE));
        }
        if !config.get_hosts().iter().all(is_host) {
            return Err(InvalidDatabase::new(
                "has a host with a character that is not allowed in host names",
                EXAMPLE,
            ));
        }
        // Use the host that accepts writes: of several hosts, or of several addresses of one name,
        // some may be standbys.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if !words.in_order {
            // A random order avoids that a host that accepts connections and never responds comes
            // first each time.
            config.load_balance_hosts(LoadBalanceHosts::Random);
        }
        let target = Target::of(&config);
        config.ssl_mode(ssl_mode(&config, &words)?);
        if config.get_ssl_mode() == SslMode::Disable {
            stay_here(&mut config);
        }
        let hosts: Vec<_> = target
            .hosts
            .iter()
            .zip(&target.ports)
            .map(|(host, port)| format!("{}:{port}", shown(host)))
            .collect();
        let shown = format!(
            "postgres://{}/{}",
            hosts.join(","),
            config.get_dbname().unwrap_or_default()
        );
        let outage = Arc::new(Outage::of("database".into()));
        let login = Login {
            config,
            trust: words.trust,
            client: words.client,
        };
        Ok(Self {
            login: Arc::new(ArcSwap::from_pointee(login)),
            target,
            shown,
            outage,
        })
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PostgresUrl").field(&self.shown).finish()
    }
}

#[cfg(test)]
mod tests;
