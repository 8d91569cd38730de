//! The location of the store: an SQLite file or a PostgreSQL database.

#[cfg(feature = "sqlite")]
use std::path::PathBuf;
use std::{fmt, path::Path, str::FromStr};

#[cfg(feature = "postgres")]
use crate::PostgresUrl;

/// The location of the store. Each variant needs the feature of its name.
#[derive(Debug, Clone)]
pub enum Database {
    /// An SQLite file on this machine.
    #[cfg(feature = "sqlite")]
    Sqlite(PathBuf),
    /// A PostgreSQL database that several processes on any machine can share.
    #[cfg(feature = "postgres")]
    Postgres(Box<PostgresUrl>),
}

impl Database {
    /// Returns the path of the file, or `None` for a PostgreSQL database.
    pub fn file(&self) -> Option<&Path> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(path) => Some(path),
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => None,
        }
    }

    /// Whether processes on several machines can share the store.
    pub fn is_shared(&self) -> bool {
        self.file().is_none()
    }

    /// Whether `new` is the same store with another user, password or way to connect.
    ///
    /// # Errors
    /// Returns what differs if `new` is another store.
    pub fn has_other_login(&self, new: &Self) -> Result<bool, String> {
        match (self, new) {
            #[cfg(feature = "postgres")]
            (Self::Postgres(in_use), Self::Postgres(new)) => match in_use.other_target(new) {
                None => Ok(!in_use.has_login_of(new)),
                Some(part) => Err(format!("has another {part} than the store in use, {self}")),
            },
            #[cfg(feature = "sqlite")]
            (Self::Sqlite(in_use), Self::Sqlite(new)) if in_use == new => Ok(false),
            #[allow(unreachable_patterns, reason = "with the feature postgres alone")]
            _ => Err(format!("names another store than the one in use, {self}")),
        }
    }

    /// Makes all clones of this location open connections as `new` does from now on. Returns a
    /// location that opens connections as this one did before. The caller has checked that both are
    /// the same store.
    pub fn take_login_of(&self, new: &Self) -> Self {
        match (self, new) {
            #[cfg(feature = "postgres")]
            (Self::Postgres(in_use), Self::Postgres(new)) => {
                Self::Postgres(Box::new(in_use.take_login_of(new)))
            }
            #[allow(unreachable_patterns, reason = "with the feature postgres alone")]
            _ => self.clone(),
        }
    }
}

impl FromStr for Database {
    type Err = InvalidDatabase;

    fn from_str(text: &str) -> Result<Self, InvalidDatabase> {
        match text.split_once(':') {
            #[cfg(feature = "sqlite")]
            Some(("sqlite", path)) if !path.is_empty() => {
                Ok(Self::Sqlite(path.strip_prefix("//").unwrap_or(path).into()))
            }
            #[cfg(feature = "postgres")]
            Some(("postgres" | "postgresql", _)) => {
                text.parse().map(|url| Self::Postgres(Box::new(url)))
            }
            _ => {
                let fix =
                    "write it as sqlite:PATH, or as postgres://USER:PASSWORD@HOST:5432/DATABASE";
                Err(InvalidDatabase::new(
                    "is neither an SQLite file nor a PostgreSQL database",
                    fix,
                ))
            }
        }
    }
}

/// Shows the location without user and password.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => write!(f, "{url}"),
        }
    }
}

/// The error of a text that is not the location of a usable store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct InvalidDatabase {
    /// What is wrong, without the URL, which may contain a password.
    pub reason: String,
    /// What to write instead.
    pub fix: String,
}

impl InvalidDatabase {
    pub(crate) fn new(reason: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            fix: fix.into(),
        }
    }
}
