//! Which database the store is in.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use guestlane_genesys::{Outage, Trust};
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode, TargetSessionAttrs};

/// Where the store is.
#[derive(Debug, Clone)]
pub enum Database {
    /// A file on this machine.
    Sqlite(PathBuf),
    /// A database that several processes share, on any machine.
    Postgres(Box<PostgresUrl>),
}

impl Database {
    /// The file, where it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }

    /// Whether several processes on several machines share it.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }
}

impl FromStr for Database {
    type Err = InvalidDatabase;

    fn from_str(text: &str) -> Result<Self, InvalidDatabase> {
        match text.split_once(':') {
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(path.strip_prefix("//").unwrap_or(path).into())),
            Some(("postgres" | "postgresql", _)) => text.parse().map(|url| Self::Postgres(Box::new(url))),
            _ => {
                let fix = "write it as sqlite:PATH, or as postgres://USER:PASSWORD@HOST:5432/DATABASE";
                Err(InvalidDatabase::new("is neither a file of SQLite nor a database of PostgreSQL", fix))
            }
        }
    }
}

/// Without user and password.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Postgres(url) => write!(f, "{url}"),
        }
    }
}

/// A `postgres://` URL that was understood. Neither `Debug` nor `Display` shows user or password.
#[derive(Clone)]
pub struct PostgresUrl {
    pub(super) config: tokio_postgres::Config,
    /// Whose certificates are believed.
    pub(super) trust: Trust,
    shown: String,
    /// Shared by all connections: one outage is one line in the log.
    pub(super) outage: Arc<Outage>,
}

/// It is no URL of a database that could be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct InvalidDatabase {
    /// What is wrong, without the URL: it may have a password.
    pub reason: String,
    /// What to write.
    pub fix: String,
}

impl InvalidDatabase {
    fn new(reason: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { reason: reason.into(), fix: fix.into() }
    }
}

const EXAMPLE: &str = "write it as postgres://USER:PASSWORD@HOST:5432/DATABASE";

impl FromStr for PostgresUrl {
    type Err = InvalidDatabase;

    /// As libpq understands it (`sslrootcert` is a file, which is read at once), but stricter in two ways: whoever answers must prove that they are the host that is named, and nothing goes in
    /// plain but to this machine itself.
    fn from_str(text: &str) -> Result<Self, InvalidDatabase> {
        let (plain, query) = text.split_once('?').unwrap_or((text, ""));
        let mut rest = url::form_urlencoded::Serializer::new(String::new());
        let (mut mode, mut trust) = (None, Trust::System);
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "sslmode" => mode = Some(value.into_owned()),
                "sslrootcert" => trust = trust_in(&value)?,
                _ => drop(rest.append_pair(&name, &value)),
            }
        }
        // libpq's own decoding knows no plus for a space.
        let rest = rest.finish().replace('+', "%20");
        let url = if rest.is_empty() { plain.to_owned() } else { format!("{plain}?{rest}") };
        let mut config: tokio_postgres::Config =
            url.parse().map_err(|error| InvalidDatabase::new(format!("is not a database's URL: {error}"), EXAMPLE))?;
        if config.get_hosts().is_empty() {
            return Err(InvalidDatabase::new("names no host", EXAMPLE));
        }
        if config.get_dbname().is_none_or(str::is_empty) {
            return Err(InvalidDatabase::new("names no database", EXAMPLE));
        }
        match config.get_target_session_attrs() {
            TargetSessionAttrs::Any | TargetSessionAttrs::ReadWrite => {}
            _ => {
                let reason = "says target_session_attrs=read-only, and guestlane writes";
                return Err(InvalidDatabase::new(reason, "leave it out: of several hosts the one is used that takes writes"));
            }
        }
        // Of several, and where one name is first this machine's and then that one's: a standby is none.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        // One that takes a connection and says nothing is not to be the first each time.
        config.load_balance_hosts(LoadBalanceHosts::Random);
        let here = config.get_hosts().iter().all(is_this_machine) && config.get_hostaddrs().iter().all(IpAddr::is_loopback);
        config.ssl_mode(match mode.as_deref() {
            None if here => SslMode::Disable,
            None | Some("require" | "verify-ca" | "verify-full") => SslMode::Require,
            Some("disable") if here => SslMode::Disable,
            Some("disable") => {
                let fix = "leave sslmode out; a private CA is named by sslrootcert=FILE";
                return Err(InvalidDatabase::new("says sslmode=disable, and the database is on another machine", fix));
            }
            Some(other) => {
                let reason = format!("says sslmode={other}, which does not say whether anybody may listen");
                return Err(InvalidDatabase::new(reason, "write sslmode=verify-full, or disable for this machine alone"));
            }
        });
        let port = |index: usize| config.get_ports().get(index).or(config.get_ports().first()).copied().unwrap_or(5432);
        let hosts: Vec<_> =
            config.get_hosts().iter().enumerate().map(|(index, host)| format!("{}:{}", shown(host), port(index))).collect();
        let shown = format!("postgres://{}/{}", hosts.join(","), config.get_dbname().unwrap_or_default());
        Ok(Self { config, trust, shown, outage: Arc::new(Outage::of("database".into())) })
    }
}

fn trust_in(file: &str) -> Result<Trust, InvalidDatabase> {
    let refused = |reason: String| {
        InvalidDatabase::new(
            format!("names sslrootcert={file}, which {reason}"),
            "name a file of certificates in PEM, or leave it out",
        )
    };
    Trust::from_file(Path::new(file)).map_err(|error| refused(error.to_string()))
}

fn is_this_machine(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.trim_matches(['[', ']']).parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

fn shown(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<PostgresUrl, InvalidDatabase> {
        text.parse()
    }

    #[test]
    fn nothing_goes_in_plain_but_to_this_machine() {
        for plain in ["postgres://u@localhost/d", "postgres://u@127.0.0.1:5432/d?sslmode=disable", "postgres://u@%2Ftmp/d"] {
            assert_eq!(parsed(plain).unwrap().config.get_ssl_mode(), SslMode::Disable, "{plain}");
        }
        for encrypted in [
            "postgres://u@db.example/d",
            "postgres://u@127.0.0.1/d?sslmode=require",
            "postgres://u@10.0.0.1/d?sslmode=verify-full",
            "postgres://u@localhost/d?hostaddr=10.0.0.1",
        ] {
            assert_eq!(parsed(encrypted).unwrap().config.get_ssl_mode(), SslMode::Require, "{encrypted}");
        }
        for refused in [
            "postgres://u@db.example/d?sslmode=disable",
            "postgres://u@db.example/d?sslmode=prefer",
            "postgres://u@localhost/d?sslmode=allow",
        ] {
            assert!(parsed(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_url_without_host_or_database_is_refused_and_never_repeated() {
        for text in [
            "postgres://",
            "postgres:///d",
            "postgres://u:secret@h",
            "postgres://u:secret@h:port/d",
            "postgres://u:secret@h/d?secret=1",
        ] {
            let error = parsed(text).unwrap_err();
            assert!(!format!("{error:?}").contains("secret@"), "{error:?}");
        }
    }

    proptest! {
        /// Whatever follows: it is understood or refused, and neither shows the password.
        #[test]
        fn any_text_is_understood_or_refused_and_never_repeated(
            password in "[a-z]{12}", rest in "(\\PC{0,30}|[a-z0-9.:,/?&=%+@\\[\\]-]{0,60})",
        ) {
            let text = format!("postgres://ann:{password}@{rest}");
            match text.parse::<Database>() {
                Ok(database) => {
                    let shown = format!("{database} {database:?}");
                    prop_assert!(!shown.contains(&password), "{}", shown);
                }
                Err(error) => {
                    let shown = format!("{error} {error:?}");
                    prop_assert!(!shown.contains(&password), "{}", shown);
                }
            }
        }
    }

    #[test]
    fn user_and_password_are_not_shown() {
        let url = parsed("postgres://ann:secret@localhost:5433/lane?application_name=x%20y").unwrap();
        assert_eq!(url.to_string(), "postgres://localhost:5433/lane");
        assert_eq!(url.config.get_application_name(), Some("x y"));
        assert!(!format!("{url:?} {:?}", Database::Postgres(Box::new(url.clone()))).contains("ann"));
    }
}
